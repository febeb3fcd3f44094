"""The one way an image file becomes a version: check, map, chunk, hash, compress what is new, rename."""

from __future__ import annotations

import os
import time
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from images import ext4, zstd
from images.chunk import CHUNK_SIZE, chunk_count, chunk_hash, chunk_length
from images.disk import disk_errors
from images.errors import ChunkInvalid, ChunkMissing, ImageError
from images.manifest import Kind, Manifest, Partition, Run, digest, encode_manifest, encode_runs, used_bytes
from images.packs import PackIndex, PackWriter, read_index
from images.store import Progress, Store
from images.usedmap import UsedMap, data_extents, gaps, overlap, used_map

LEVEL = 3  # zstd; measured on a 0.8 GB Debian image: 1 stores 9 % more, 9 stores 5.5 % less for 3.2 times the time
AHEAD = 8  # chunks in work for each core: bounds memory, hides the disk


@dataclass(frozen=True)
class Facts:
    """What is known about the tree inside the image file, for the manifest."""

    arch: str = "amd64"
    cmdline: str = ""
    system: dict[str, Any] = field(default_factory=dict)
    checks: tuple[dict[str, Any], ...] = ()
    source: dict[str, Any] = field(default_factory=dict)
    message: str = ""


@dataclass(frozen=True, slots=True)
class _Chunk:
    """One chunk as a worker leaves it: zero if `name` is empty; `place` if an older pack has it, else `frame`."""

    name: bytes = b""
    length: int = 0
    place: tuple[str, int, int] | None = None
    frame: bytes = b""


def publish(
    store: Store,
    name: str,
    image_file: Path,
    *,
    fs: str = "ext4",
    role: str = "root",
    facts: Facts | None = None,
    level: int = LEVEL,
    chunk_size: int = CHUNK_SIZE,
    tag: bool = False,
    progress: Progress | None = None,
) -> Manifest:
    """Publish `image_file`, an unmounted filesystem, as the next version of the lineage `name`.

    The file is checked (e2fsck -fp for ext) and its free blocks are punched out, so it is changed, but not in meaning.
    Free blocks inside a chunk that holds data are published as zeros: deleted files never leave the head. The tag is
    set to the new version if `tag` is wished or the lineage has none. `progress` hears ("check" | "map" | "store",
    done, total). The caller holds the lineage's lock (`Store.lineage_lock`).
    Raises ImageError for a filesystem that is not sound, NoSpace with nothing half-written."""
    facts = facts or Facts()
    tell = progress or (lambda phase, done, total: None)
    tell("check", 0, 1)
    identity = ext4.check(image_file) if fs == "ext4" else ext4.Identity("", "")
    tell("check", 1, 1)
    number = store.next_version(name)
    known = _known(store, name)
    with disk_errors(f"publishing {name}:{number}"), image_file.open("r+b") as file:
        size = os.fstat(file.fileno()).st_size
        if size == 0:
            raise ImageError(f"publishing {name}: {image_file} is empty")
        tell("map", 0, 1)
        used = used_map(file.fileno(), size, fs)
        ext4.punch(file.fileno(), gaps(used.extents, 0, size))
        data = data_extents(file.fileno(), size)
        tell("map", 1, 1)
        with PackWriter(store.packs) as writer:
            builder = _Runs(writer)
            work = _Work(file.fileno(), size, chunk_size, used, data, known, writer, level)
            for index, chunk in work.chunks(tell):
                builder.add(index, chunk)
            builder.free_to(chunk_count(size, chunk_size))
            pack = writer.finish() if writer.size else ""
    runs, pack_names = builder.result(pack)
    encoded = encode_runs(runs, size, chunk_size)
    partition = Partition(
        role=role,
        fs=fs,
        uuid=identity.uuid,
        label=identity.label,
        size=size,
        used=used_bytes(runs, size, chunk_size),
        runs_sha256=digest(encoded),
        runs_bytes=len(encoded),
    )
    have = store.versions(name)
    manifest = Manifest(
        name=name,
        version=number,
        parent=have[-1] if have else 0,
        created=int(time.time()),
        arch=facts.arch,
        chunk_size=chunk_size,
        packs=pack_names,
        partitions=(partition,),
        message=facts.message,
        cmdline=facts.cmdline,
        system=facts.system,
        checks=facts.checks,
        source=facts.source,
    )
    store.add_version(encode_manifest(manifest), name, number, encoded)
    if tag or not store.tag(name):
        store.set_tag(name, number)
    return manifest


def _known(store: Store, name: str) -> list[PackIndex]:
    """Indexes of the packs the lineage's versions use, newest first. A lost or damaged one is left out: its chunks are
    then stored anew, which heals the next version."""
    wanted: dict[str, None] = {}
    for number in reversed(store.versions(name)):
        for pack in store.load(f"{name}:{number}")[0].packs:
            wanted[pack] = None
    found = []
    for pack in wanted:
        try:
            if store.pack_path(pack).exists():
                found.append(read_index(store.packs, pack))
        except (ChunkMissing, ChunkInvalid):
            continue
    return found


class _Work:
    """Reads, hashes and compresses chunks on all cores; results come in disk order."""

    def __init__(
        self,
        fd: int,
        size: int,
        chunk_size: int,
        used: UsedMap,
        data: list[tuple[int, int]],
        known: list[PackIndex],
        writer: PackWriter,
        level: int,
    ) -> None:
        self._fd, self._size, self._chunk_size, self._level = fd, size, chunk_size, level
        self._used, self._data, self._known = used, data, known
        self._zero = bytes(chunk_size)
        self._writer = writer

    def chunks(self, tell: Progress) -> Iterator[tuple[int, _Chunk]]:
        """(index, chunk) of every chunk that holds a used byte, ascending."""
        cores = os.cpu_count() or 1
        waiting: deque[tuple[int, Future[_Chunk]]] = deque()
        total, done, told = self._used.used, 0, 0
        with ThreadPoolExecutor(cores, thread_name_prefix="publish") as pool:
            try:
                for index in self._indexes():
                    waiting.append((index, pool.submit(self._chunk, index)))
                    if len(waiting) > cores * AHEAD:
                        at, future = waiting.popleft()
                        yield at, future.result()
                        done += self._chunk_size
                        if done - told >= 4 << 20:
                            told = done
                            tell("store", min(done, total), total)
                while waiting:
                    at, future = waiting.popleft()
                    yield at, future.result()
            finally:
                for _, future in waiting:
                    future.cancel()
        tell("store", total, total)

    def _indexes(self) -> Iterator[int]:
        """Indexes of the chunks that a used stretch touches."""
        following = 0
        for start, length in self._used.extents:
            first, last = start // self._chunk_size, (start + length - 1) // self._chunk_size
            yield from range(max(first, following), last + 1)
            following = max(following, last + 1)

    def _chunk(self, index: int) -> _Chunk:
        start = index * self._chunk_size
        length = chunk_length(index, self._size, self._chunk_size)
        if not overlap(self._data, start, length):
            return _Chunk()
        raw = os.pread(self._fd, length, start)
        if len(raw) != length:
            raise ImageError(f"the image file ended at {start + len(raw)} while it was read")
        free = gaps(self._used.extents, start, length)
        if free:
            masked = bytearray(raw)
            for at, count in free:
                masked[at - start : at - start + count] = bytes(count)
            raw = bytes(masked)
        if raw == (self._zero if length == self._chunk_size else bytes(length)):
            return _Chunk()
        name = chunk_hash(raw)
        for index_of in self._known:
            found = index_of.find(name)
            if found and found[2] == length:
                return _Chunk(name, length, place=(index_of.pack, found[0], found[1]))
        if self._writer.find(name):  # two workers may still compress the same chunk at once; the writer keeps one
            return _Chunk(name, length)
        return _Chunk(name, length, frame=zstd.compress(raw, self._level))


class _Runs:
    """Turns chunks in disk order into runs; a data run is one stretch of one pack: one HTTP range fetches it."""

    def __init__(self, writer: PackWriter) -> None:
        self._writer = writer
        self._next = 0
        self._packs: list[str] = []  # "" stands for the pack being written, whose name is known at the end
        self._runs: list[Run] = []
        self._kind: Kind | None = None
        self._start = 0
        self._pack, self._offset, self._end = 0, 0, 0
        self._names: list[tuple[bytes, int]] = []

    def add(self, index: int, chunk: _Chunk) -> None:
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

    def result(self, pack: str) -> tuple[list[Run], tuple[str, ...]]:
        """The runs and the packs they number; `pack` is the name of the pack just written."""
        self._close(self._next)
        return self._runs, tuple(name or pack for name in self._packs)

    def _written(self, chunk: _Chunk) -> tuple[str, int, int]:
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
