"""Which bytes of a filesystem image matter: used by the filesystem, held as data, or free.

Three kinds follow from two maps. The filesystem's own map says what is used; the sparse file says what was ever
written. Used and written is data; used and a hole must still read as zero on a dirty disk (measured: a 64 MB file of
zeros read 0xFF after a restore that skipped holes, while e2fsck stayed clean); the rest is free.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from dataclasses import dataclass

from images.maps.ext4 import ext4_used
from images.maps.extents import Extent, MapUnreadable, Read, gaps, overlap
from images.maps.fat import fat_used
from images.maps.ntfs import ntfs_used
from images.maps.xfs import xfs_used

__all__ = ["Extent", "MapUnreadable", "UsedMap", "data_extents", "gaps", "overlap", "used_map"]

MAX_DATA = 1 << 22  # stretches of a sparse file; a file with more holes is read as one stretch of data
READERS: dict[str, Callable[[Read, int], list[Extent]]] = {
    "ext2": ext4_used,
    "ext3": ext4_used,
    "ext4": ext4_used,
    "vfat": fat_used,
    "xfs": xfs_used,
    "ntfs": ntfs_used,
}


@dataclass(frozen=True, slots=True)
class UsedMap:
    """Used stretches of an image in bytes, sorted and apart. `known` is False where all of it counts as used because
    the filesystem could not be read; `why` then says what stood in the way."""

    extents: tuple[Extent, ...]
    known: bool = True
    why: str = ""

    @property
    def used(self) -> int:
        """Bytes the filesystem uses."""
        return sum(length for _, length in self.extents)


def used_map(fd: int, size: int, fs: str, offset: int = 0) -> UsedMap:
    """The used map of the filesystem `fs` in the `size` bytes from `offset` on of an open file or disk; its stretches
    count from there. What has no reader (btrfs: its map is a tree over several trees; swap, a whole disk, whatever is
    not known) and what a reader does not trust give one stretch over everything: always right, only slower."""
    reader = READERS.get(fs)
    if reader is None:
        return UsedMap(((0, size),), known=False, why=f"{fs} has no map reader")
    try:
        return UsedMap(tuple(reader(lambda at, length: os.pread(fd, length, offset + at), size)))
    except MapUnreadable as error:
        return UsedMap(((0, size),), known=False, why=error.message)


def data_extents(fd: int, size: int) -> list[Extent]:
    """Stretches of the file that are not holes (SEEK_DATA), in bytes, clipped to `size`. A filesystem without holes,
    and a disk, give one stretch. The file offset of `fd` is moved."""
    extents: list[Extent] = []
    at = 0
    while at < size:
        if len(extents) >= MAX_DATA:
            return [*extents, (at, size - at)]
        try:
            start = os.lseek(fd, at, os.SEEK_DATA)
        except OSError as error:
            if error.errno == errno.ENXIO:  # no data behind `at`
                break
            return [*extents, (at, size - at)]  # EINVAL: a block device has no holes to tell of
        if start >= size:
            break
        at = os.lseek(fd, start, os.SEEK_HOLE)
        extents.append((start, min(at, size) - start))
    return extents
