"""Used blocks of ext2, ext3 and ext4: the block bitmaps.

Layout: kernel Documentation/filesystems/ext4/ (super.rst, group_descr.rst, bitmaps.rst), feature bits fs/ext4/ext4.h.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass

from images.maps.extents import Extent, MapUnreadable, Read, collect, exact, merged, overlap, set_bits

MAX_GROUPS = 1 << 20  # block groups; 128 TiB at the usual 128 MiB a group, 64 MB of descriptors
EXT4_MAGIC = 0xEF53
RECOVER, JOURNAL_DEV, META_BG, SIXTYFOUR_BIT = 0x4, 0x8, 0x10, 0x80
INCOMPAT_KNOWN = (
    0x2 | 0x40 | SIXTYFOUR_BIT | 0x100 | 0x200 | 0x400 | 0x1000 | 0x2000 | 0x4000 | 0x8000 | 0x10000 | 0x20000
)
SPARSE_SUPER, GDT_CSUM, BIGALLOC, METADATA_CSUM = 0x1, 0x10, 0x200, 0x400
RO_COMPAT_KNOWN = 0x1FFFF & ~BIGALLOC
RESIZE_INODE, SPARSE_SUPER2 = 0x10, 0x200
BLOCK_UNINIT = 0x2
VALID, ERRORS = 0x1, 0x2


@dataclass(frozen=True, slots=True)
class _Super:
    block: int  # bytes of a block
    blocks: int
    first: int  # first data block: 1 where a block is 1 KiB
    per_group: int
    groups: int
    descriptor: int  # bytes of a group descriptor
    table: int  # blocks of one inode table
    reserved: int  # blocks kept for a growing descriptor table
    backups: tuple[int, int] | None
    sparse: bool
    lazy: bool  # BLOCK_UNINIT has a meaning


def ext4_used(read: Read, size: int) -> list[Extent]:
    """Used stretches of an ext2/3/4 filesystem in bytes, sorted; `read(offset, length)` gives bytes of the image and
    `size` is the image's. Raises MapUnreadable for what it does not understand (bigalloc, meta_bg, an unknown feature,
    a journal that waits for recovery, an error that waits for a check) and for anything inconsistent; nothing else."""
    sb = _super(exact(read, 1024, 1024, size, "ext4"), size)
    gdt = exact(read, (sb.first + 1) * sb.block, sb.groups * sb.descriptor, size, "ext4")
    return collect(_used(read, size, sb, [_places(gdt, group, sb) for group in range(sb.groups)]), "ext4")


def _used(read: Read, size: int, sb: _Super, places: list[tuple[int, int, int, int, int]]) -> Iterator[Extent]:
    meta = merged(
        sorted(
            stretch
            for bitmap, inodes, table, _, _ in places
            for stretch in ((bitmap, 1), (inodes, 1), (table, sb.table))
        )
    )
    if sb.first:
        yield 0, sb.first * sb.block
    for group, (bitmap, _, _, flags, free) in enumerate(places):
        start = sb.first + group * sb.per_group
        count = min(sb.per_group, sb.blocks - start)
        if flags & BLOCK_UNINIT and sb.lazy:
            used = _uninitialised(group, start, count, meta, sb)
        else:
            used = set_bits(exact(read, bitmap * sb.block, sb.block, size, "ext4"), start, count)
            taken = sum(length for _, length in used)
            if count - taken != free:
                raise MapUnreadable(
                    f"ext4 group {group} has {count - taken} free blocks in its bitmap, {free} by its descriptor"
                )
        for begin, length in used:
            yield begin * sb.block, length * sb.block


def _super(sb: bytes, size: int) -> _Super:
    if struct.unpack_from("<H", sb, 56)[0] != EXT4_MAGIC:
        raise MapUnreadable("no ext4 superblock")
    # s_state: a filesystem without a journal is not valid while it is mounted; one with errors waits for a check.
    if struct.unpack_from("<H", sb, 58)[0] & (VALID | ERRORS) != VALID:
        raise MapUnreadable("ext4: it was not unmounted, or has errors that wait for e2fsck")
    blocks, first, log_block = struct.unpack_from("<I", sb, 4)[0], *struct.unpack_from("<II", sb, 20)
    per_group, inodes_per_group = struct.unpack_from("<I", sb, 32)[0], struct.unpack_from("<I", sb, 40)[0]
    compat, incompat, ro_compat = struct.unpack_from("<III", sb, 92)
    if incompat & ~INCOMPAT_KNOWN or ro_compat & ~RO_COMPAT_KNOWN:
        raise MapUnreadable(
            f"ext4 features {incompat & ~INCOMPAT_KNOWN:#x}/{ro_compat & ~RO_COMPAT_KNOWN:#x} are not read here"
        )
    inode = struct.unpack_from("<H", sb, 88)[0] if struct.unpack_from("<I", sb, 76)[0] else 128
    descriptor = 32
    if incompat & SIXTYFOUR_BIT:
        descriptor = struct.unpack_from("<H", sb, 254)[0]
        blocks |= struct.unpack_from("<I", sb, 336)[0] << 32
    if log_block > 6 or descriptor not in (32, 64) or inode not in (128, 256, 512, 1024, 2048, 4096):
        raise MapUnreadable(
            f"ext4 superblock has block size 1024 << {log_block}, descriptors of {descriptor}, inodes of {inode}"
        )
    block = 1024 << log_block
    if first != (1 if block == 1024 else 0) or not first < blocks <= size // block:
        raise MapUnreadable(f"ext4 superblock says {blocks} blocks from {first}, the image holds {size // block}")
    if not 256 <= per_group <= 8 * block or not 0 < inodes_per_group <= 8 * block:
        raise MapUnreadable(f"ext4 superblock says {per_group} blocks and {inodes_per_group} inodes a group")
    groups = -(-(blocks - first) // per_group)
    if groups > MAX_GROUPS:
        raise MapUnreadable(f"ext4 superblock says {groups} groups, more than {MAX_GROUPS}")
    return _Super(
        block=block,
        blocks=blocks,
        first=first,
        per_group=per_group,
        groups=groups,
        descriptor=descriptor,
        table=-(-inodes_per_group * inode // block),
        reserved=struct.unpack_from("<H", sb, 206)[0] if compat & RESIZE_INODE else 0,
        backups=struct.unpack_from("<II", sb, 588) if compat & SPARSE_SUPER2 else None,
        sparse=bool(ro_compat & SPARSE_SUPER),
        lazy=bool(ro_compat & (GDT_CSUM | METADATA_CSUM)),
    )


def _places(gdt: bytes, group: int, sb: _Super) -> tuple[int, int, int, int, int]:
    """Block numbers of block bitmap, inode bitmap and inode table, the flags and the free count of one group."""
    at = group * sb.descriptor
    bitmap, inodes, table, free = struct.unpack_from("<IIIH", gdt, at)
    flags = struct.unpack_from("<H", gdt, at + 18)[0]
    if sb.descriptor == 64:
        high = struct.unpack_from("<IIIH", gdt, at + 32)
        bitmap, inodes, table = bitmap | high[0] << 32, inodes | high[1] << 32, table | high[2] << 32
        free |= high[3] << 16
    if max(bitmap + 1, inodes + 1, table + sb.table) > sb.blocks or min(bitmap, inodes, table) <= sb.first:
        raise MapUnreadable(f"ext4 group {group} keeps its maps outside the filesystem")
    return bitmap, inodes, table, flags, free


def _uninitialised(group: int, start: int, count: int, meta: list[Extent], sb: _Super) -> list[Extent]:
    """A group whose bitmap was never written: only filesystem metadata in it is used (ext4_init_block_bitmap)."""
    used = overlap(meta, start, count)
    if _has_super(group, sb):
        table = -(-sb.groups * sb.descriptor // sb.block)
        used.append((start, min(count, 1 + table + sb.reserved)))
    return merged(sorted(used))


def _has_super(group: int, sb: _Super) -> bool:
    """Whether a group starts with a copy of the superblock (ext4_bg_has_super)."""
    if group == 0:
        return True
    if sb.backups is not None:
        return group in sb.backups
    if group == 1 or not sb.sparse:
        return True
    for base in (3, 5, 7):
        power = base
        while power < group:
            power *= base
        if power == group:
            return True
    return False
