"""Brings a partition onto a disk or into a file: fetch, decompress, check, write, in parallel and in any order.

Nothing is written that does not match its hash. The partition's first chunk is zeroed before anything else and written
after everything else has been flushed and read back, so a half-written disk never looks like a filesystem. Memory: two
buffers of one range for every worker, whatever the image's size.
"""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections.abc import Callable, Iterator, Sequence

from images.chunk import chunk_hash, chunk_length
from images.compare import held_chunks, read_back
from images.device import Device
from images.errors import ChunkInvalid, TargetFailed
from images.fetch import Fetcher, Source
from images.manifest import Run
from images.reassemble import MAX_RAW, Fetch, Work, Zero, plan_restore, raw_length
from images.workers import Cancelled, Workers
from images.zstd import decompress_into

__all__ = ["VERIFIES", "Cancelled", "Progress", "restore"]

VERIFIES = ("none", "sample", "full")
HASH_TRIES = 3
# bytes of all workers' raw buffers; what they fetch is at most as large again. Measured: 4 workers are resident with 49
# to 56 MB, Python included, 6 with 72 MB and no faster.
MEMORY = 20 << 20
TELL = 0.2  # seconds between two calls of a progress function

Progress = Callable[[int, int], None]  # raw bytes of the target that are right, compressed bytes fetched


def restore(
    path: str,
    role: str,
    runs: Sequence[Run],
    size: int,
    chunk_size: int,
    packs: Sequence[str],
    source: Source,
    *,
    held: bool = False,
    verify: str = "sample",
    workers: int = 0,
    cancel: threading.Event | None = None,
    progress: Progress | None = None,
) -> Work:
    """Bring `runs` onto the device or file `path` and return what was done.

    `size` is the partition's in bytes, `packs` their sha256 in the order the runs number them. With `held` the target
    is read first and what is right is kept: a re-image, or an interrupted restore again. `verify` is how much of what
    was written is read back: "none", "sample" or "full". `workers` 0 means two more than there are processors, since
    some always wait for the network or the disk. `progress` is called at most five times a second, and at the end.
    Raises TargetTooSmall, TargetFailed (names the disk), ChunkInvalid or ChunkMissing (name pack and offset),
    Cancelled. Whatever is raised once writing has begun, the partition's first chunk is then zero.
    """
    if verify not in VERIFIES:
        raise ValueError(f"verify is one of {', '.join(VERIFIES)}, not {verify!r}")
    count = workers or (os.cpu_count() or 1) + 2
    count = max(1, min(count, MEMORY // max(MAX_RAW, chunk_size)))
    with contextlib.closing(Device(path, size, chunk_size)) as device:
        job = _Job(device, role, packs, source, count, cancel, progress)
        right = held_chunks(device, runs, count, cancel=cancel, found=job.count) if held else frozenset[int]()
        work = plan_restore(runs, size, chunk_size, held=right)
        if work.items or work.last:
            if 0 in right:  # it is what makes a filesystem one, so it may not stay while the rest is written
                right -= {0}
                work = plan_restore(runs, size, chunk_size, held=right)
            job.done = work.kept
            device.zero(0, 1)
            device.flush()
            job.carry_out(work.items)
            device.flush()
            if verify != "none":
                read_back(device, role, runs, count, full=verify == "full", without=right | {0}, cancel=cancel)
            with _blanked_again(device):
                job.carry_out(work.last)
                device.flush()
                if verify != "none":
                    others = range(1, runs[0].count)
                    read_back(device, role, runs[:1], 1, full=False, without=others)
        job.tell(force=True)
        return work


@contextlib.contextmanager
def _blanked_again(device: Device) -> Iterator[None]:
    """Whatever goes wrong with the first chunk, written by half or not kept, it is made zero again."""
    try:
        yield
    except BaseException:
        with contextlib.suppress(TargetFailed):
            device.zero(0, 1)
            device.flush()
        raise


class _Job:
    """What the workers share: where to, where from, and how far it has come."""

    def __init__(
        self,
        device: Device,
        role: str,
        packs: Sequence[str],
        source: Source,
        workers: int,
        cancel: threading.Event | None,
        progress: Progress | None,
    ) -> None:
        self._device, self._role, self._packs, self._source = device, role, packs, source
        self._workers = Workers(workers, f"writing {device.path}", cancel)
        self._progress = progress
        self.done = self.came = self._most = 0
        self._lock = threading.Lock()
        self._told = 0.0

    def carry_out(self, items: Sequence[Fetch | Zero]) -> None:
        """Do all of `items`, in any order."""
        if items:
            self._workers.share(items, self._work)

    def _work(self, handed: Iterator[Fetch | Zero]) -> None:
        device = self._device
        buffer = device.buffer(max(MAX_RAW, device.chunk_size))
        with contextlib.closing(self._source.open(self._workers.stopped)) as fetcher:
            for item in handed:
                if isinstance(item, Zero):
                    device.zero(item.start, item.count)
                    self.count(raw_length(item.start, item.count, device.size, device.chunk_size))
                else:
                    self._bring(item, fetcher, buffer)

    def _bring(self, fetch: Fetch, fetcher: Fetcher, buffer: memoryview) -> None:
        size, chunk_size = self._device.size, self._device.chunk_size
        pack = self._packs[fetch.pack]
        frames = fetcher.fetch(pack, fetch.offset, fetch.length)
        at, bad = 0, []
        for n, (name, length) in enumerate(fetch.chunks):
            raw = buffer[n * chunk_size : n * chunk_size + chunk_length(fetch.start + n, size, chunk_size)]
            if not _unpack(frames[at : at + length], name, raw):
                bad.append((n, fetch.offset + at, raw))
            at += length
        for n, offset, raw in bad:  # only now: another fetch may take the place of the frames
            self._again(fetcher, pack, offset, fetch.chunks[n], raw, fetch.start + n)
        whole = raw_length(fetch.start, len(fetch.chunks), size, chunk_size)
        self._device.write(buffer[:whole], fetch.start)
        self.count(whole, fetch.length)

    def _again(
        self, fetcher: Fetcher, pack: str, offset: int, chunk: tuple[bytes, int], raw: memoryview, number: int
    ) -> None:
        name, length = chunk
        for _ in range(HASH_TRIES - 1):
            fetcher.distrust()
            frame = fetcher.fetch(pack, offset, length)
            self.count(0, length)
            if _unpack(frame, name, raw):
                return
        raise ChunkInvalid(
            f"chunk {number} of {self._role} is damaged (pack {pack} at {offset}): fetched {HASH_TRIES} times",
            "on the head: gild.pyz image verify",
        )

    def count(self, done: int, came: int = 0) -> None:
        """So many raw bytes of the target are right now, so many compressed ones were fetched."""
        with self._lock:
            self.done += done
            self.came += came
        self.tell()

    def tell(self, *, force: bool = False) -> None:
        """Report progress, at most five times a second."""
        if self._progress is None:
            return
        with self._lock:  # one at a time, so that the caller never sees the figures go back
            now = time.monotonic()
            if force or now - self._told >= TELL:
                self._told = now
                # The first chunk counts as right while a re-image compares, and no more once it has been blanked.
                self._most = max(self._most, self.done)
                self._progress(self._most, self.came)


def _unpack(frame: memoryview, name: bytes, raw: memoryview) -> bool:
    """Fill `raw` with the content of `frame`; whether it is the chunk of that name."""
    try:
        return decompress_into(frame, raw) == len(raw) and chunk_hash(raw) == name
    except ChunkInvalid:
        return False
