"""Disks of which only the bytes that a reader asked for are kept: a corpus of filesystems in kilobytes.

A file is the zlib of: size of the disk u64, then per stretch offset u64, length u32 and its bytes, little endian. All
other bytes read as zeros.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path

Stretch = tuple[int, bytes]
Read = Callable[[int, int], bytes]
MAX_READ = 64 << 20  # bytes; a hostile length is refused before it is read
MAX_READS = 200_000


def load(path: Path) -> tuple[int, list[Stretch]]:
    """Size and stretches of a corpus file."""
    data = zlib.decompress(path.read_bytes())
    (size,), at, found = struct.unpack_from("<Q", data), 8, []
    while at < len(data):
        offset, length = struct.unpack_from("<QI", data, at)
        found.append((offset, data[at + 12 : at + 12 + length]))
        at += 12 + length
    return size, found


def save(path: Path, size: int, stretches: Sequence[Stretch]) -> None:
    """Write a corpus file."""
    body = b"".join(struct.pack("<QI", at, len(data)) + data for at, data in stretches)
    path.write_bytes(zlib.compress(struct.pack("<Q", size) + body, 9))


def record(read: Read, size: int, reader: Callable[[Read, int], object]) -> list[Stretch]:
    """What `reader` reads of a disk, for a new corpus file."""
    seen: dict[int, bytes] = {}

    def listen(offset: int, length: int) -> bytes:
        data = read(offset, length)
        if len(data) > len(seen.get(offset, b"")):
            seen[offset] = data
        return data

    reader(listen, size)
    return [(at, data) for at, data in sorted(seen.items()) if data.strip(b"\0")]


def disk(size: int, stretches: Sequence[Stretch]) -> Read:
    """The disk, for a reader that has to behave: it asks for possible lengths only, and not for ever."""
    reads = 0

    def read(offset: int, length: int) -> bytes:
        nonlocal reads
        reads += 1
        assert offset >= 0 and 0 <= length <= MAX_READ and reads <= MAX_READS
        out = bytearray(max(0, min(length, size - offset)))
        for at, data in stretches:
            begin, end = max(at, offset), min(at + len(data), offset + len(out))
            if begin < end:
                out[begin - offset : end - offset] = data[begin - at : end - at]
        return bytes(out)

    return read
