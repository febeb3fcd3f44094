"""What something offered as an image is: told by its first bytes and never by its name."""

from __future__ import annotations

import io
import os
import re
import stat
import struct
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import IO, BinaryIO

from images.errors import SourceInvalid
from images.sources.archive import Archive, Member
from images.sources.compressed import Compressed, Readable
from images.sources.names import clean

HEAD = 1 << 20  # bytes looked at in a stream, and in what a compressed file holds; a block of bzip2 is 900 kB
MOST = 4096  # members looked at in an archive that is a file
BUNDLE = b"gildbdl1"
# Where a magic number stands, and what it says. QEMU's docs/interop/qcow2.rst; the VMware "Virtual Disk Format";
# VirtualBox's VDICore.h; the VHDX format specification (MS-VHDX); UEFI 2.10 section 5.3 for GPT, on disks of 512 and of
# 4096 bytes a sector; include/uapi/linux/magic.h and the kernel's documentation of each filesystem.
MAGIC: tuple[tuple[int, bytes, str], ...] = (
    (0, BUNDLE, "bundle"),
    (0, b"QFI\xfb", "disk:qcow2"),
    (0, b"KDMV", "disk:vmdk"),
    (0, b"# Disk DescriptorFile", "disk:vmdk"),
    (0x40, struct.pack("<I", 0xBEDA107F), "disk:vdi"),
    (0, b"vhdxfile", "disk:vhdx"),
)
RAW: tuple[tuple[int, bytes], ...] = (
    (512, b"EFI PART"),
    (4096, b"EFI PART"),
    (510, b"\x55\xaa"),  # a boot sector: MBR, FAT, NTFS
    (1024 + 56, b"\x53\xef"),  # ext2, ext3, ext4
    (0, b"XFSB"),
    (65536 + 64, b"_BHRfS_M"),  # btrfs
    (1024, struct.pack("<I", 0xF2F52010)),  # f2fs
    (512, b"LABELONE"),  # LVM
)
HEX = "[0-9a-f]{64}"
# Members by which an archive of images is known, and nothing else than such has any. Docker's from before version 25,
# skopeo's and podman's docker-archive.
OCI = re.compile(rf"oci-layout|index\.json|blobs/sha256(?:/{HEX})?")
DOCKER = re.compile(rf"manifest\.json|repositories|{HEX}(?:\.json|\.tar|/json|/VERSION|/layer\.tar)?")


def looks_like(path: Path) -> str:
    """What `path` is: "directory", "oci" (an image layout: a directory, or an archive of one), "docker" (an archive of
    `docker save` without such a layout), "tar", "disk:qcow2", "disk:vmdk", "disk:vdi", "disk:vhdx", "disk:raw" (a
    partition table, a boot sector or a bare filesystem), "bundle", or "unknown". Archives may be compressed. A bounded
    part of it is read. Raises SourceInvalid if it is not there or cannot be read."""
    try:
        if path.is_dir():
            layout = (path / "index.json").is_file() and (path / "blobs").is_dir()
            return "oci" if layout or (path / "oci-layout").is_file() else "directory"
        # A pipe would be eaten by looking: whoever has one asks looks_like_stream.
        with open(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as file:
            mode = os.fstat(file.fileno()).st_mode
            if not stat.S_ISREG(mode) and not stat.S_ISBLK(mode):
                raise SourceInvalid(f"{path} is neither a file nor a directory", "give a pipe as -")
            head = file.read(HEAD)
            return _told(head) or _archive(head, file)
    except OSError as error:
        raise SourceInvalid(f"{path} cannot be read: {error.strerror or error}") from None


def looks_like_stream(stream: IO[bytes]) -> tuple[str, BinaryIO]:
    """The same for an open stream, such as a pipe on standard input, and a stream that begins where it began. An
    archive of images whose first members are not those of one is "tar". Raises OSError."""
    head = b""
    while len(head) < HEAD and (more := stream.read(HEAD - len(head))):
        head += more
    return _told(head) or _archive(head, None), io.BufferedReader(_Again(head, stream), HEAD)


class _Again(io.RawIOBase):
    """Bytes that were read from a stream, and then the rest of it."""

    def __init__(self, head: bytes, stream: IO[bytes]) -> None:
        self._head, self._stream = head, stream

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: bytearray | memoryview) -> int:  # type: ignore[override]
        data, self._head = self._head[: len(buffer)], self._head[len(buffer) :]
        data = data or self._stream.read(len(buffer))
        buffer[: len(data)] = data
        return len(data)


def _told(head: bytes) -> str:
    """What a magic number says, "" if there is none."""
    return next((what for at, magic, what in MAGIC if head[at : at + len(magic)] == magic), "")


def _archive(head: bytes, file: BinaryIO | None) -> str:
    """An archive by its members, and else a disk, whose boot sector may look like anything but an archive's header."""
    stream = Compressed(io.BytesIO(head), "it")
    if stream.kind:
        return _members(Archive(_Bounded(stream), "it").members())
    if file is not None:
        file.seek(0)
        found = _members(Archive(file, "it", seekable=file).members())
    else:
        found = _members(Archive(stream, "it").members())
    if found != "unknown":
        return found
    return "disk:raw" if any(head[at : at + len(magic)] == magic for at, magic in RAW) else "unknown"


class _Bounded:
    """At most HEAD bytes of what a compressed stream holds."""

    def __init__(self, stream: Readable) -> None:
        self._stream, self._left = stream, HEAD

    def read(self, size: int, /) -> bytes:
        data = self._stream.read(min(size, self._left))
        self._left -= len(data)
        return data


def _members(members: Iterable[Member]) -> str:
    """What an archive with these members is, as far as they can be read."""
    found = ""
    for name in _names(members):
        if name in ("", "blobs"):
            found = found or "tar"
        elif OCI.fullmatch(name):
            return "oci"
        elif DOCKER.fullmatch(name):
            found = "docker"
        else:
            return "tar"
    return found or "unknown"


def _names(members: Iterable[Member]) -> Iterator[str]:
    """Their names, up to where the archive ends or makes no sense any more."""
    try:
        for _, member in zip(range(MOST), members, strict=False):
            yield clean(member.name)
    except SourceInvalid:
        return
