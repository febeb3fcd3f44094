"""Used blocks of FAT12, FAT16 and FAT32: every cluster whose entry in the table is not zero.

Layout: Microsoft Extensible Firmware Initiative FAT32 File System Specification 1.03 ("FAT specification" below);
which width a table has as the kernel decides it (fs/fat/inode.c), since mkfs.fat makes FAT32 of any size.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator
from dataclasses import dataclass

from images.maps.extents import Extent, MapUnreadable, Read, collect, exact, pieces

MAX_FAT12, MAX_FAT16, MAX_FAT32 = 0xFF4, 0xFFF4, 0x0FFFFFF6  # clusters; fs/fat/fat.h
PIECE = 1 << 20  # bytes of a table read at once
# One match for each stretch of free or of used entries. Both halves take whole entries, so matches stay aligned. The
# highest four bits of an entry of FAT32 mean nothing (FAT specification, "FAT Data Structure").
_TOP = rb"[\x00\x10\x20\x30\x40\x50\x60\x70\x80\x90\xa0\xb0\xc0\xd0\xe0\xf0]"
_STRETCHES = {
    16: re.compile(rb"(?P<free>(?:\0\0)+)|(?:(?!\0\0)..)+", re.DOTALL),
    32: re.compile(rb"(?P<free>(?:\0\0\0%b)+)|(?:(?!\0\0\0%b)....)+" % (_TOP, _TOP), re.DOTALL),
}


@dataclass(frozen=True, slots=True)
class _Boot:
    bits: int  # of a table's entry
    cluster: int  # bytes
    clusters: int
    data: int  # first byte of the first cluster
    tables: tuple[int, ...]  # first byte of each table that counts
    table: int  # bytes of one that are entries


def fat_used(read: Read, size: int) -> list[Extent]:
    """Used stretches of a FAT filesystem in bytes, sorted. Raises MapUnreadable for one that was not unmounted, whose
    two tables differ, or that contradicts itself; nothing else."""
    boot = _boot(exact(read, 0, 512, size, "FAT"), size)
    stretches = _short(read, size, boot) if boot.bits == 12 else _long(read, size, boot)
    used = ((boot.data + (first - 2) * boot.cluster, count * boot.cluster) for first, count in stretches)
    return collect(_after((0, boot.data), used), "FAT")


def _boot(sector: bytes, size: int) -> _Boot:
    each, per_cluster, reserved, tables, roots, small = struct.unpack_from("<HBHBHH", sector, 11)
    short, large, long = *struct.unpack_from("<H", sector, 22), *struct.unpack_from("<II", sector, 32)
    if sector[510:512] != b"\x55\xaa" or each not in (512, 1024, 2048, 4096):
        raise MapUnreadable(f"FAT: sectors of {each} bytes, or no boot sector")
    if not per_cluster or per_cluster & (per_cluster - 1) or not reserved or tables not in (1, 2):
        raise MapUnreadable(f"FAT: {per_cluster} sectors a cluster, {reserved} reserved, {tables} tables")
    sectors, length = small or large, short or long
    first = reserved + tables * length + -(-roots * 32 // each)
    clusters = (sectors - first) // per_cluster
    if clusters <= 0 or sectors * each > size:
        raise MapUnreadable(f"FAT: {sectors} sectors with {first} before the data, the image holds {size // each}")
    bits = 32 if not short else 16 if clusters > MAX_FAT12 else 12
    most = {12: MAX_FAT12, 16: MAX_FAT16, 32: MAX_FAT32}[bits]
    wanted = -(-(clusters + 2) * bits // 8)
    if clusters > most or wanted > length * each:
        raise MapUnreadable(f"FAT: {clusters} clusters do not fit in a table of {length * each} bytes")
    # fs/fat/fat.h: FAT_STATE_DIRTY, in a byte that other systems call reserved
    if sector[65 if bits == 32 else 37] & 1:
        raise MapUnreadable("FAT: it was not unmounted")
    places = [(reserved + n * length) * each for n in range(tables)]
    flags = struct.unpack_from("<H", sector, 40)[0] if bits == 32 else 0
    if flags & 0x80:  # one table counts, and the other is left behind
        if flags & 0xF >= tables:
            raise MapUnreadable(f"FAT: table {flags & 0xF} of {tables} is said to be the one that counts")
        places = [places[flags & 0xF]]
    return _Boot(bits, per_cluster * each, clusters, first * each, tuple(places), wanted)


def _long(read: Read, size: int, boot: _Boot) -> Iterator[Extent]:
    """Stretches of used clusters of FAT16 and FAT32 by number."""
    width = boot.bits // 8
    for at, length in pieces(boot.table, PIECE):
        rows = _same(read, size, boot, at, length)
        if at == 0:
            second = int.from_bytes(rows[width : 2 * width], "little")
            # FAT specification, "ClnShutBitMask": the second entry says whether the filesystem was unmounted
            if not second & (1 << 15 if boot.bits == 16 else 1 << 27):
                raise MapUnreadable("FAT: it was not unmounted")
            rows = bytes(2 * width) + rows[2 * width :]
        for match in _STRETCHES[boot.bits].finditer(rows):
            if match["free"] is None:
                yield (at + match.start()) // width, (match.end() - match.start()) // width


def _short(read: Read, size: int, boot: _Boot) -> Iterator[Extent]:
    """Stretches of used clusters of FAT12 by number: two entries in three bytes."""
    rows = _same(read, size, boot, 0, boot.table) + b"\0"
    for number in range(2, boot.clusters + 2):
        pair = rows[number * 3 // 2] | rows[number * 3 // 2 + 1] << 8
        if pair >> 4 if number & 1 else pair & 0xFFF:
            yield number, 1


def _same(read: Read, size: int, boot: _Boot, at: int, length: int) -> bytes:
    rows = exact(read, boot.tables[0] + at, length, size, "FAT")
    if any(exact(read, table + at, length, size, "FAT") != rows for table in boot.tables[1:]):
        raise MapUnreadable("FAT: its two tables differ")
    return rows


def _after(first: Extent, more: Iterator[Extent]) -> Iterator[Extent]:
    yield first
    yield from more
