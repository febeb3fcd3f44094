"""Used blocks of XFS: what the free space trees of its allocation groups leave out.

Layout: fs/xfs/libxfs/xfs_format.h and xfs_log_format.h, and "XFS Filesystem Disk Structures" (xfs-documentation). All
numbers are big endian. The trees are true only if the log has nothing to say: it must end in the record of an unmount,
as the kernel decides it (fs/xfs/xfs_log_recover.c, xlog_find_tail and xlog_check_unmount_rec).
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass

from images.maps.extents import Extent, MapUnreadable, Read, collect, exact, gaps, overlap

MAX_GROUPS = 1 << 16  # allocation groups; 64 TiB at 1 GiB a group, mkfs.xfs makes fewer and larger ones
MAX_LEVELS = 9  # of a tree: XFS_BTREE_MAXLEVELS
MAX_RECORD = (256 << 10) // 512 + 8  # basic blocks of a log record: XLOG_MAX_RECORD_BSIZE and its headers
MAX_LOG = 1 << 31  # bytes: XFS_MAX_LOG_BYTES
BASIC = 512  # bytes: BBSIZE
LOG_MAGIC, LOG_HEADER_BYTES, UNMOUNT = 0xFEEDBABE, 32 << 10, 0x20
# ftype, sparse inodes, meta_uuid, bigtime, nrext64, exchange-range, parent, metadir; not needs-repair, zoned and later
INCOMPAT_KNOWN = 0x1 | 0x2 | 0x4 | 0x8 | 0x20 | 0x40 | 0x80 | 0x100
RO_COMPAT_KNOWN = 0x1 | 0x2 | 0x4 | 0x8  # finobt, rmapbt, reflink, inobtcount
META_UUID = 0x4


@dataclass(frozen=True, slots=True)
class _Super:
    block: int  # bytes of a block
    sector: int
    blocks: int
    group: int  # blocks of an allocation group
    groups: int
    shift: int  # bits of a block number that count inside a group
    log: Extent  # bytes
    version: int
    uuid: bytes  # of metadata


def xfs_used(read: Read, size: int) -> list[Extent]:
    """Used stretches of an XFS filesystem in bytes, sorted. Raises MapUnreadable for one whose log waits for recovery
    or lies elsewhere, for features that are not known, and for anything inconsistent; nothing else."""
    sb = _super(exact(read, 0, 512, size, "XFS"), size)
    free = collect(_free(read, size, sb), "XFS")
    if overlap(free, *sb.log):
        raise MapUnreadable("XFS: its log lies in free space")
    _unmounted(read, size, sb)
    return gaps(free, 0, sb.blocks * sb.block)


def _super(sb: bytes, size: int) -> _Super:
    magic, block, blocks, realtime = struct.unpack_from(">4sIQQ", sb)
    group, groups = struct.unpack_from(">II", sb, 84)
    log_blocks, version, sector = struct.unpack_from(">IHH", sb, 96)
    log_start, shift, unfinished = struct.unpack_from(">Q", sb, 48)[0], sb[124], sb[126]
    if magic != b"XFSB" or version & 0xF not in (4, 5) or unfinished:
        raise MapUnreadable("XFS: no finished superblock of version 4 or 5")
    if not 512 <= block <= 65536 or block & (block - 1) or not 512 <= sector <= 32768 or sector & (sector - 1):
        raise MapUnreadable(f"XFS: blocks of {block} bytes, sectors of {sector}")
    if version & 0xF == 5:
        ro_compat, incompat = struct.unpack_from(">II", sb, 212)
        if incompat & ~INCOMPAT_KNOWN or ro_compat & ~RO_COMPAT_KNOWN:
            told = f"{incompat & ~INCOMPAT_KNOWN:#x}/{ro_compat & ~RO_COMPAT_KNOWN:#x}"
            raise MapUnreadable(f"XFS: features {told} are not read here")
    else:
        incompat = 0
    if not 0 < groups <= MAX_GROUPS or not 0 < blocks <= size // block:
        raise MapUnreadable(f"XFS: {blocks} blocks in {groups} groups, the image holds {size // block}")
    if (
        not 4 * sector <= group * block
        or shift > 31
        or group > 1 << shift
        or not (groups - 1) * group < blocks <= groups * group
    ):
        raise MapUnreadable(f"XFS: {groups} groups of {group} blocks do not make {blocks}")
    if realtime or not log_start:
        raise MapUnreadable("XFS: a part of it lies on another device")
    at = ((log_start >> shift) * group + (log_start & (1 << shift) - 1)) * block
    length = log_blocks * block
    if not 0 < length <= MAX_LOG or at + length > blocks * block:
        raise MapUnreadable(f"XFS: a log of {length} bytes at {at}")
    uuid = sb[248:264] if incompat & META_UUID else sb[32:48]
    return _Super(block, sector, blocks, group, groups, shift, (at, length), version & 0xF, uuid)


# --- free space


def _free(read: Read, size: int, sb: _Super) -> Iterator[Extent]:
    """Free stretches in bytes, in order."""
    for number in range(sb.groups):
        start = number * sb.group
        count = min(sb.group, sb.blocks - start)
        agf = exact(read, start * sb.block + sb.sector, 128, size, "XFS")
        magic, version, mine, length, root = struct.unpack_from(">4sIIII", agf)
        levels, free = struct.unpack_from(">I", agf, 28)[0], struct.unpack_from(">I", agf, 52)[0]
        if (magic, version, mine, length) != (b"XAGF", 1, number, count) or not 1 <= levels <= MAX_LEVELS:
            raise MapUnreadable(f"XFS: group {number} has no header that fits it")
        total = 0
        for begin, blocks in _records(read, size, sb, number, count, root, levels):
            total += blocks
            yield (start + begin) * sb.block, blocks * sb.block
        if total != free:
            raise MapUnreadable(f"XFS: group {number} has {total} free blocks in its tree, {free} by its header")


def _records(read: Read, size: int, sb: _Super, group: int, count: int, root: int, levels: int) -> Iterator[Extent]:
    """The records of the tree of free space by block number, in order: down its left side, then along the leaves."""
    header = 16 if sb.version == 4 else 56
    at = root
    for level in range(levels - 1, 0, -1):
        node, held, _ = _node(read, size, sb, group, count, at, level)
        most = (sb.block - header) // 12  # a key of 8 bytes and a pointer of 4 each, all keys first
        if not 0 < held <= most:
            raise MapUnreadable(f"XFS: group {group} has {held} entries in a node of its free space tree")
        at = struct.unpack_from(">I", node, header + most * 8)[0]
    end = 0
    for _ in range(count):
        leaf, held, right = _node(read, size, sb, group, count, at, 0)
        if held > (sb.block - header) // 8:
            raise MapUnreadable(f"XFS: group {group} has {held} records in a leaf of its free space tree")
        for begin, blocks in struct.iter_unpack(">II", leaf[header : header + held * 8]):
            # A record right behind another one would have been joined with it.
            if not blocks or not end < begin or begin + blocks > count:
                raise MapUnreadable(f"XFS: group {group} has free space at block {begin}, behind or inside other")
            yield begin, blocks
            end = begin + blocks
        if right == 0xFFFFFFFF:
            return
        at = right
    raise MapUnreadable(f"XFS: the free space tree of group {group} has no end")


def _node(read: Read, size: int, sb: _Super, group: int, count: int, at: int, level: int) -> tuple[bytes, int, int]:
    """A block of a tree, how many entries it holds and its right neighbour."""
    place = (group * sb.group + at) * sb.block
    block = exact(read, place, sb.block, size, "XFS") if 0 < at < count else b""
    wanted = b"ABTB" if sb.version == 4 else b"AB3B"
    if block[:4] != wanted or struct.unpack_from(">H", block, 4)[0] != level:
        raise MapUnreadable(f"XFS: block {at} of group {group} is no part of the free space tree")
    if sb.version == 5:
        basic, owner = *struct.unpack_from(">Q", block, 16), *struct.unpack_from(">I", block, 48)
        if (basic * BASIC, owner) != (place, group) or block[32:48] != sb.uuid:
            raise MapUnreadable(f"XFS: block {at} of group {group} belongs elsewhere")
    held, _, right = struct.unpack_from(">HII", block, 6)
    return block, held, right


# --- the log


def _unmounted(read: Read, size: int, sb: _Super) -> None:
    """Raise MapUnreadable unless the last thing in the log is an unmount."""
    start, length = sb.log
    total = length // BASIC

    def cycle(block: int) -> int:
        head = exact(read, start + block * BASIC, 8, size, "XFS")
        first, second = struct.unpack(">II", head)
        # The first word of every block of the log is the number of the turn it was written in, but for headers.
        return int(second if first == LOG_MAGIC else first)

    first, last = cycle(0), cycle(total - 1)
    if first == 0:
        return  # never used: xlog_find_zeroed
    head = 0
    if first != last:  # the end is where the numbers change
        low, high = 0, total - 1
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (middle, high) if cycle(middle) != last else (low, middle)
        head = high
    before = min(MAX_RECORD, total)
    window = b"".join(
        exact(read, start + at * BASIC, count * BASIC, size, "XFS") for at, count in _turn(head - before, before, total)
    )
    at = window.rfind(struct.pack(">I", LOG_MAGIC))
    while at % BASIC and at >= 0:
        at = window.rfind(struct.pack(">I", LOG_MAGIC), 0, at)
    record = window[at:] if at >= 0 else b""
    if len(record) >= BASIC:
        version, data, operations = *struct.unpack_from(">II", record, 8), *struct.unpack_from(">I", record, 40)
        held = struct.unpack_from(">I", record, 320)[0] if version & 2 else 0
        headers = max(1, -(-held // LOG_HEADER_BYTES)) * BASIC
        ends = headers + -(-data // BASIC) * BASIC == len(record)
        if ends and operations == 1 and len(record) > headers and record[headers + 9] & UNMOUNT:
            return
    raise MapUnreadable("XFS: its log waits for recovery")


def _turn(first: int, count: int, total: int) -> list[Extent]:
    """`count` blocks of a ring of `total` from `first` on, which may be before its beginning."""
    if first >= 0:
        return [(first, count)]
    return [(total + first, -first), (0, count + first)] if count + first else [(total + first, -first)]
