"""How a disk is cut: its partitions, what stands in each, and what becomes of it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from images.errors import SourceInvalid
from images.partitions import SECTORS, Entry, Table, TableInvalid, read_table
from images.sources.diskfile import Disk
from images.superblock import Superblock, recognise

SECTOR = 512
AS_IT_IS = "import it with --whole, bit for bit"
LIVE = "capture the running machine instead (gild image capture), or import it with --whole, bit for bit"


@dataclass(frozen=True, slots=True)
class Volume:
    """One partition and what stands in it."""

    entry: Entry
    found: Superblock | None

    @property
    def fs(self) -> str:
        """The name of its filesystem, empty if none is known."""
        return self.found.kind if self.found else ""


@dataclass
class Layout:
    """How a disk is cut, and what became of each piece: role and mount point, or why it was left out."""

    label: str
    sector: int
    volumes: list[Volume]
    notes: list[str] = field(default_factory=list)
    roles: dict[int, tuple[str, str]] = field(default_factory=dict)
    left: dict[int, str] = field(default_factory=dict)

    def as_dict(self) -> dict[str, Any]:
        """For the manifest's source."""
        return {
            "label": self.label,
            "sector": self.sector,
            "partitions": [self._row(volume) for volume in self.volumes],
            **({"notes": self.notes} if self.notes else {}),
        }

    def _row(self, volume: Volume) -> dict[str, Any]:
        entry, found = volume.entry, volume.found
        row: dict[str, Any] = {"number": entry.number, "start": entry.start, "size": entry.size, "type": entry.type}
        row |= {key: value for key, value in (("name", entry.name), ("kind", entry.kind)) if value}
        if found:
            row |= {key: value for key, value in (("fs", found.kind), ("label", found.label)) if value}
        if entry.number in self.roles:
            row["role"], row["mount"] = self.roles[entry.number]
        if entry.number in self.left:
            row["left_out"] = self.left[entry.number]
        return row


def look(disk: Disk, name: str) -> Layout:
    """The partitions and what stands in them. Raises SourceInvalid for a disk that nobody here can look into."""
    bare = recognise(disk.read, disk.size)
    if bare and bare.kind == "iso9660":
        raise SourceInvalid(f"{name} is a CD, not the disk of an installed system", "install from it, or use a recipe")
    try:
        table = read_table(disk.read, disk.size)
    except TableInvalid as error:
        raise SourceInvalid(f"{name}: {error.message}", AS_IT_IS) from None
    if table is None:
        if bare is None:
            raise SourceInvalid(f"{name} has neither a partition table nor a filesystem", AS_IT_IS)
        layout = Layout("none", SECTOR, [Volume(Entry(0, 0, disk.size, ""), bare)])
    else:
        volumes = volumes_of(disk, table)
        if table.label == "dos" and not any(volume.found for volume in volumes):
            table, volumes = _larger_sectors(disk, table, volumes)
        layout = Layout(table.label, table.sector, volumes, list(table.notes))
    for volume in layout.volumes:
        if volume.found and volume.found.container:
            raise SourceInvalid(
                f"{name}: {number_of(volume)} is {volume.found.container}; it cannot be looked into", LIVE
            )
    return layout


def volumes_of(disk: Disk, table: Table) -> list[Volume]:
    """What stands in each partition of a table; nothing is read beyond its own end. Raises OSError."""

    def found(entry: Entry) -> Volume:
        def read(offset: int, length: int) -> bytes:
            return disk.read(entry.start + offset, max(0, min(length, entry.size - offset)))

        return Volume(entry, recognise(read, entry.size))

    return [found(entry) for entry in table.entries]


def _larger_sectors(disk: Disk, table: Table, volumes: list[Volume]) -> tuple[Table, list[Volume]]:
    """An MBR does not say how large its sectors are; where nothing is found with the usual ones, try the others."""
    try:
        other = read_table(disk.read, disk.size, SECTORS[1:])
    except TableInvalid:
        return table, volumes
    seen = volumes_of(disk, other) if other else []
    return (other, seen) if other and any(volume.found for volume in seen) else (table, volumes)


def number_of(volume: Volume) -> str:
    """What a partition is called in messages; a disk without a table is its own only one."""
    return f"partition {volume.entry.number}" if volume.entry.number else "the disk"
