"""A disk to read, whatever file it comes in: raw as it is, the formats of virtual machines as a sparse raw copy.

A disk file may come from anybody, and some formats name further files: a qcow2 its backing file, a VMDK its extents.
qemu-img would open /etc/shadow as readily as a disk, so the headers are read here first, and only files that stand
beside the one given are let in. The format is always told to qemu-img, never guessed by it.
"""

from __future__ import annotations

import errno
import io
import json
import os
import re
import shutil
import stat
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from images.errors import CommandFailed, NoSpace, SourceInvalid
from images.options import Options
from images.run import pipe, run

FORMATS = ("raw", "qcow2", "vmdk", "vdi", "vhdx")
MAX_SIZE = 16 << 40  # bytes of a disk: what one file of ext4 with blocks of 4 KiB can be (kernel ext4/overview.rst)
RESERVE = 64 << 20  # bytes of the head's disk that an import may not take
MAX_DESCRIPTOR = 64 << 10  # bytes of a VMDK's text; qemu block/vmdk.c allows some more
INFO_TIME, INFO_MEMORY = 30, 1 << 30  # seconds of the processor and bytes: a hostile header may ask for more
CONVERT_TIME = 24 * 3600  # seconds
QCOW2_DATA_FILE, QCOW2_ENCRYPTED = 1 << 2, 32  # qemu docs/interop/qcow2.txt: incompatible feature, offset of the method
FLATTEN = "flatten it where its other files are: qemu-img convert -O qcow2"
# Magic -> what it is, and what to do about it. Formats of other programs that a raw disk would be mistaken for.
FOREIGN = (
    (b"\x1f\x8b", "compressed (gzip)", "gunzip it first"),
    (b"\xfd7zXZ\0", "compressed (xz)", "unxz it first"),
    (b"\x28\xb5\x2f\xfd", "compressed (zstd)", "unzstd it first"),
    (b"BZh", "compressed (bzip2)", "bunzip2 it first"),
    (b"PK\x03\x04", "a zip archive", "unzip it first"),
    (b"conectix", "a VHD disk", "qemu-img convert -f vpc -O qcow2 first"),
    (b"QED\0", "a QED disk", "qemu-img convert -f qed -O qcow2 first"),
)
_EXTENT = re.compile(r'(?m)^\s*(?:RW|RDONLY|NOACCESS)\s+\d+\s+(\w+)(?:\s+"([^"\n]*)")?')
_PROGRESS = re.compile(rb"\((\d{1,3}\.\d\d)/100%\)")


@dataclass(frozen=True, slots=True)
class Disk:
    """An open disk of `size` bytes. `fd` is for reading, unless it is our own copy (`own`), whose blocks may be given
    back once they are copied on; `file` is where it lies."""

    fd: int
    size: int
    format: str
    file: Path
    own: bool

    def read(self, offset: int, length: int) -> bytes:
        """Bytes of the disk, fewer at its end."""
        return os.pread(self.fd, length, offset)


@contextmanager
def opened(path: Path, directory: Path, options: Options) -> Iterator[Disk]:
    """The disk in the file or block device `path`, which is only read. What is not raw is converted into `directory`
    first, and is removed on leaving if it is still there.
    Raises SourceInvalid for a file that is no disk or wants other files, NoSpace, CommandFailed, ToolMissing."""
    try:
        kind = path.stat().st_mode
    except OSError as error:
        raise SourceInvalid(f"{plain(path)} cannot be read: {error.strerror}") from None
    if not (stat.S_ISREG(kind) or stat.S_ISBLK(kind)):
        raise SourceInvalid(f"{plain(path)} is neither a file nor a disk")
    path = path.resolve()
    found = "raw" if stat.S_ISBLK(kind) else recognise(path)
    raw = path
    if found != "raw":
        raw = directory / "disk.raw"
        _convert(path, found, raw, options)
    fd = _open(raw, own=raw != path)
    try:
        size = os.lseek(fd, 0, os.SEEK_END)
        if not 512 <= size <= MAX_SIZE:
            raise SourceInvalid(f"{plain(path)} is a disk of {size} bytes, which nobody has")
        yield Disk(fd, size, found, raw, raw != path)
    finally:
        os.close(fd)
        if raw != path:
            raw.unlink(missing_ok=True)


def recognise(path: Path) -> str:
    """The format of a disk file, one of FORMATS: raw if it is nothing else. Raises SourceInvalid for what is no disk,
    and for a disk that needs other files than those beside it."""
    with path.open("rb") as file:
        head = file.read(1024)
    for magic, what, hint in FOREIGN:
        if head.startswith(magic):
            raise SourceInvalid(f"{plain(path)} is {what}", hint)
    if head[257:262] == b"ustar":
        raise SourceInvalid(f"{plain(path)} is a tar archive", "an OVA holds a .vmdk: unpack it and give that")
    if head.startswith(b"QFI\xfb"):
        _check_qcow2(path, head)
        return "qcow2"
    if head.startswith((b"KDMV", b"COWD", b"# Disk DescriptorFile")):
        _check_vmdk(path, head)
        return "vmdk"
    if head[64:68] == b"\x7f\x10\xda\xbe":
        return "vdi"
    return "vhdx" if head.startswith(b"vhdxfile") else "raw"


def plain(path: Path) -> str:
    """The name of a disk file as it can stand in a message and a manifest; a file name may be any bytes."""
    name = os.fsencode(path.name).decode("utf-8", "replace")
    return "".join(c if c.isprintable() else "?" for c in name)[:255]


def free_space(directory: Path) -> int:
    """Bytes an import may still write to the disk that holds `directory`."""
    return shutil.disk_usage(directory).free - RESERVE


def _open(path: Path, *, own: bool) -> int:
    """open(2): without O_CREAT, O_EXCL on a block device fails with EBUSY if the system uses it; what is mounted
    changes while it is read."""
    flags = os.O_RDWR if own else os.O_RDONLY | (os.O_EXCL if path.is_block_device() else 0)
    try:
        return os.open(path, flags | os.O_CLOEXEC)
    except OSError as error:
        hint = "unmount it, or capture the running machine" if error.errno == errno.EBUSY else ""
        raise SourceInvalid(f"{plain(path)} cannot be read: {error.strerror}", hint) from None


def _check_qcow2(path: Path, head: bytes) -> None:
    """A qcow2 that stands alone (qemu docs/interop/qcow2.txt, "Header")."""
    version, backing = struct.unpack_from(">IQ", head, 4)
    features = struct.unpack_from(">Q", head, 72)[0] if version >= 3 else 0
    if backing:
        raise SourceInvalid(f"{plain(path)} is only the difference to another disk (its backing file)", FLATTEN)
    if features & QCOW2_DATA_FILE:
        raise SourceInvalid(f"{plain(path)} keeps its data in another file", FLATTEN)
    if struct.unpack_from(">I", head, QCOW2_ENCRYPTED)[0]:
        raise SourceInvalid(f"{plain(path)} is encrypted", "qemu-img convert it with its secret first")


def _check_vmdk(path: Path, head: bytes) -> None:
    """A VMDK that stands alone, or whose parts stand beside it (VMware Virtual Disk Format 1.1)."""
    if head.startswith(b"KDMV"):
        capacity, at, length = struct.unpack_from("<Q", head, 12)[0], *struct.unpack_from("<QQ", head, 28)
        if not capacity:  # then qemu takes the embedded text for that of a disk in parts
            raise SourceInvalid(f"{plain(path)} has a size of nothing")
        parts = False
    elif head.startswith(b"COWD"):
        return
    else:
        at, length, parts = 0, MAX_DESCRIPTOR // 512, True
    with path.open("rb") as file:
        text = os.pread(file.fileno(), min(length * 512, MAX_DESCRIPTOR), min(at * 512, MAX_SIZE))
    said = text.split(b"\0")[0].decode("utf-8", "replace")
    parent = re.search(r'(?mi)^\s*parentCID\s*=\s*"?([0-9a-f]+)', said)
    if "parentFileNameHint" in said or (parent and parent[1].lower() != "ffffffff"):
        raise SourceInvalid(f"{plain(path)} is only the difference to another disk (a snapshot)", FLATTEN)
    for kind, name in _EXTENT.findall(said) if parts else ():
        if kind == "ZERO" and not name:
            continue
        place = path.parent / name
        if not name or "/" in name or ":" in name or place.is_symlink() or not place.is_file():
            raise SourceInvalid(f"{plain(path)} wants {name[:100]!r}, which is no file beside it", FLATTEN)


def _convert(path: Path, form: str, target: Path, options: Options) -> None:
    """A sparse raw copy. Raises SourceInvalid for one too large or not alone, NoSpace, CommandFailed, ToolMissing."""
    act = f"reading {plain(path)}"
    run(["qemu-img", "--version"], act=act)
    limits = ["prlimit", f"--cpu={INFO_TIME}", f"--as={INFO_MEMORY}", "--"]
    argv = [*limits, "qemu-img", "info", "--output=json", "-f", form, os.fspath(path)]
    _check_info(json.loads(run(argv, timeout=4 * INFO_TIME, act=act).stdout), path, target)
    argv = ["qemu-img", "convert", "-p", "-f", form, "-O", "raw", os.fspath(path), os.fspath(target)]
    options.tell("convert", 0, 100)
    try:
        with pipe(argv, timeout=CONVERT_TIME, act=act) as said:
            while piece := cast(io.BufferedReader, said).read1(4096):
                if free_space(target.parent) < 0:
                    raise NoSpace(f"{act}: the disk is full", "free some space, or gild image gc")
                for done in _PROGRESS.findall(piece)[-1:]:
                    options.tell("convert", min(100, int(float(done))), 100)
    except CommandFailed as error:
        if "No space left" in error.message:
            raise NoSpace(f"{act}: the disk is full", "free some space, or gild image gc") from None
        raise
    options.tell("convert", 100, 100)


def _check_info(info: dict[str, Any], path: Path, target: Path) -> None:
    """What qemu-img says of a disk is what the headers said: one of a size that can be, and no other files."""
    size, held = int(info.get("virtual-size", 0)), int(info.get("actual-size", 0))
    if not 512 <= size <= MAX_SIZE:
        raise SourceInvalid(f"{plain(path)} says it is a disk of {size} bytes, which nobody has")
    data = info.get("format-specific", {}).get("data", {})
    if info.get("backing-filename") or data.get("data-file"):
        raise SourceInvalid(f"{plain(path)} needs another file", FLATTEN)
    if info.get("encrypted"):
        raise SourceInvalid(f"{plain(path)} is encrypted", "qemu-img convert it with its secret first")
    for extent in data.get("extents", ()):
        place = Path(extent.get("filename", ""))
        if (path.parent / place).resolve().parent != path.parent:
            raise SourceInvalid(f"{plain(path)} needs {str(place)[:100]!r}, which is no file beside it", FLATTEN)
    if held > free_space(target.parent):
        raise NoSpace(
            f"reading {plain(path)}: it takes at least {held >> 20} MiB, {free_space(target.parent) >> 20} are free",
            "free some space, or gild image gc",
        )
