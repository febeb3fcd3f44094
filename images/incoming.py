"""A golden client's partitions on their way in, chunk by chunk: what is known comes out of packs, the rest is sent.

The files lie in the lineage's `next` directory, and its lock is held from the first question to the version. Whatever
arrives is checked against its hash before it is written; what a partition may be is bounded when it is announced.
"""

from __future__ import annotations

import os
import shutil
import threading
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from images import working, zstd
from images.chunk import CHUNK_SIZE, chunk_count, chunk_hash, chunk_length
from images.disk import disk_errors
from images.errors import ChunkInvalid, ChunkMissing, NoSpace, SourceInvalid
from images.manifest import MAX_SIZE, Manifest
from images.options import Options
from images.publish import Part, known_packs
from images.store import Store

MAX_PARTS = 128
MAX_ASKED = 4096  # chunks whose bytes may be on their way at once: 2 GiB
RESERVE = 64 << 20  # bytes of the disk that a capture leaves

Sort = Callable[[dict[int, Part]], list[Part]]


@dataclass(frozen=True)
class Offered:
    """A partition of the golden client: its number there (0: a disk without a table), its bytes, its filesystem, and
    the bytes that are in use."""

    number: int
    size: int
    fs: str
    used: int
    uuid: str = ""
    label: str = ""


class Incoming:
    """One capture. Its methods may be called by several threads, `finish` and `abort` by one, once."""

    def __init__(self, store: Store, name: str, offered: Sequence[Offered]) -> None:
        """Take the lineage's lock and make room. Raises Busy, SourceInvalid for what cannot be partitions, NoSpace."""
        _check(offered)
        self.store, self.name, self.offered = store, name, {part.number: part for part in offered}
        self._lock = threading.Lock()
        self._asked: dict[tuple[int, int], bytes] = {}  # chunks that were lacking and have not come yet
        self._files: dict[int, int] = {}
        self.came = self.known = 0  # bytes of frames that were sent; raw bytes that were here already
        with ExitStack() as stack:
            stack.enter_context(store.lineage_lock(name))
            self._directory = stack.enter_context(working.staging(store.work(name) / "next"))
            with disk_errors(f"capturing {name}"):
                need = sum(part.used for part in offered) + RESERVE
                if shutil.disk_usage(self._directory).free < need:
                    raise NoSpace(f"capturing {name}: {need >> 20} MiB are needed", "free some space on the head")
                for part in offered:
                    fd = os.open(self._file(part.number), os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
                    self._files[part.number] = fd
                    stack.callback(self._close, part.number)
                    os.ftruncate(fd, part.size)
            self._packs = known_packs(store, name)
            self._held = stack.pop_all()

    def lacking(self, number: int, chunks: Sequence[tuple[int, bytes]]) -> list[int]:
        """Which of `chunks` (index, hash; an empty hash stands for zeros) the head does not have: they are to be sent.
        The others are in their place after this. Asking again is harmless. Raises SourceInvalid, NoSpace."""
        part, missing = self._part(number), []
        for index, name in chunks:
            length = self._length(part, index)
            if name and not self._from_pack(number, index, length, name):
                missing.append((index, name))
        with self._lock:
            self._asked.update({(number, index): name for index, name in missing})
            if len(self._asked) > MAX_ASKED:
                raise SourceInvalid(f"the capture has more than {MAX_ASKED} chunks on their way")
        return [index for index, _ in missing]

    def take(self, number: int, index: int, frame: bytes | memoryview) -> None:
        """The zstd frame of a chunk that was lacking. One that nobody waits for came twice, and is dropped.
        Raises SourceInvalid if it is not the chunk of that hash, NoSpace."""
        part = self._part(number)
        length = self._length(part, index)
        with self._lock:
            name = self._asked.get((number, index))
        if name is None:
            return
        try:
            raw = zstd.decompress(bytes(frame), length)
        except ChunkInvalid as error:
            raise SourceInvalid(f"chunk {index} of partition {number} is damaged: {error.message}") from None
        if len(raw) != length or chunk_hash(raw) != name:
            raise SourceInvalid(f"chunk {index} of partition {number} does not match its hash")
        self._write(number, index, raw)
        with self._lock:
            if self._asked.pop((number, index), None) is not None:
                self.came += len(frame)

    def finish(self, sort: Sort, options: Options, source: dict[str, Any]) -> Manifest:
        """Everything is here: publish it. `sort` gives the partitions their roles and mount points, and leaves out
        what does not belong into the image. Raises SourceInvalid if chunks are missing, and what publishing raises;
        the capture is over either way."""
        with self._held:
            if self._asked:
                raise SourceInvalid(f"{len(self._asked)} chunks of the capture have not come")
            with disk_errors(f"capturing {self.name}"):
                for number in list(self._files):
                    self._close(number)
                given = {
                    number: Part(f"part{number}", self._file(number), p.fs, "", p.uuid, p.label)
                    for number, p in self.offered.items()
                }
                parts = [self._named(part) for part in sort(given)]
                for left in set(self._directory.iterdir()) - {part.file for part in parts}:
                    left.unlink()
            return working.publish_candidate(self.store, self.name, parts, options, source=source)

    def abort(self) -> None:
        """Give everything back. Harmless after the end."""
        self._held.close()

    def _named(self, part: Part) -> Part:
        """The part with its file named after its role, as working images are."""
        return replace(part, file=part.file.rename(self._directory / f"{part.role}.img"))

    def _part(self, number: int) -> Offered:
        if number not in self.offered or number not in self._files:
            raise SourceInvalid(f"partition {number} is not part of this capture")
        return self.offered[number]

    def _length(self, part: Offered, index: int) -> int:
        if not 0 <= index < chunk_count(part.size, CHUNK_SIZE):
            raise SourceInvalid(f"partition {part.number} has no chunk {index}")
        return chunk_length(index, part.size, CHUNK_SIZE)

    def _from_pack(self, number: int, index: int, length: int, name: bytes) -> bool:
        for pack in self._packs:
            found = pack.find(name)
            if found and found[2] == length:
                try:
                    raw = self.store.read_chunk(pack.pack, found[0], found[1], length, name)
                except (ChunkMissing, ChunkInvalid):
                    continue
                self._write(number, index, raw)
                with self._lock:
                    self.known += length
                return True
        return False

    def _write(self, number: int, index: int, raw: bytes | memoryview) -> None:
        with disk_errors(f"capturing {self.name}"):
            view, at = memoryview(raw), index * CHUNK_SIZE
            while view:
                wrote = os.pwrite(self._files[number], view, at)
                view, at = view[wrote:], at + wrote

    def _file(self, number: int) -> Path:
        return self._directory / f"part{number}.img"

    def _close(self, number: int) -> None:
        fd = self._files.pop(number, -1)
        if fd >= 0:
            os.close(fd)


def _check(offered: Sequence[Offered]) -> None:
    numbers = [part.number for part in offered]
    if not offered or len(offered) > MAX_PARTS or len(set(numbers)) != len(numbers):
        raise SourceInvalid("the golden client has no partitions that could be captured")
    for part in offered:
        if not (0 < part.size <= MAX_SIZE and 0 <= part.used <= part.size and 0 <= part.number <= 1024):
            raise SourceInvalid(f"partition {part.number} of {part.size} bytes, {part.used} in use, is not possible")
