"""The table of boot file names. A request is looked up in it; no path is ever made from what a request says.

Names come from two places: the payload inside the .pyz (kernel, installer, loaders) and the site's own folder
STATE/boot. A site's file wins over a payload file of the same name: that is how one swaps a loader or a kernel.
"""

from __future__ import annotations

import os
import stat
import time
from collections.abc import Mapping
from dataclasses import dataclass

RESCAN = 2.0  # seconds: how old the list of the site's folder may be; new files are seen without a restart
MAX_FILES = 10_000  # of the site's folder; more are left out, and `BootFiles.left_out` says how many


@dataclass
class Piece:
    """Bytes to be sent: `size` bytes from `offset` of an open file. Close it when done; a payload's stays open."""

    fd: int
    offset: int
    size: int
    owned: bool = True

    def read(self, offset: int, size: int) -> bytes:
        """At most `size` bytes from `offset` of this piece; may raise OSError as reading any file may."""
        return os.pread(self.fd, max(0, min(size, self.size - offset)), self.offset + offset)

    def close(self) -> None:
        """Give the file back. May be called twice."""
        if self.owned and self.fd >= 0:
            os.close(self.fd)
            self.fd = -1


class BootFiles:
    """`payload` maps public names to (file descriptor, offset, size); `folder` is the site's, and may not exist."""

    def __init__(self, payload: Mapping[str, tuple[int, int, int]], folder: str) -> None:
        self.payload = payload
        self.folder = os.path.realpath(folder)
        self.site: frozenset[str] = frozenset()
        self.left_out = 0
        self._scanned = float("-inf")

    def names(self) -> list[str]:
        """Every name that `find` would answer, sorted."""
        self._scan()
        return sorted(self.site | set(self.payload))

    def find(self, name: str) -> Piece | None:
        """The file of that public name, opened, or None. A leading slash is forgiven (some loaders send one)."""
        name = name.removeprefix("/")
        self._scan()
        if name in self.site:
            piece = self._open(name)
            if piece is not None:
                return piece
        place = self.payload.get(name)
        return Piece(*place, owned=False) if place else None

    def is_folder(self, name: str) -> bool:
        """Whether names begin with `name/`: a client that asks for a folder is told so, not 'not found'."""
        prefix = name.strip("/") + "/"
        return any(known.startswith(prefix) for known in self.site | set(self.payload))

    def _open(self, name: str) -> Piece | None:
        try:
            fd = os.open(os.path.join(self.folder, name), os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
        except OSError:
            return None
        # A folder on the way may have become a symbolic link since the scan: ask the kernel where the file really is.
        where = os.readlink(f"/proc/self/fd/{fd}")
        status = os.fstat(fd)
        if not where.startswith(self.folder + os.sep) or not stat.S_ISREG(status.st_mode):
            os.close(fd)
            return None
        return Piece(fd, 0, status.st_size)

    def _scan(self) -> None:
        if time.monotonic() - self._scanned < RESCAN:
            return
        found: set[str] = set()
        self.left_out = 0
        for base, folders, files in os.walk(self.folder):
            folders.sort()
            for file in sorted(files):
                path = os.path.join(base, file)
                try:
                    regular = stat.S_ISREG(os.lstat(path).st_mode)
                except OSError:
                    continue
                if regular and len(found) >= MAX_FILES:
                    self.left_out += 1
                elif regular:
                    found.add(os.path.relpath(path, self.folder))
        self.site = frozenset(found)
        self._scanned = time.monotonic()
