"""The one way image files become a version: check, map, chunk, hash, compress what is new, rename."""

from __future__ import annotations

import os
import time
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from images import ext4, zstd
from images.chunk import CHUNK_SIZE, chunk_count, chunk_hash, chunk_length
from images.disk import disk_errors
from images.errors import ChunkInvalid, ChunkMissing, ImageError
from images.manifest import Kind, Manifest, Partition, Run, digest, encode_manifest, encode_runs, used_bytes
from images.options import LEVEL, Progress
from images.packs import PackIndex, PackWriter, read_index
from images.store import NAME, Store
from images.usedmap import data_extents, gaps, overlap, used_map

AHEAD = 8  # chunks in work for each core: bounds memory, hides the disk


@dataclass(frozen=True)
class Part:
    """One partition's working image: a raw, sparse file with a filesystem that is not mounted. `mount` is its place in
    the tree, empty if it has none. ext filesystems tell `uuid` and `label` themselves."""

    role: str
    file: Path
    fs: str = "ext4"
    mount: str = "/"
    uuid: str = ""
    label: str = ""


@dataclass(frozen=True)
class Facts:
    """What is known about the tree inside the image files, for the manifest. `parent` 0 stands for the newest."""

    arch: str = "amd64"
    cmdline: str = ""
    system: dict[str, Any] = field(default_factory=dict)
    checks: tuple[dict[str, Any], ...] = ()
    source: dict[str, Any] = field(default_factory=dict)
    message: str = ""
    parent: int = 0


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
    parts: Sequence[Part],
    *,
    facts: Facts | None = None,
    level: int = LEVEL,
    chunk_size: int = CHUNK_SIZE,
    tag: bool = False,
    progress: Progress | None = None,
) -> Manifest:
    """Publish `parts`, unmounted filesystems of one system, as the next version of the lineage `name`.

    The files are checked (e2fsck -fp for ext) and their free blocks are punched out, so they are changed, but not in
    meaning. Free blocks inside a chunk that holds data are published as zeros: deleted files never leave the head. The
    tag is set to the new version if `tag` is wished or the lineage has none. `progress` hears ("check" | "map" |
    "store", done, total). The caller holds the lineage's lock (`Store.lineage_lock`).
    Raises ImageError for a filesystem that is not sound, NoSpace with nothing half-written."""
    facts = facts or Facts()
    tell = progress or (lambda phase, done, total: None)
    roles = [part.role for part in parts]
    if not parts or len(set(roles)) != len(roles) or not all(NAME.fullmatch(role) for role in roles):
        raise ImageError(f"publishing {name}: {', '.join(roles) or 'nothing'} cannot be the partitions of an image")
    sound = [_sound(part, tell) for part in parts]
    number = store.next_version(name)
    known = _known(store, name)
    tell("map", 0, 1)
    with disk_errors(f"publishing {name}:{number}"), ExitStack() as files, PackWriter(store.packs) as writer:
        works = []
        for part in sound:
            file = files.enter_context(part.file.open("r+b"))
            works.append(_Work(file.fileno(), name, part, chunk_size, known, writer, level))
        tell("map", 1, 1)
        total, before = sum(work.used.used for work in works), 0
        packs: list[str] = []
        built: list[list[Run]] = []
        for work in works:
            builder = _Runs(writer, packs)
            for index, chunk in work.chunks(tell, before, total):
                builder.add(index, chunk)
            built.append(builder.result(chunk_count(work.size, chunk_size)))
            before += work.used.used
        tell("store", total, total)
        pack = writer.finish() if writer.size else ""
    encoded = [encode_runs(runs, work.size, chunk_size) for runs, work in zip(built, works, strict=True)]
    have = store.versions(name)
    manifest = Manifest(
        name=name,
        version=number,
        parent=facts.parent or (have[-1] if have else 0),
        created=int(time.time()),
        arch=facts.arch,
        chunk_size=chunk_size,
        packs=tuple(known_pack or pack for known_pack in packs),
        partitions=tuple(
            Partition(
                role=part.role,
                fs=part.fs,
                uuid=part.uuid,
                label=part.label,
                size=work.size,
                used=used_bytes(runs, work.size, chunk_size),
                runs_sha256=digest(data),
                runs_bytes=len(data),
            )
            for part, work, runs, data in zip(sound, works, built, encoded, strict=True)
        ),
        message=facts.message,
        cmdline=facts.cmdline,
        system=facts.system,
        checks=facts.checks,
        source=facts.source,
    )
    store.add_version(encode_manifest(manifest), name, number, b"".join(encoded))
    if tag or not store.tag(name):
        store.set_tag(name, number)
    return manifest


def _sound(part: Part, tell: Progress) -> Part:
    """The part with its filesystem checked, where it is ext, and its own name for itself."""
    if part.fs not in ext4.KINDS:
        return part
    tell("check", 0, 1)
    identity = ext4.check(part.file)
    tell("check", 1, 1)
    return replace(part, uuid=identity.uuid, label=identity.label)


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
        self, fd: int, name: str, part: Part, chunk_size: int, known: list[PackIndex], writer: PackWriter, level: int
    ) -> None:
        """Map the file open at `fd` and punch its free stretches out."""
        self._fd, self._chunk_size, self._level = fd, chunk_size, level
        self._known, self._writer = known, writer
        self.size = os.fstat(fd).st_size
        if self.size == 0:
            raise ImageError(f"publishing {name}: {part.file} is empty")
        self.used = used_map(fd, self.size, part.fs)
        ext4.punch(fd, gaps(self.used.extents, 0, self.size))
        self._data = data_extents(fd, self.size)
        self._zero = bytes(chunk_size)

    def chunks(self, tell: Progress, before: int, total: int) -> Iterator[tuple[int, _Chunk]]:
        """(index, chunk) of every chunk that holds a used byte, ascending. `before` bytes of `total` are done."""
        cores = os.cpu_count() or 1
        waiting: deque[tuple[int, Future[_Chunk]]] = deque()
        most, done, told = self.used.used, 0, 0
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
                            tell("store", before + min(done, most), total)
                while waiting:
                    at, future = waiting.popleft()
                    yield at, future.result()
            finally:
                for _, future in waiting:
                    future.cancel()

    def _indexes(self) -> Iterator[int]:
        """Indexes of the chunks that a used stretch touches."""
        following = 0
        for start, length in self.used.extents:
            first, last = start // self._chunk_size, (start + length - 1) // self._chunk_size
            yield from range(max(first, following), last + 1)
            following = max(following, last + 1)

    def _chunk(self, index: int) -> _Chunk:
        start = index * self._chunk_size
        length = chunk_length(index, self.size, self._chunk_size)
        if not overlap(self._data, start, length):
            return _Chunk()
        raw = os.pread(self._fd, length, start)
        if len(raw) != length:
            raise ImageError(f"the image file ended at {start + len(raw)} while it was read")
        free = gaps(self.used.extents, start, length)
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

    def result(self, chunks: int) -> list[Run]:
        """The runs of a partition of so many chunks."""
        self.free_to(chunks)
        self._close(self._next)
        return self._runs

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
