"""What can be wrong in a store, in words."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from images.errors import GildError

MAX_DAMAGE = 1000  # findings of one verify; a dead disk would give one per chunk


@dataclass(frozen=True, slots=True)
class Damage:
    """One damaged file, or a place in it: `file` is its path below the store, `versions` are those it touches. For a
    chunk: `offset` and `length` of its frame in the pack (bytes), and where the first of `versions` has it."""

    file: str
    what: str
    versions: tuple[str, ...] = ()
    partition: str = ""
    chunk: int = -1
    offset: int = -1
    length: int = 0

    @property
    def pack(self) -> str:
        """The pack's sha256 in hex; empty if it is not a pack's damage."""
        return Path(self.file).stem if self.file.endswith(".pack") else ""

    def __str__(self) -> str:
        name = f"pack {self.pack[:12]}" if self.pack else self.file
        place = f", byte {self.offset}" if self.offset >= 0 else ""
        place += f", chunk {self.chunk} of {self.partition}" if self.chunk >= 0 else ""
        return f"{name}{place}: {self.what}"


@dataclass(frozen=True, slots=True)
class Report:
    """What `verify` found: `checked` versions and `size` bytes of packs were read; `more` findings did not fit;
    `strays` are files that belong to no version (path below the store, why), which harm nothing."""

    damage: tuple[Damage, ...] = ()
    more: int = 0
    checked: tuple[str, ...] = ()
    size: int = 0
    strays: tuple[tuple[str, str], ...] = ()


def told(error: GildError | OSError) -> str:
    """An error as a finding."""
    return f"cannot be read: {error.strerror}" if isinstance(error, OSError) else error.message
