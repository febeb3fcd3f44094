"""Packs read from front to end, once, while every frame in them is compared with its hash."""

from __future__ import annotations

import hashlib
import os
import threading
from collections.abc import Iterator, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING

from images import zstd
from images.chunk import chunk_hash
from images.errors import ChunkInvalid
from images.keeping.damage import MAX_DAMAGE, Damage, told
from images.keeping.usage import Frame, Use, used_frames, users
from images.options import Progress
from images.packs import BLOCK, PackIndex, write_mark

if TYPE_CHECKING:
    from images.store import Store

BATCH = 4 << 20  # bytes of frames a worker gets at once


class Reader:
    """Reads packs from front to end, once; workers check the frames meanwhile."""

    def __init__(self, store: Store, packs: Sequence[str], progress: Progress | None = None) -> None:
        """`packs` are there; `progress` as for `verify`."""
        self._store, self._progress = store, progress
        self._packs = list(packs)
        self.total = sum(store.pack_path(pack).stat().st_size for pack in packs)
        self.more = 0
        self._done = 0
        self._used = used_frames(store, packs)
        self._spoilt: dict[str, dict[Frame, str]] = {pack: {} for pack in packs}
        self._whole: dict[str, tuple[str, int]] = {}  # pack -> what is wrong with it, and from which byte on
        self._indexes: list[Damage] = []
        self._lock = threading.Lock()

    def batches(self) -> Iterator[list[tuple[str, Frame, bytes]]]:
        """Frames with their bytes, a few MiB at once, while the packs themselves are hashed."""
        for pack in self._packs:
            yield from self._read(pack)

    def check(self, batches: Iterator[list[tuple[str, Frame, bytes]]]) -> None:
        """Compare the chunks of batches with their hashes."""
        for batch in batches:
            for pack, frame, data in batch:
                try:
                    raw = zstd.decompress(data, frame[2])
                    what = "" if len(raw) == frame[2] and chunk_hash(raw) == frame[3] else "does not match its hash"
                except ChunkInvalid as error:
                    what = error.message
                if what:
                    self._bad(pack, frame, what)

    def finish(self) -> None:
        """Note what was found beside the packs. Where the disk cannot be written, nothing is noted."""
        for pack in self._packs:
            spoilt = self._spoilt[pack]
            offsets = {frame[0] for frame in spoilt} if len(spoilt) < MAX_DAMAGE else None
            with suppress(OSError):
                write_mark(self._store.packs, pack, offsets)
        if self._progress:
            self._progress("verify", self.total, self.total)

    def findings(self) -> list[Damage]:
        """Everything that was found, with the versions it touches."""
        found = list(self._indexes)
        for pack in self._packs:
            file, spoilt = f"packs/{pack}.pack", self._spoilt[pack]
            what, start = self._whole.get(pack, ("", -1))
            uses = users(self._store, pack, {frame[0] for frame in spoilt}) if spoilt else []
            by_offset: dict[int, list[Use]] = {}
            for use in uses:
                by_offset.setdefault(use.offset, []).append(use)
            if what and (start >= 0 or not spoilt):
                touched = users(self._store, pack) if start >= 0 else uses
                refs = tuple(dict.fromkeys(use.ref for use in touched if use.end > start))
                found.append(Damage(file, what, refs, offset=start))
            for frame, wrong in sorted(spoilt.items()):
                if frame[0] + frame[1] > start >= 0:
                    continue  # it is behind the end, which is told already
                places = by_offset.get(frame[0], [])
                refs = tuple(dict.fromkeys(use.ref for use in places))
                role, chunk = (places[0].role, places[0].chunk) if places else ("", -1)
                found.append(Damage(file, wrong, refs, role, chunk, frame[0], frame[1]))
        return found

    def _read(self, pack: str) -> Iterator[list[tuple[str, Frame, bytes]]]:
        try:
            fd = os.open(self._store.pack_path(pack), os.O_RDONLY | os.O_CLOEXEC)
        except OSError as error:
            self._whole[pack] = (f"cannot be read: {error.strerror}", -1)
            return
        try:
            size = os.fstat(fd).st_size
            indexed = self._index(pack)
            running, at, held = hashlib.sha256(), 0, 0
            batch: list[tuple[str, Frame, bytes]] = []
            for frame in sorted(self._used[pack] | indexed):
                if frame[0] + frame[1] > size:
                    self._whole[pack] = (f"ends after {size} bytes", size)
                    self._bad(pack, frame, "", count=False)
                    continue
                while at < frame[0]:
                    at += self._pass(pack, fd, running, at, min(BLOCK, frame[0] - at))
                try:
                    data = os.pread(fd, frame[1], frame[0])
                except OSError as error:
                    self._bad(pack, frame, f"cannot be read: {error.strerror}")
                    data = bytes(frame[1])
                batch.append((pack, frame, data))
                if frame[0] == at:  # another frame may overlap this one: then these bytes were seen
                    running.update(data)
                    at += frame[1]
                    self._count(frame[1])
                held += len(data)
                if held >= BATCH:
                    yield batch
                    batch, held = [], 0
            while at < size:
                at += self._pass(pack, fd, running, at, min(BLOCK, size - at))
            yield batch
            if running.hexdigest() != pack:
                self._whole.setdefault(pack, ("its bytes do not match its name, though its chunks are right", -1))
        finally:
            os.close(fd)

    def _pass(self, pack: str, fd: int, running: hashlib._Hash, at: int, length: int) -> int:
        """Hash bytes that no frame covers."""
        try:
            running.update(os.pread(fd, length, at))
        except OSError as error:
            self._whole[pack] = (f"cannot be read at byte {at}: {error.strerror}", -1)
        self._count(length)
        return length

    def _index(self, pack: str) -> set[Frame]:
        """The frames the pack's index names; what is wrong with the index is noted."""
        file = f"packs/{pack}.idx"
        try:
            data = (self._store.packs / f"{pack}.idx").read_bytes()
            frames = {(offset, frame, raw, name) for name, offset, frame, raw in PackIndex(pack, data).entries()}
        except FileNotFoundError:
            what = "is missing: new versions cannot share the pack's chunks"
            self._indexes.append(Damage(file, what))
            return set()
        except (ChunkInvalid, OSError) as error:
            self._indexes.append(Damage(file, told(error)))
            return set()
        used = self._used[pack]
        places = {frame[0]: frame for frame in used}
        if any(places.get(frame[0], frame) != frame for frame in frames):
            self._indexes.append(Damage(file, "does not agree with the runs of the versions"))
            return set()
        return frames - used

    def _bad(self, pack: str, frame: Frame, what: str, *, count: bool = True) -> None:
        """Note a frame, with the first thing that was wrong with it."""
        with self._lock:
            if len(self._spoilt[pack]) < MAX_DAMAGE:
                self._spoilt[pack].setdefault(frame, what)
            elif count:
                self.more += 1

    def _count(self, length: int) -> None:
        self._done += length
        if self._progress:
            self._progress("verify", min(self._done, self.total), self.total)
