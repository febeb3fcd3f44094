"""Packs: immutable files of zstd frames one after another, and the index that finds a chunk in them by hash.

Index (`<sha256 of the pack>.idx`, little endian): magic 8 "gildidx1" | count u64, then per chunk, sorted by hash:
sha256 32 | offset u64 | frame length u32 | raw length u32. Sorted records are searched in place, so that a lineage of
100,000 chunks costs 5 MB of memory and not 30.
"""

from __future__ import annotations

import hashlib
import os
import struct
import tempfile
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import IO

from images.chunk import HASH_SIZE, MAX_CHUNK_SIZE
from images.errors import ChunkInvalid, ChunkMissing
from images.manifest import MAX_FRAME

MAGIC = b"gildidx1"
HEAD = struct.Struct("<8sQ")
ENTRY = struct.Struct(f"<{HASH_SIZE}sQII")
BLOCK = 1 << 20  # bytes read at a time when a whole pack is hashed


def sync_directory(path: Path) -> None:
    """Make a rename in `path` survive a power cut (fsync(2): the directory needs its own)."""
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def write_file(path: Path, data: bytes) -> None:
    """Put `data` at `path`, all or nothing: temporary file, fsync, rename, fsync of the directory. Raises OSError."""
    fd, temporary = tempfile.mkstemp(prefix=".tmp-", dir=path.parent)
    try:
        with os.fdopen(fd, "wb") as file:
            file.write(data)
            file.flush()
            os.fchmod(file.fileno(), 0o644)
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
    sync_directory(path.parent)


class PackWriter:
    """Writes one pack in disk order; nothing is to be seen in the store before `finish`.

    As a context manager it removes what it wrote unless `finish` was reached. Not thread-safe.
    """

    def __init__(self, directory: Path) -> None:
        """Open a temporary file in `directory` (the store's packs). Raises OSError."""
        self._directory = directory
        fd, name = tempfile.mkstemp(prefix=".tmp-", dir=directory)
        self._temporary: Path | None = Path(name)
        self._file: IO[bytes] = os.fdopen(fd, "wb", buffering=BLOCK)
        self._hash = hashlib.sha256()
        self._places: dict[bytes, tuple[int, int, int]] = {}
        self.size = 0

    def __enter__(self) -> PackWriter:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if self._temporary is not None:
            # Closing writes what is buffered, and may fail for want of space once more; the file goes either way.
            self._temporary.unlink(missing_ok=True)
            try:
                self._file.close()
            except OSError:
                if kind is None:
                    raise

    def find(self, name: bytes) -> tuple[int, int] | None:
        """(offset, frame length) of a chunk already in this pack, by hash."""
        place = self._places.get(name)
        return place[:2] if place else None

    def add(self, name: bytes, frame: bytes, length: int) -> int:
        """Append the frame of a chunk of `length` raw bytes and hash `name`; gives its offset. Raises OSError."""
        offset = self.size
        self._file.write(frame)
        self._hash.update(frame)
        self._places[name] = (offset, len(frame), length)
        self.size += len(frame)
        return offset

    def finish(self) -> str:
        """Publish the pack and its index by rename; gives the pack's sha256 in hex. Raises OSError.

        The index goes first: a pack that can be seen can always be searched."""
        self._file.flush()
        os.fchmod(self._file.fileno(), 0o644)
        os.fsync(self._file.fileno())
        self._file.close()
        assert self._temporary is not None
        sha = self._hash.hexdigest()
        entries = [ENTRY.pack(name, *place) for name, place in sorted(self._places.items())]
        write_file(self._directory / f"{sha}.idx", HEAD.pack(MAGIC, len(entries)) + b"".join(entries))
        os.replace(self._temporary, self._directory / f"{sha}.pack")
        self._temporary = None
        sync_directory(self._directory)
        return sha


class PackIndex:
    """One pack's index in memory."""

    def __init__(self, pack: str, data: bytes) -> None:
        """`pack` is the pack's sha256 in hex, `data` the index file. Raises ChunkInvalid if it is not one."""
        self.pack = pack
        if len(data) < HEAD.size or data[:8] != MAGIC:
            raise ChunkInvalid(f"index of pack {pack[:12]} does not start with its magic")
        self._count = HEAD.unpack_from(data)[1]
        if len(data) != HEAD.size + self._count * ENTRY.size:
            raise ChunkInvalid(f"index of pack {pack[:12]} has {len(data)} bytes, not those of {self._count} chunks")
        self._data = data

    def __len__(self) -> int:
        return int(self._count)

    def find(self, name: bytes) -> tuple[int, int, int] | None:
        """(offset, frame length, raw length) of the chunk with hash `name`, or None. All in bytes."""
        low, high = 0, self._count
        while low < high:
            middle = (low + high) // 2
            at = HEAD.size + middle * ENTRY.size
            here = self._data[at : at + HASH_SIZE]
            if here < name:
                low = middle + 1
            elif here > name:
                high = middle
            else:
                _, offset, frame, raw = ENTRY.unpack_from(self._data, at)
                return (offset, frame, raw) if 0 < frame <= MAX_FRAME and 0 < raw <= MAX_CHUNK_SIZE else None
        return None


def read_index(directory: Path, pack: str) -> PackIndex:
    """The index of a pack (sha256 in hex) in `directory`. Raises ChunkMissing or ChunkInvalid."""
    try:
        data = (directory / f"{pack}.idx").read_bytes()
    except FileNotFoundError:
        raise ChunkMissing(f"index of pack {pack[:12]} is not in the store", "gild image verify --repair") from None
    return PackIndex(pack, data)


def hash_file(path: Path, on_bytes: Callable[[int], None] | None = None) -> str:
    """sha256 in hex of a whole file, read in pieces of 1 MiB; `on_bytes` hears the size of each. Raises OSError."""
    running = hashlib.sha256()
    with path.open("rb") as file:
        while piece := file.read(BLOCK):
            running.update(piece)
            if on_bytes:
                on_bytes(len(piece))
    return running.hexdigest()
