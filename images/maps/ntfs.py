"""Used blocks of NTFS: its own bitmap, file 6 of the master file table.

Layout: linux fs/ntfs3/ntfs.h and ntfs-3g's include/ntfs-3g/layout.h. The bitmap is true only if the volume is clean:
Windows leaves a volume mounted when it hibernates ("fast startup"), and what its log holds is then not in the bitmap.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass

from images.maps.extents import Extent, MapUnreadable, Read, collect, exact, pieces, set_bits

MAX_CLUSTERS = 1 << 32  # what Windows itself can make; 512 MB of bitmap
MAX_RUNS = 1 << 16  # pieces of one file
SECTOR = 512  # bytes that one fixup protects: NTFS_BLOCK_SIZE, whatever the disk's sector is
PIECE = 32 << 10  # bytes of the bitmap looked at together
LOG_FILE, VOLUME, BITMAP = 2, 3, 6
ATTRIBUTE_LIST, VOLUME_INFORMATION, DATA, END = 0x20, 0x70, 0x80, 0xFFFFFFFF
DIRTY, CLEAN, NO_CLIENT = 0x0001, 0x0002, 0xFFFF


@dataclass(frozen=True, slots=True)
class _Volume:
    sector: int  # bytes
    sectors: int
    cluster: int  # bytes
    clusters: int
    table: int  # cluster the master file table begins at
    record: int  # bytes of a record of it

    @property
    def end(self) -> int:
        """First byte behind the volume: a copy of the boot sector stands behind the last sector that counts."""
        return (self.sectors + 1) * self.sector


def ntfs_used(read: Read, size: int) -> list[Extent]:
    """Used stretches of an NTFS volume in bytes, sorted. Raises MapUnreadable for a volume that is dirty or
    hibernated, for a bitmap that is itself in too many pieces, and for anything inconsistent; nothing else."""
    volume = _volume(exact(read, 0, 512, size, "NTFS"), size)
    _clean(read, size, volume)
    data = _Data(read, size, volume, BITMAP)
    wanted = -(-volume.clusters // 8)
    if data.valid < wanted:
        raise MapUnreadable(f"NTFS: a bitmap of {data.valid} bytes for {volume.clusters} clusters")
    used = collect(_used(data, volume, wanted), "NTFS")
    for cluster in (0, volume.table):
        if not any(start <= cluster * volume.cluster < start + length for start, length in used):
            raise MapUnreadable(f"NTFS: its bitmap calls cluster {cluster}, which it needs, free")
    return used


def _used(data: _Data, volume: _Volume, wanted: int) -> Iterator[Extent]:
    for at, length in pieces(wanted, PIECE):
        for cluster, count in set_bits(data.read(at, length), at * 8, min(length * 8, volume.clusters - at * 8)):
            yield cluster * volume.cluster, count * volume.cluster
    last = volume.clusters * volume.cluster
    if last < volume.end:
        yield last, volume.end - last


def _volume(boot: bytes, size: int) -> _Volume:
    sector, raw, sectors = *struct.unpack_from("<HB", boot, 11), *struct.unpack_from("<Q", boot, 40)
    table, record = *struct.unpack_from("<Q", boot, 48), *struct.unpack_from("<b", boot, 64)
    if boot[3:11] != b"NTFS    " or sector not in (512, 1024, 2048, 4096):
        raise MapUnreadable(f"NTFS: no boot sector, or sectors of {sector} bytes")
    # fs/ntfs3/super.c, true_sectors_per_clst: from 0x81 on it is a shift that is counted from below
    per_cluster = raw if raw <= 0x80 else 1 << (256 - raw) if raw >= 0xF4 else 0
    cluster = per_cluster * sector
    held = record * cluster if record > 0 else 1 << -record if -12 <= record <= -10 else 0
    if not per_cluster or per_cluster & (per_cluster - 1) or cluster > 2 << 20 or held not in (1024, 2048, 4096):
        raise MapUnreadable(f"NTFS: clusters of {cluster} bytes, records of {held}")
    clusters = sectors // per_cluster
    if not 0 < clusters <= MAX_CLUSTERS or sectors * sector > size or not 0 < table < clusters:
        raise MapUnreadable(
            f"NTFS: {sectors} sectors with the file table at cluster {table}; the image has {size} bytes"
        )
    # The copy of the boot sector behind the end is missing where a volume was copied by its own size.
    return _Volume(sector, sectors if (sectors + 1) * sector <= size else sectors - 1, cluster, clusters, table, held)


def _record(read: Read, size: int, volume: _Volume, number: int) -> bytes:
    """A record of the master file table, its fixups undone. The first of them always lie together."""
    data = exact(read, volume.table * volume.cluster + number * volume.record, volume.record, size, "NTFS")
    record = _fixed(data, b"FILE", f"NTFS: record {number}")
    if not struct.unpack_from("<H", record, 22)[0] & 1:
        raise MapUnreadable(f"NTFS: record {number} is not in use")
    return record


def _fixed(data: bytes, magic: bytes, what: str) -> bytes:
    """A block whose sectors all end in the same number, with the bytes put back that stood there."""
    at, count = struct.unpack_from("<HH", data, 4)
    if data[:4] != magic or count != len(data) // SECTOR + 1 or at % 2 or not 30 <= at <= SECTOR - 2 - 2 * count:
        raise MapUnreadable(f"{what} is not what it should be")
    block, mark = bytearray(data), data[at : at + 2]
    for n in range(1, count):
        end = n * SECTOR - 2
        if block[end : end + 2] != mark:
            raise MapUnreadable(f"{what} was written in part")
        block[end : end + 2] = data[at + 2 * n : at + 2 * n + 2]
    return bytes(block)


def _attribute(record: bytes, wanted: int, what: str) -> bytes:
    """The first attribute of a kind without a name."""
    at, end = struct.unpack_from("<H", record, 20)[0], min(struct.unpack_from("<I", record, 24)[0], len(record))
    while at % 8 == 0 and at + 24 <= end:
        kind, length = struct.unpack_from("<II", record, at)
        if kind == END:
            break
        if length < 24 or length % 8 or at + length > end:
            break
        if kind == ATTRIBUTE_LIST:
            raise MapUnreadable(f"NTFS: {what} is in too many pieces")
        if kind == wanted and not record[at + 9]:
            return record[at : at + length]
        at += length
    raise MapUnreadable(f"NTFS: {what} is not where it should be")


def _resident(attribute: bytes, what: str) -> bytes:
    length, at = struct.unpack_from("<IH", attribute, 16)
    if attribute[8] or at + length > len(attribute):
        raise MapUnreadable(f"NTFS: {what} is not where it should be")
    return attribute[at : at + length]


class _Data:
    """The contents of one of the first files."""

    def __init__(self, read: Read, size: int, volume: _Volume, number: int) -> None:
        self._read, self._size, self._cluster = read, size, volume.cluster
        what = f"file {number}"
        attribute = _attribute(_record(read, size, volume, number), DATA, what)
        self._inside = b""
        self._runs: list[tuple[int, int, int]] = []  # first cluster of the file, cluster of the volume, count
        if not attribute[8]:
            self._inside = _resident(attribute, what)
            self.valid = len(self._inside)
            return
        if len(attribute) < 64:
            raise MapUnreadable(f"NTFS: {what} is not where it should be")
        self.valid = min(struct.unpack_from("<QQ", attribute, 48))  # of its size, as much as was ever written
        first, pairs = struct.unpack_from("<Q", attribute, 16)[0], struct.unpack_from("<H", attribute, 32)[0]
        flags = struct.unpack_from("<H", attribute, 12)[0]
        if first or flags or not 64 <= pairs < len(attribute):
            raise MapUnreadable(f"NTFS: {what} is stored in a way that is not read here")
        held = 0
        for cluster, count in _runs(attribute[pairs:], volume, what):
            self._runs.append((held, cluster, count))
            held += count
        if self.valid > held * volume.cluster:
            raise MapUnreadable(f"NTFS: {what} is larger than its place")

    def read(self, offset: int, length: int) -> bytes:
        """Bytes of the file, all of them before `valid`."""
        if not self._runs:
            return self._inside[offset : offset + length]
        found = []
        for first, cluster, count in self._runs:
            begin = max(offset, first * self._cluster)
            end = min(offset + length, (first + count) * self._cluster)
            if begin < end:
                place = cluster * self._cluster + begin - first * self._cluster
                found.append(exact(self._read, place, end - begin, self._size, "NTFS"))
        return b"".join(found)


def _runs(pairs: bytes, volume: _Volume, what: str) -> Iterator[Extent]:
    """(cluster, count) of the pieces of a file: lengths and distances of so many bytes as a first byte says."""
    at, cluster, seen = 0, 0, 0
    while at < len(pairs) and pairs[at]:
        lengths, distances = pairs[at] & 0xF, pairs[at] >> 4
        body = pairs[at + 1 : at + 1 + lengths + distances]
        if not 0 < lengths <= 8 or not 0 < distances <= 8 or len(body) != lengths + distances:
            raise MapUnreadable(f"NTFS: the pieces of {what} make no sense")
        count = int.from_bytes(body[:lengths], "little", signed=True)
        cluster += int.from_bytes(body[lengths:], "little", signed=True)
        seen += 1
        if count <= 0 or not 0 <= cluster <= volume.clusters - count or seen > MAX_RUNS:
            raise MapUnreadable(f"NTFS: the pieces of {what} lie outside the volume")
        yield cluster, count
        at += 1 + lengths + distances


def _clean(read: Read, size: int, volume: _Volume) -> None:
    """Raise MapUnreadable if the volume waits for a repair or its log for being played back."""
    information = _resident(_attribute(_record(read, size, volume, VOLUME), VOLUME_INFORMATION, "file 3"), "file 3")
    if len(information) < 12 or struct.unpack_from("<H", information, 10)[0] & DIRTY:
        raise MapUnreadable("NTFS: the volume is marked as dirty")
    log = _Data(read, size, volume, LOG_FILE)
    newest: tuple[int, bool] | None = None
    for at in (0, 4096):  # two restart pages, written in turn; ntfs-3g logfile.c
        page = log.read(at, 4096) if log.valid >= at + 4096 else b""
        if page[:4] != b"RSTR":
            if page and page.strip(b"\xff"):
                raise MapUnreadable("NTFS: its log is of a kind that is not read here")
            continue
        newest = max(newest or (-1, False), _restart(page))
    if newest and not newest[1]:
        raise MapUnreadable("NTFS: it was not unmounted (Windows: shut down with fast startup off, shutdown /s /f)")


def _restart(page: bytes) -> tuple[int, bool]:
    """(number, whether the volume was clean) of a restart page."""
    system, log, at = struct.unpack_from("<IIH", page, 16)
    minor, major = struct.unpack_from("<HH", page, 26)
    if (system, log) != (4096, 4096) or major > 1 or not 48 <= at <= SECTOR - 16:
        raise MapUnreadable(f"NTFS: its log is of version {major}.{minor} with pages of {system} and {log}")
    area = _fixed(page, b"RSTR", "NTFS: its log")[at : at + 16]
    number, _, _, client, flags = struct.unpack("<QHHHH", area)
    return number, client == NO_CLIENT or bool(flags & CLEAN)
