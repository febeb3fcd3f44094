"""Stretches of bytes: sorted, disjoint (start, length) pairs, and how the maps are made of them."""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator, Sequence

from images.errors import ImageError

MAX_EXTENTS = 1 << 20  # stretches of one map; some 130 MB of memory

Extent = tuple[int, int]  # start, length in bytes
Read = Callable[[int, int], bytes]  # offset, length -> bytes of the image, fewer at its end


class MapUnreadable(ImageError):
    """The filesystem's own map of used blocks cannot be read; all of the image must then count as used."""


def exact(read: Read, offset: int, length: int, size: int, what: str) -> bytes:
    """So many bytes of an image of `size` bytes. Raises MapUnreadable, naming `what`, if they are not inside."""
    data = read(offset, length) if 0 <= offset <= size - length else b""
    if len(data) != length:
        raise MapUnreadable(f"{what}: {length} bytes at {offset} lie outside the image of {size} bytes")
    return data


def overlap(extents: Sequence[Extent], start: int, length: int) -> list[Extent]:
    """The parts of sorted, disjoint `extents` inside [start, start + length), absolute, in bytes."""
    end, found = start + length, []
    at = max(0, bisect_right(extents, (start, 1 << 63)) - 1)
    for index in range(at, len(extents)):
        begin, count = extents[index]
        if begin >= end:
            break
        low, high = max(begin, start), min(begin + count, end)
        if low < high:
            found.append((low, high - low))
    return found


def gaps(extents: Sequence[Extent], start: int, length: int) -> list[Extent]:
    """What `overlap` leaves out: the free parts of [start, start + length), absolute, in bytes."""
    found, at = [], start
    for begin, count in overlap(extents, start, length):
        if begin > at:
            found.append((at, begin - at))
        at = begin + count
    if at < start + length:
        found.append((at, start + length - at))
    return found


def merged(stretches: Iterable[Extent]) -> list[Extent]:
    """Stretches sorted by their start, joined where they touch or overlap."""
    found: list[Extent] = []
    for begin, length in stretches:
        if found and begin <= found[-1][0] + found[-1][1]:
            last = found[-1]
            found[-1] = (last[0], max(last[1], begin + length - last[0]))
        else:
            found.append((begin, length))
    return found


def set_bits(bitmap: bytes, start: int, count: int) -> list[Extent]:
    """Stretches of set bits among the first `count` of a bitmap (least significant first), numbered from `start`."""
    # A reversed binary literal turns a search over bits into a search over text: 50 us for 4 KiB instead of 10 ms.
    text = bin(int.from_bytes(bitmap, "little") | 1 << len(bitmap) * 8)[:2:-1][:count]
    return [(start + match.start(), match.end() - match.start()) for match in re.finditer("1+", text)]


def pieces(length: int, step: int) -> Iterator[Extent]:
    """[0, length) cut into stretches of at most `step`."""
    for at in range(0, length, step):
        yield at, min(step, length - at)


def collect(stretches: Iterable[Extent], what: str) -> list[Extent]:
    """Sorted stretches as a list, joined where they touch. Raises MapUnreadable beyond MAX_EXTENTS of them."""
    found: list[Extent] = []
    for start, length in stretches:
        if found and found[-1][0] + found[-1][1] == start:
            found[-1] = (found[-1][0], found[-1][1] + length)
        elif len(found) >= MAX_EXTENTS:
            raise MapUnreadable(f"{what}: more than {MAX_EXTENTS} stretches")
        else:
            found.append((start, length))
    return found
