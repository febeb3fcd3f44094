"""The partition table of a disk: bytes in, a checked list of partitions out. GPT, and MBR with logical partitions.

Layouts: UEFI 2.10 sections 5.2.3 (protective MBR), 5.3.2 (header), 5.3.3 (entries); the chain of logical partitions as
the kernel reads it (block/partitions/msdos.c). Everything on a disk is hostile until checked: each entry lies on it,
no two overlap, no table is longer than MAX_ENTRIES, no chain goes round.
"""

from __future__ import annotations

import struct
import uuid
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from images.errors import ImageError

Read = Callable[[int, int], bytes]  # offset, length -> bytes, fewer at the end of the disk

SECTORS = (512, 4096)  # bytes; the logical sectors of disks that are sold
MAX_ENTRIES = 1024  # of a GPT; 128 is what everybody makes
MAX_LOGICAL = 128  # of an MBR
GPT_MAGIC, GPT_HEADER = b"EFI PART", 92
PROTECTIVE, EXTENDED = 0xEE, (0x05, 0x0F, 0x85)

# Type -> word. UEFI 2.10 section 5.3.3, the UAPI group's Discoverable Partitions Specification, GRUB's manual ("BIOS
# installation"), Microsoft's PARTITION_INFORMATION_GPT, PowerPC's boot partition as util-linux knows it.
KINDS = {
    "C12A7328-F81F-11D2-BA4B-00A0C93EC93B": "esp",
    "21686148-6449-6E6F-744E-656564454649": "bios",
    "9E1A2D38-C612-4316-AA26-8B49521E5A8B": "prep",
    "0657FD6D-A4AB-43C4-84E5-0933C84B4F4F": "swap",
    "E3C9E316-0B5C-4DB8-817D-F92DF00215AE": "reserved",
    "DE94BBA4-06D1-4D40-A16A-BFD50179D6AC": "recovery",
    "4F68BCE3-E8CD-4DB1-96E7-FBCAF984B709": "root",  # x86-64
    "B921B045-1DF0-41C3-AF44-4C6F280D3FAE": "root",  # 64-bit ARM
    "BC13C2FF-59E6-4262-A352-B275FD6F7172": "boot",
    "933AC7E1-2EB4-4F13-B844-0E14E2AEF915": "home",
    "0FC63DAF-8483-4772-8E79-3D69D8477DE4": "linux",
    "E6D6D379-F507-44C2-A23C-238F2A3DF928": "lvm",
    "A19D880F-05FC-4D3B-A006-743F0F84911E": "raid",
    "EBD0A0A2-B9E5-4433-87C0-68B6B72699C7": "data",
    "0x82": "swap",
    "0x83": "linux",
    "0x8e": "lvm",
    "0xfd": "raid",
    "0xef": "esp",
    "0x41": "prep",
    "0x07": "data",
    "0x27": "recovery",
}


class TableInvalid(ImageError):
    """A disk has a partition table that contradicts itself or the disk."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One partition. `start` and `size` are in bytes; `type` is a GUID in upper case or the hexadecimal type of an MBR
    ("0x83"), `kind` a word for it or empty; `uuid` is what PARTUUID= names, in lower case."""

    number: int
    start: int
    size: int
    type: str
    uuid: str = ""
    name: str = ""

    @property
    def kind(self) -> str:
        """What the type stands for: esp, bios, swap, linux, home ..., empty if it is not known."""
        return KINDS.get(self.type, "")


@dataclass(frozen=True, slots=True)
class Table:
    """A partition table: `label` is "gpt" or "dos", `sector` the bytes of a logical sector that it counts in, `notes`
    what was odd about it."""

    label: str
    sector: int
    uuid: str
    entries: tuple[Entry, ...]
    notes: tuple[str, ...] = ()


def read_table(read: Read, size: int, sectors: Sequence[int] = SECTORS) -> Table | None:
    """The partition table of a disk of `size` bytes, None if it has none. `sectors` are the sector sizes to try, in
    bytes: one where the disk is known, both for an image file; an MBR does not tell its own and counts in the first.

    A GPT whose first copy is damaged is read from the one at the end. Raises TableInvalid for a table that cannot be
    true, and what `read` raises; nothing else."""
    first = _some(read, 0, 512)
    primaries = _primaries(first)
    protective = any(kind == PROTECTIVE for _, kind, _, _ in primaries)
    if protective or not primaries:
        for sector in sectors:
            if table := _gpt(read, size, sector):
                return table
    if protective:
        raise TableInvalid("the partition table (GPT) is damaged, and so is its copy at the end of the disk")
    if not primaries:
        return None
    return _mbr(read, size, sectors[0], first, primaries)


# --- GPT


def _gpt(read: Read, size: int, sector: int) -> Table | None:
    """The first of both copies that is whole, None if there is neither."""
    last = size // sector - 1
    seen = False
    for lba in (1, last):
        head = _some(read, lba * sector, sector) if 0 < lba <= last else b""
        if head[:8] != GPT_MAGIC:
            continue
        seen = True
        rows = _rows(read, head, lba, last, sector)
        if rows is not None:
            notes = (
                () if lba == 1 else ("the first copy of the partition table is damaged; the one at the end was read",)
            )
            entries = [entry for number, row in enumerate(rows, 1) if (entry := _entry(row, number, last, sector))]
            return Table("gpt", sector, str(uuid.UUID(bytes_le=head[56:72])), _apart(entries), notes)
    if seen:
        raise TableInvalid("the partition table (GPT) is damaged, and so is its copy at the end of the disk")
    return None


def _rows(read: Read, head: bytes, lba: int, last: int, sector: int) -> list[bytes] | None:
    """The raw entries that a header describes, None if its checksums or its own place are wrong."""
    length, crc, _, mine = struct.unpack_from("<IIIQ", head, 12)
    if not GPT_HEADER <= length <= sector or mine != lba:
        return None
    if zlib.crc32(head[:16] + bytes(4) + head[20:length]) != crc:
        return None
    at, count, each, rows_crc = struct.unpack_from("<QIII", head, 72)
    if each % 128 or not 128 <= each <= 4096 or not 0 < count <= MAX_ENTRIES or not 0 < at <= last:
        return None
    data = _some(read, at * sector, count * each)
    if len(data) != count * each or zlib.crc32(data) != rows_crc:
        return None
    return [data[n * each : (n + 1) * each] for n in range(count)]


def _entry(row: bytes, number: int, last: int, sector: int) -> Entry | None:
    if not any(row[:16]):
        return None
    first, end = struct.unpack_from("<QQ", row, 32)
    if not 1 < first <= end <= last:
        raise TableInvalid(f"partition {number} (sectors {first} to {end}) does not lie on the disk (0 to {last})")
    name = row[56:128].decode("utf-16-le", "replace").split("\0")[0]
    return Entry(
        number,
        first * sector,
        (end - first + 1) * sector,
        str(uuid.UUID(bytes_le=row[:16])).upper(),
        str(uuid.UUID(bytes_le=row[16:32])),
        "".join(c if c.isprintable() else "?" for c in name),
    )


# --- MBR


def _primaries(sector: bytes) -> list[tuple[int, int, int, int]]:
    """(number, type, start, count of sectors) of the used entries of a boot sector, empty if they are no partition
    table: the boot sector of a FAT or NTFS filesystem ends in the same two bytes and has text in their place."""
    if sector[510:512] != b"\x55\xaa":
        return []
    found = []
    for number in range(1, 5):
        flag, kind, start, count = struct.unpack_from("<B3xB3xII", sector, 430 + 16 * number)
        if flag not in (0x00, 0x80):
            return []
        if kind and count:
            found.append((number, kind, start, count))
    return found


def _mbr(read: Read, size: int, sector: int, first: bytes, primaries: Sequence[tuple[int, int, int, int]]) -> Table:
    disk = struct.unpack_from("<I", first, 440)[0]
    entries: list[Entry] = []
    logical: list[Entry] = []
    for number, kind, start, count in primaries:
        if kind in EXTENDED:
            logical += _logical(read, size, sector, start, disk, 5 + len(logical))
        else:
            entries.append(_old(number, kind, start, count, size, sector, disk))
    return Table("dos", sector, f"{disk:08x}", _apart(entries + logical))


def _logical(read: Read, size: int, sector: int, base: int, disk: int, number: int) -> list[Entry]:
    """The partitions of an extended one that starts at sector `base`: a chain of boot sectors, each with one partition
    beside it and the place of the next."""
    found: list[Entry] = []
    at, seen = base, set[int]()
    while at not in seen:
        seen.add(at)
        if len(seen) > MAX_LOGICAL:
            raise TableInvalid(f"more than {MAX_LOGICAL} logical partitions")
        rows = _primaries(_some(read, at * sector, 512))
        # The first row is the partition, from here on; the second the next link, from the beginning of the whole.
        for _, kind, start, count in rows:
            if kind not in EXTENDED:
                found.append(_old(number + len(found), kind, at + start, count, size, sector, disk))
                break
        following = next((start for _, kind, start, _ in rows if kind in EXTENDED), 0)
        if not following:
            return found
        at = base + following
    raise TableInvalid("the chain of logical partitions goes round")


def _old(number: int, kind: int, start: int, count: int, size: int, sector: int, disk: int) -> Entry:
    if not start or (start + count) * sector > size:
        raise TableInvalid(
            f"partition {number} (sectors {start} to {start + count - 1}) does not lie on the disk "
            f"(0 to {size // sector - 1})"
        )
    return Entry(number, start * sector, count * sector, f"0x{kind:02x}", f"{disk:08x}-{number:02x}")


# --- both


def _apart(entries: Sequence[Entry]) -> tuple[Entry, ...]:
    """The entries in order of their numbers, if no two of them overlap."""
    before: Entry | None = None
    for entry in sorted(entries, key=lambda entry: entry.start):
        if before is not None and entry.start < before.start + before.size:
            raise TableInvalid(f"partitions {before.number} and {entry.number} overlap")
        before = entry
    return tuple(sorted(entries, key=lambda entry: entry.number))


def _some(read: Read, offset: int, length: int) -> bytes:
    """Bytes of the disk; a place that no file can have is behind its end."""
    return read(offset, length) if 0 <= offset < 1 << 62 else b""
