"""Packs: immutable files of zstd frames one after another, and the index that finds a chunk in them by hash.

Index (`<sha256 of the pack>.idx`, little endian): magic 8 "gildidx1" | count u64, then per chunk, sorted by hash:
sha256 32 | offset u64 | frame length u32 | raw length u32. Sorted records are searched in place, so that a lineage of
100,000 chunks costs 5 MB of memory and not 30.

`<sha256>.damaged` is there once damage was found: the offsets of the frames that are spoilt, one a line, or `all`.
"""

from __future__ import annotations

import hashlib
import os
import struct
import tempfile
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from types import TracebackType
from typing import IO

from images.chunk import HASH_SIZE, MAX_CHUNK_SIZE
from images.errors import ChunkInvalid, ChunkMissing
from images.manifest import MAX_FRAME, MAX_PACK

MAGIC = b"gildidx1"
HEAD = struct.Struct("<8sQ")
ENTRY = struct.Struct(f"<{HASH_SIZE}sQII")
BLOCK = 1 << 20  # bytes read at a time when a whole pack is hashed
MAX_SPOILT = 10_000  # frames noted one by one; a pack with more of them is no good
MAX_MARK = 1 << 20  # bytes


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
        write_file(self._directory / f"{sha}.idx", encode_index((name, *place) for name, place in self._places.items()))
        os.replace(self._temporary, self._directory / f"{sha}.pack")
        self._temporary = None
        sync_directory(self._directory)
        return sha


class PackIndex:
    """One pack's index in memory."""

    def __init__(self, pack: str, data: bytes, spoilt: frozenset[int] = frozenset()) -> None:
        """`pack` is the pack's sha256 in hex, `data` the index file; chunks at the offsets in `spoilt` are not found.
        Raises ChunkInvalid if it is not an index."""
        self.pack, self._spoilt = pack, spoilt
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
                return (offset, frame, raw) if _possible(offset, frame, raw) and offset not in self._spoilt else None
        return None

    def entries(self) -> Iterator[tuple[bytes, int, int, int]]:
        """(hash, offset, frame length, raw length) of every chunk, by hash. Raises ChunkInvalid at one that is not
        possible or out of order: searching would miss it."""
        last = b""
        for name, offset, frame, raw in ENTRY.iter_unpack(memoryview(self._data)[HEAD.size :]):
            if name <= last or not _possible(offset, frame, raw):
                raise ChunkInvalid(f"index of pack {self.pack[:12]} is not in order")
            last = name
            yield name, offset, frame, raw


def _possible(offset: int, frame: int, raw: int) -> bool:
    return 0 < frame <= MAX_FRAME and 0 < raw <= MAX_CHUNK_SIZE and offset + frame <= MAX_PACK


def encode_index(entries: Iterable[tuple[bytes, int, int, int]]) -> bytes:
    """The index file of chunks (hash, offset, frame length, raw length), each hash once, in any order."""
    records = [ENTRY.pack(*entry) for entry in sorted(entries)]
    return HEAD.pack(MAGIC, len(records)) + b"".join(records)


def read_index(directory: Path, pack: str) -> PackIndex:
    """The index of a pack (sha256 in hex) in `directory`, without the chunks that are known to be spoilt.
    Raises ChunkMissing or ChunkInvalid."""
    try:
        data = (directory / f"{pack}.idx").read_bytes()
    except FileNotFoundError:
        raise ChunkMissing(f"index of pack {pack[:12]} is not in the store", "gild image repair") from None
    spoilt = read_mark(directory, pack)
    if spoilt is None:
        raise ChunkInvalid(f"pack {pack[:12]} is damaged", "gild image repair")
    return PackIndex(pack, data, spoilt)


def read_mark(directory: Path, pack: str) -> frozenset[int] | None:
    """Offsets of the frames of a pack that were found spoilt; None if all of it was."""
    try:
        with (directory / f"{pack}.damaged").open("rb") as file:
            lines = file.read(MAX_MARK).split()
    except FileNotFoundError:
        return frozenset()
    return frozenset(map(int, lines)) if all(line.isdigit() and len(line) < 20 for line in lines) else None


def write_mark(directory: Path, pack: str, spoilt: Iterable[int] | None) -> None:
    """Note which frames of a pack are spoilt, by offset; None: all; none of them: the note goes. Raises OSError."""
    path = directory / f"{pack}.damaged"
    lines = ["all"] if spoilt is None else [str(offset) for offset in sorted(spoilt)]
    text = "\n".join(lines if len(lines) < MAX_SPOILT else ["all"])
    if text:
        write_file(path, text.encode() + b"\n")
    else:
        path.unlink(missing_ok=True)


def hash_file(path: Path, on_bytes: Callable[[int], None] | None = None) -> str:
    """sha256 in hex of a whole file, read in pieces of 1 MiB; `on_bytes` hears the size of each. Raises OSError."""
    running = hashlib.sha256()
    with path.open("rb") as file:
        while piece := file.read(BLOCK):
            running.update(piece)
            if on_bytes:
                on_bytes(len(piece))
    return running.hexdigest()
