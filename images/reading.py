"""Reading a partition of a golden client: what is in use, cut, blanked and named as a published version has it.

Nothing is ever written here. Deleted files are not read either: free blocks inside a chunk are blanked, so that the
names are those of the same filesystem published on the head, and what the head has already need not be sent.
"""

from __future__ import annotations

import os
from dataclasses import dataclass

from images.chunk import CHUNK_SIZE, blanked, chunk_hash, chunk_length
from images.errors import ImageError
from images.usedmap import UsedMap, gaps, used_map

BLANK = bytes(CHUNK_SIZE)


@dataclass(frozen=True, slots=True)
class Piece:
    """A chunk of the partition: its index, its hash (empty where it is all zeros) and its bytes."""

    index: int
    name: bytes
    raw: bytes


class Partition:
    """The `size` bytes from `offset` on of an open disk, with the filesystem `fs`. Threads may share it."""

    def __init__(self, fd: int, size: int, fs: str, offset: int = 0) -> None:
        """Reads the filesystem's own map of used blocks."""
        self._fd, self.size, self._offset = fd, size, offset
        self.map: UsedMap = used_map(fd, size, fs, offset)

    def read(self, index: int) -> Piece:
        """One chunk. Raises ImageError if the disk cannot be read there."""
        start, length = index * CHUNK_SIZE, chunk_length(index, self.size, CHUNK_SIZE)
        raw = b""
        while len(raw) < length:
            try:
                piece = os.pread(self._fd, length - len(raw), self._offset + start + len(raw))
            except OSError as error:
                raise ImageError(f"the disk cannot be read at byte {start}: {error.strerror}") from None
            if not piece:
                raise ImageError(f"the partition ends at byte {start + len(raw)}, before its filesystem does")
            raw += piece
        raw = blanked(raw, start, gaps(self.map.extents, start, length))
        return Piece(index, b"" if raw == BLANK[:length] else chunk_hash(raw), raw)
