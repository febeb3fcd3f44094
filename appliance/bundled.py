"""What travels with the program, read alike from the one file and from a source checkout."""

from __future__ import annotations

import os
import struct
import zipfile
from pathlib import Path

_ROOT = Path(__file__).resolve().parents[1]
_LOCAL_HEADER = struct.Struct("<4s22xHH")  # signature, ..., name length, extra length (APPNOTE.TXT, section 4.3.7)


def archive() -> Path | None:
    """The .pyz this program runs from, or None in a source checkout."""
    return _ROOT if _ROOT.is_file() else None


def read(name: str) -> bytes:
    """A data file of the program by its path from the root ("appliance/help/start.md"). Raises KeyError or OSError."""
    whole = archive()
    if whole is None:
        if name == "components.json":
            return (_ROOT / ".build" / "payload" / "COMPONENTS.json").read_bytes()
        return (_ROOT / name).read_bytes()
    with zipfile.ZipFile(whole) as members:
        return members.read(name)


def payload() -> dict[str, tuple[int, int, int]]:
    """Public boot name -> (file descriptor, offset, size). The members are stored uncompressed, so that they can be
    sent from the .pyz itself. Opened once: an upgrade that renames a new file over this one never mixes the two."""
    whole = archive()
    if whole is None:
        folder = _ROOT / ".build" / "payload"
        files = sorted(folder.iterdir()) if folder.is_dir() else []
        return {
            file.name: (os.open(file, os.O_RDONLY | os.O_CLOEXEC), 0, file.stat().st_size)
            for file in files
            if file.name != "COMPONENTS.json"
        }
    fd = os.open(whole, os.O_RDONLY | os.O_CLOEXEC)
    found = {}
    with zipfile.ZipFile(whole) as members:
        for entry in members.infolist():
            if entry.filename.startswith("payload/") and entry.compress_type == zipfile.ZIP_STORED:
                # The local header's lengths may differ from those of the central directory.
                signature, name, extra = _LOCAL_HEADER.unpack(os.pread(fd, _LOCAL_HEADER.size, entry.header_offset))
                if signature != b"PK\3\4":
                    raise zipfile.BadZipFile(f"{whole}: no member at {entry.header_offset}")
                offset = entry.header_offset + _LOCAL_HEADER.size + name + extra
                found[entry.filename.removeprefix("payload/")] = (fd, offset, entry.file_size)
    return found
