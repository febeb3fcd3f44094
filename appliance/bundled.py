"""What the running gild carries besides code: its own texts and the netboot payload, from the .pyz or a checkout."""

from __future__ import annotations

import os
import struct
import sys
import zipfile

from appliance.errors import Environment

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))  # the .pyz itself, or the checkout's folder
BUILT = ".build"  # where a checkout keeps what would be in the .pyz
PAYLOAD = "payload/"
HINT = "python3 build.py app"


def read(name: str) -> bytes:
    """One of our own files by its path, such as "appliance/help/start.md"; "components.json" is the list of all that
    is bundled. Raises Environment in a checkout where it has not been built yet."""
    if _archive() is not None:
        assert __spec__ is not None
        return bytes(__spec__.loader.get_data(f"{ROOT}/{name}"))  # type: ignore[union-attr]
    for folder in (ROOT, os.path.join(ROOT, BUILT)):
        try:
            with open(os.path.join(folder, name), "rb") as file:
                return file.read()
        except FileNotFoundError:
            continue
    raise Environment(f"{name} is not in this checkout", HINT)


def payload() -> dict[str, tuple[int, int, int]]:
    """Kernel, installer, loaders: public name -> (open file descriptor, offset, size), ready for sendfile.

    In the .pyz it is the file this process was started from, also after another was renamed over it; what is
    compressed there is unpacked into memory. Call it once: the descriptors stay open. In a checkout it is
    .build/payload, and empty if that has not been built: then only the site's own boot files are served.
    """
    archive = _archive()
    return _stored(archive) if archive is not None else _checkout(os.path.join(ROOT, BUILT, PAYLOAD))


def again() -> tuple[list[str], dict[str, str]]:
    """The command that starts this very gild once more, and what its environment needs besides. In the .pyz it is the
    file this process was started from, also after another was renamed over it; valid while this process lives."""
    archive = _archive()
    if archive is not None:
        return [sys.executable, f"/proc/{os.getpid()}/fd/{archive}"], {}
    return [sys.executable, "-m", "appliance"], {"PYTHONPATH": ROOT}


def is_archive() -> bool:
    """Whether this runs from gild.pyz, and not from a checkout."""
    return _archive() is not None


def _archive() -> int | None:
    """The descriptor of the .pyz, if that is where this module comes from."""
    return getattr(__spec__.loader, "fd", None) if __spec__ is not None else None


def _stored(fd: int) -> dict[str, tuple[int, int, int]]:
    found = {}
    with zipfile.ZipFile(f"/proc/self/fd/{fd}") as archive:
        for info in archive.infolist():
            if not info.filename.startswith(PAYLOAD):
                continue
            name = info.filename.removeprefix(PAYLOAD)
            if info.compress_type == zipfile.ZIP_STORED:
                # The lengths of the local header count: they may differ from those in the directory at the end.
                name_length, extra_length = struct.unpack("<HH", os.pread(fd, 30, info.header_offset)[26:30])
                found[name] = (fd, info.header_offset + 30 + name_length + extra_length, info.file_size)
            else:
                memory = os.memfd_create(name, os.MFD_CLOEXEC)
                with open(memory, "wb", closefd=False) as file:
                    file.write(archive.read(info))
                found[name] = (memory, 0, info.file_size)
    return found


def _checkout(folder: str) -> dict[str, tuple[int, int, int]]:
    found = {}
    if os.path.isdir(folder):
        for name in sorted(os.listdir(folder)):
            if name != "COMPONENTS.json" and not name.startswith("."):
                fd = os.open(os.path.join(folder, name), os.O_RDONLY | os.O_CLOEXEC)
                found[name] = (fd, 0, os.fstat(fd).st_size)
    return found
