"""Read what an initramfs holds: the names of its files, through every segment and compression.

The kernel unpacks a concatenation of newc cpio archives, plain or compressed, with zero padding between them (kernel
Documentation/driver-api/early-userspace/buffer-format.rst). In practice: an uncompressed archive with the processor's
microcode first; Debian 13 puts all compressed modules into that uncompressed part and the rest, zstd, behind it, so a
reader that stops at the first trailer misses one half.
"""

from __future__ import annotations

import bz2
import lzma
import os
import re
import shutil
import zlib
from collections.abc import Callable, Iterator
from typing import Protocol

from images import zstd
from images.errors import ChunkInvalid, SourceInvalid, ToolMissing
from images.run import run

MAX_FILE = 1 << 30  # bytes of an initramfs file
MAX_UNPACKED = 2 << 30  # bytes unpacked; the largest seen, everything and firmware, is below 1 GiB
MAX_WHOLE = 1 << 30  # of those, held in memory at once: what lz4 and zstd segments may unpack to
MAX_NAMES = 200_000
MAX_NAME = 4096  # PATH_MAX, as the kernel's unpacker has it (init/initramfs.c)
MAX_SEGMENTS = 64
PIECE = 1 << 20
HEADER = 110  # bytes of a newc header: magic 6, thirteen fields of eight hex digits
TRAILER = "TRAILER!!!"
MODULE = re.compile(r"(?:^|/)lib/modules/([^/]+)/.*/([^/]+)\.ko(?:\.(?:xz|zst|gz))?$")


class _Stream(Protocol):
    """What zlib, bz2 and lzma decompressors have in common."""

    @property
    def unused_data(self) -> bytes: ...
    @property
    def eof(self) -> bool: ...
    def decompress(self, data: bytes, max_length: int = ..., /) -> bytes: ...


def initramfs_names(data: bytes) -> list[str]:
    """Names of all files in an initramfs, in order, without leading "./" or "/"; `data` is the whole file.
    Raises SourceInvalid for anything that is not an initramfs, is cut off or unpacks to more than MAX_UNPACKED bytes;
    ToolMissing for lz4 without the lz4 program."""
    if len(data) > MAX_FILE:
        raise SourceInvalid(f"an initramfs of {len(data)} bytes is larger than {MAX_FILE}")
    names: list[str] = []
    at = 0
    for _ in range(MAX_SEGMENTS):
        while at < len(data) and data[at] == 0:  # padding between segments, usually to 4 or 512 bytes
            at = _skip_zeros(data, at)
        if at >= len(data):
            return names
        if data.startswith((b"070701", b"070702"), at):
            reader = _Reader(iter([data[at:]]))
            _archive(reader, names)
            at += reader.taken
        else:
            pieces, rest = _unpack(data[at:])
            reader = _Reader(pieces)
            if not reader.more():
                raise SourceInvalid("initramfs has a compressed segment with nothing in it, or is cut off")
            while reader.more():
                _archive(reader, names)
            at = len(data) - rest()
    raise SourceInvalid(f"initramfs has more than {MAX_SEGMENTS} segments")


def modules_in(names: list[str]) -> dict[str, list[str]]:
    """Kernel modules among the names of an initramfs: kernel version -> sorted module names with '_' for '-'."""
    found: dict[str, set[str]] = {}
    for name in names:
        match = MODULE.search(name)
        if match:
            found.setdefault(match[1], set()).add(match[2].replace("-", "_"))
    return {version: sorted(modules) for version, modules in found.items()}


class _Reader:
    """Takes bytes from pieces; counts them, so that the next segment can be found behind the trailer."""

    def __init__(self, pieces: Iterator[bytes]) -> None:
        self._pieces = pieces
        self._buffer = b""
        self._at = 0
        self.taken = 0

    def take(self, count: int, keep: bool = True) -> bytes:
        """The next `count` bytes, or with keep=False nothing: they are skipped."""
        parts = []
        left = count
        while left:
            if self._at == len(self._buffer) and not self._refill():
                raise SourceInvalid("initramfs ends inside an archive")
            step = min(left, len(self._buffer) - self._at)
            if keep:
                parts.append(self._buffer[self._at : self._at + step])
            self._at += step
            left -= step
        self.taken += count
        if self.taken > MAX_UNPACKED:
            raise SourceInvalid(f"initramfs unpacks to more than {MAX_UNPACKED} bytes")
        return b"".join(parts)

    def more(self) -> bool:
        """Whether anything but zeros follows; skips the zeros."""
        while True:
            if self._at == len(self._buffer) and not self._refill():
                return False
            at = _skip_zeros(self._buffer, self._at)
            self.taken += at - self._at
            self._at = at
            if self._at < len(self._buffer):
                return True

    def _refill(self) -> bool:
        for piece in self._pieces:
            if piece:
                self._buffer, self._at = piece, 0
                return True
        return False


def _skip_zeros(data: bytes, at: int) -> int:
    while at < len(data) and data[at] == 0:
        step = data[at : at + 4096]
        kept = step.lstrip(b"\0")
        at += len(step) - len(kept)
        if kept:
            break
    return at


def _archive(reader: _Reader, names: list[str]) -> None:
    """Read one newc archive up to and including its trailer."""
    start = reader.taken
    while True:
        header = reader.take(HEADER)
        if header[:6] not in (b"070701", b"070702"):
            raise SourceInvalid(f"initramfs has no cpio header at byte {reader.taken - HEADER} of a segment")
        try:
            size, length = int(header[54:62], 16), int(header[94:102], 16)
        except ValueError:
            raise SourceInvalid("initramfs has a cpio header that is not hexadecimal") from None
        if not 0 < length <= MAX_NAME:
            raise SourceInvalid(f"initramfs has a file name of {length} bytes")
        name = reader.take(length).rstrip(b"\0").decode("utf-8", "replace")
        reader.take(-(reader.taken - start) % 4, keep=False)
        if name == TRAILER:
            return
        reader.take(size, keep=False)
        reader.take(-(reader.taken - start) % 4, keep=False)
        if len(names) >= MAX_NAMES:
            raise SourceInvalid(f"initramfs holds more than {MAX_NAMES} files")
        names.append(os.path.normpath(name).lstrip("/"))


def _unpack(data: bytes) -> tuple[Iterator[bytes], Callable[[], int]]:
    """Unpacked pieces of a compressed segment, and how many bytes of `data` are left once they are read."""
    if data[:2] == b"\x1f\x8b":
        return _stream(zlib.decompressobj(zlib.MAX_WBITS | 16), data)
    if data[:6] == b"\xfd7zXZ\0" or data[:3] == b"\x5d\0\0":
        return _stream(lzma.LZMADecompressor(memlimit=256 << 20), data)
    if data[:3] == b"BZh":
        return _stream(bz2.BZ2Decompressor(), data)
    if data[:4] == b"\x28\xb5\x2f\xfd":
        return iter([_zstd(data)]), lambda: 0
    if data[:4] in (b"\x02\x21\x4c\x18", b"\x04\x22\x4d\x18"):
        return iter([_lz4(data)]), lambda: 0
    raise SourceInvalid(f"initramfs starts with {data[:6].hex()}: not a cpio archive nor a compression known here")


def _lz4(data: bytes) -> bytes:
    """The standard library has no lz4. What a damaged stream gives is cut off, which the archive reader notices."""
    if shutil.which("lz4") is None:
        raise ToolMissing("reading an initramfs: it is compressed with lz4, which is not installed", "apt install lz4")
    command = f"lz4 -dc 2>/dev/null | head -c {MAX_WHOLE}"
    return run(["sh", "-c", command], input=data, timeout=300, act="reading an initramfs").stdout


def _zstd(data: bytes) -> bytes:
    try:
        return zstd.decompress_stream(data, MAX_WHOLE)
    except ChunkInvalid as error:
        raise SourceInvalid(f"initramfs: compressed segment is damaged: {error.message}") from None


def _stream(decompressor: object, data: bytes) -> tuple[Iterator[bytes], Callable[[], int]]:
    left = [0]
    stream: _Stream = decompressor  # type: ignore[assignment]

    def pieces() -> Iterator[bytes]:
        waiting = data
        total = 0
        try:
            while not stream.eof:
                piece = stream.decompress(waiting, PIECE)
                # zlib hands back what it did not take; bz2 and lzma keep it and want an empty call.
                waiting = getattr(stream, "unconsumed_tail", b"")
                total += len(piece)
                if total > MAX_UNPACKED:
                    raise SourceInvalid(f"initramfs unpacks to more than {MAX_UNPACKED} bytes")
                if not piece and not waiting and not stream.eof:
                    raise SourceInvalid("initramfs ends inside a compressed segment")
                yield piece
        except (zlib.error, lzma.LZMAError, OSError, EOFError, ValueError) as error:
            raise SourceInvalid(f"initramfs: compressed segment is damaged: {error}") from None
        left[0] = len(stream.unused_data)

    return pieces(), lambda: left[0]
