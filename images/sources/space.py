"""How much of a disk something on its way in may take, so that no archive can fill it."""

from __future__ import annotations

import os
from pathlib import Path

from images.errors import NoSpace

RESERVE = 64 << 20  # bytes that stay free
RESERVED_INODES = 4096
BLOCK = 4096  # what the smallest file takes
STEP = 64 << 20  # bytes after which the disk is asked again: others write on it too
HINT = "free some space, or gild image gc; files with holes want tar --sparse"


class Space:
    """The room on the disk of the directory `at`, less a reserve."""

    def __init__(self, at: Path) -> None:
        self._at = at
        status = os.statvfs(at)
        self._left = status.f_bavail * status.f_frsize - RESERVE
        # Some filesystems make inodes as they need them and count none.
        self._inodes = status.f_favail - RESERVED_INODES if status.f_files else 1 << 62
        self._since = 0

    def take(self, size: int, shown: str) -> None:
        """Count one file of `size` bytes, before it is written. Raises NoSpace, naming `shown`, if it does not fit."""
        taken = -(-size // BLOCK) * BLOCK
        self._left -= taken
        self._inodes -= 1
        self._since += taken + BLOCK
        if self._left < 0:
            raise NoSpace(f"taking in {shown}: it needs more room than the disk has", HINT)
        if self._inodes < 0:
            raise NoSpace(f"taking in {shown}: the disk has no room for more files", HINT)
        if self._since > STEP:
            self._since = 0
            status = os.statvfs(self._at)
            if status.f_bavail * status.f_frsize < RESERVE:
                raise NoSpace(f"taking in {shown}: the disk is full but for {RESERVE >> 20} MiB", HINT)
