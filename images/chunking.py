"""From a working image to runs: chunks read, hashed and compressed on all cores, then strung together in disk order."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

from images import ext4, zstd
from images.chunk import blanked, chunk_hash, chunk_length, touched
from images.errors import ImageError
from images.manifest import Kind, Run
from images.options import Progress
from images.packs import PackIndex, PackWriter
from images.usedmap import data_extents, gaps, overlap, used_map

AHEAD = 8  # chunks in work for each core: bounds memory, hides the disk


@dataclass(frozen=True, slots=True)
class Chunk:
    """One chunk as a worker leaves it: zero if `name` is empty; `place` if an older pack has it, else `frame`."""

    name: bytes = b""
    length: int = 0
    place: tuple[str, int, int] | None = None
    frame: bytes = b""


class Work:
    """Reads, hashes and compresses chunks on all cores; results come in disk order."""

    def __init__(
        self, fd: int, fs: str, chunk_size: int, known: list[PackIndex], writer: PackWriter, level: int
    ) -> None:
        """Map the file open at `fd`, which holds a filesystem `fs`, and punch its free stretches out. Raises
        ImageError if it is empty."""
        self._fd, self._chunk_size, self._level = fd, chunk_size, level
        self._known, self._writer = known, writer
        self.size = os.fstat(fd).st_size
        if self.size == 0:
            raise ImageError("the image file is empty")
        self.used = used_map(fd, self.size, fs)
        ext4.punch(fd, gaps(self.used.extents, 0, self.size))
        self._data = data_extents(fd, self.size)
        self._zero = bytes(chunk_size)

    def chunks(self, tell: Progress, before: int, total: int) -> Iterator[tuple[int, Chunk]]:
        """(index, chunk) of every chunk that holds a used byte, ascending. `before` bytes of `total` are done."""
        cores = os.cpu_count() or 1
        waiting: deque[tuple[int, Future[Chunk]]] = deque()
        most, done, told = self.used.used, 0, 0
        with ThreadPoolExecutor(cores, thread_name_prefix="publish") as pool:
            try:
                for index in touched(self.used.extents, self._chunk_size):
                    waiting.append((index, pool.submit(self._chunk, index)))
                    if len(waiting) > cores * AHEAD:
                        at, future = waiting.popleft()
                        yield at, future.result()
                        done += self._chunk_size
                        if done - told >= 4 << 20:
                            told = done
                            tell("store", before + min(done, most), total)
                while waiting:
                    at, future = waiting.popleft()
                    yield at, future.result()
            finally:
                for _, future in waiting:
                    future.cancel()

    def _chunk(self, index: int) -> Chunk:
        start = index * self._chunk_size
        length = chunk_length(index, self.size, self._chunk_size)
        if not overlap(self._data, start, length):
            return Chunk()
        raw = os.pread(self._fd, length, start)
        if len(raw) != length:
            raise ImageError(f"the image file ended at {start + len(raw)} while it was read")
        raw = blanked(raw, start, gaps(self.used.extents, start, length))
        if raw == (self._zero if length == self._chunk_size else bytes(length)):
            return Chunk()
        name = chunk_hash(raw)
        for index_of in self._known:
            found = index_of.find(name)
            if found and found[2] == length:
                return Chunk(name, length, place=(index_of.pack, found[0], found[1]))
        if self._writer.find(name):  # two workers may still compress the same chunk at once; the writer keeps one
            return Chunk(name, length)
        return Chunk(name, length, frame=zstd.compress(raw, self._level))


class Runs:
    """Turns chunks in disk order into runs; a data run is one stretch of one pack: one HTTP range fetches it."""

    def __init__(self, writer: PackWriter, packs: list[str]) -> None:
        """`packs` is shared by the partitions of a version; "" in it stands for the pack being written, whose name is
        known at the end."""
        self._writer = writer
        self._next = 0
        self._packs = packs
        self._runs: list[Run] = []
        self._kind: Kind | None = None
        self._start = 0
        self._pack, self._offset, self._end = 0, 0, 0
        self._names: list[tuple[bytes, int]] = []

    def add(self, index: int, chunk: Chunk) -> None:
        """Take the next chunk; those skipped since the last one are free."""
        self.free_to(index)
        if not chunk.name:
            self._extend(Kind.ZERO, index)
            self._next = index + 1
            return
        pack, offset, frame = chunk.place or self._written(chunk)
        if pack not in self._packs:
            self._packs.append(pack)
        number = self._packs.index(pack)
        if self._kind is not Kind.DATA or number != self._pack or offset != self._end:
            self._close(index)
            self._kind, self._pack, self._offset, self._end = Kind.DATA, number, offset, offset
        self._names.append((chunk.name, frame))
        self._end += frame
        self._next = index + 1

    def free_to(self, index: int) -> None:
        """Count all chunks before `index` that were not given as free."""
        if index > self._next:
            self._extend(Kind.FREE, self._next)
            self._next = index

    def result(self, chunks: int) -> list[Run]:
        """The runs of a partition of so many chunks."""
        self.free_to(chunks)
        self._close(self._next)
        return self._runs

    def _written(self, chunk: Chunk) -> tuple[str, int, int]:
        found = self._writer.find(chunk.name)
        if found is None:
            assert chunk.frame, "a worker leaves the frame out only if it is written already"
            return "", self._writer.add(chunk.name, chunk.frame, chunk.length), len(chunk.frame)
        return "", *found

    def _extend(self, kind: Kind, index: int) -> None:
        if self._kind is not kind:
            self._close(index)
            self._kind = kind

    def _close(self, index: int) -> None:
        if self._kind is not None and index > self._start:
            data = self._kind is Kind.DATA
            self._runs.append(
                Run(
                    self._kind,
                    self._start,
                    index - self._start,
                    self._pack if data else 0,
                    self._offset if data else 0,
                    tuple(self._names) if data else (),
                )
            )
        self._kind, self._start, self._names = None, index, []
