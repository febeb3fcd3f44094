"""Where the data of a sparse file lies: the four ways GNU tar writes it ("Storing Sparse Files" in its manual).

A map is an array of numbers, (offset, length) one after another; it is checked before anything is written by it.
"""

from __future__ import annotations

import re
import struct
from array import array
from collections.abc import Callable, Iterator

from images.errors import SourceInvalid

MAX_SEGMENTS = 1_000_000  # 16 MB; a file of 4 GiB with a hole after every second block of it
# The largest a file of ext4 with blocks of 4 KiB can be (Documentation/filesystems/ext4: 2^32 blocks).
MAX_SIZE = 1 << 44
OLD = struct.Struct("12s12s")  # offset, length; 4 in the header from byte 386, 21 in every block that continues it


def pairs(segments: array[int]) -> Iterator[tuple[int, int]]:
    """(offset, length) of each segment."""
    return zip(segments[::2], segments[1::2], strict=True)


def old_map(header: bytes, more: Callable[[], bytes], shown: str) -> tuple[int, array[int]]:
    """Size and map of a file in GNU's old format; `more` gives the next block. Raises SourceInvalid."""
    segments = array("Q")
    _old(header[386:482], segments, shown)
    extended, size = header[482] != 0, _octal(header[483:495], shown)
    while extended:
        block = more()
        _old(block[:504], segments, shown)
        extended = block[504] != 0
    return size, segments


def new_map(more: Callable[[], bytes], shown: str) -> array[int]:
    """The map that stands before the data in version 1.0: lines of decimal numbers, the first how many segments there
    are, filled up to a block. `more` gives the next block. Raises SourceInvalid."""
    segments, wanted, text = array("Q"), -1, b""
    while True:
        if len(text) > 20:  # no line is that long: without this, a file without any would be read to its end
            _decimal(text, shown)
        *lines, text = (text + more()).split(b"\n")
        for line in lines:
            number = _decimal(line, shown)
            if wanted < 0:
                wanted = number
                if wanted > MAX_SEGMENTS:
                    raise SourceInvalid(f"archive member {shown} has {wanted} holes, more than {MAX_SEGMENTS}")
            else:
                segments.append(number)
            if len(segments) == 2 * wanted:
                return segments


def listed_map(text: bytes | None, segments: array[int], shown: str) -> array[int]:
    """The map of versions 0.0 (as pairs of records, read already) and 0.1 (one record). Raises SourceInvalid."""
    if text is None:
        return segments
    listed = array("Q")
    for match in re.finditer(rb"[^,]+", text):
        listed.append(_decimal(match[0], shown))
    return listed


def check(segments: array[int], size: int, stored: int, shown: str) -> None:
    """Raise SourceInvalid unless a map is in order, lies inside a file of `size` bytes and has `stored` bytes."""
    if size > MAX_SIZE:
        raise SourceInvalid(f"archive member {shown} says it has {size} bytes, more than a file can have")
    if len(segments) % 2 or len(segments) > 2 * MAX_SEGMENTS:
        raise SourceInvalid(f"archive member {shown} has a map of holes with {len(segments)} numbers")
    end = total = 0
    for at, length in pairs(segments):
        # Where the next one begins before this one ends, or beyond the file, something would be written twice.
        if at < end or at + length > size:
            raise SourceInvalid(f"archive member {shown} has a map of holes that contradicts itself at byte {at}")
        end, total = at + length, total + length
    if total != stored:
        raise SourceInvalid(f"archive member {shown} has {stored} bytes where its map of holes has {total}")


def _old(raw: bytes, segments: array[int], shown: str) -> None:
    for at, length in OLD.iter_unpack(raw):
        if not at.strip(b"\0 "):
            return
        segments.append(_octal(at, shown))
        segments.append(_octal(length, shown))
    if len(segments) > 2 * MAX_SEGMENTS:
        raise SourceInvalid(f"archive member {shown} has more than {MAX_SEGMENTS} holes")


def _octal(raw: bytes, shown: str) -> int:
    if raw[0] == 0x80 and not raw[1] | raw[2] | raw[3]:
        return int.from_bytes(raw[4:], "big")
    text = raw.strip(b"\0 ")
    if not re.fullmatch(rb"[0-7]{1,12}", text):
        raise SourceInvalid(f"archive member {shown} has {text!r} for a number in its map of holes")
    return int(text, 8)


def _decimal(text: bytes, shown: str) -> int:
    if not re.fullmatch(rb"[0-9]{1,19}", text) or int(text) >= 1 << 63:
        raise SourceInvalid(f"archive member {shown} has {text[:80]!r} for a number in its map of holes")
    return int(text)
