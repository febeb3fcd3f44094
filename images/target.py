"""Brings a partition onto a disk or into a file: fetch, decompress, check, write, in parallel and in any order.

Nothing is written that does not match its hash. The partition's first chunk is zeroed before anything else and written
after everything else, so a half-written disk never looks like a filesystem. At the end the disk is flushed and read
back. Memory: a few buffers of one range each, whatever the image's size.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import mmap
import os
import queue
import stat
import struct
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

from images.chunk import chunk_hash, chunk_length
from images.errors import ChunkInvalid, ImageError, TargetFailed, TargetTooSmall
from images.fetch import Fetcher, Source
from images.manifest import Kind, Run
from images.reassemble import MAX_RAW, Fetch, Work, Zero, plan_restore
from images.zstd import decompress

BLKGETSIZE64 = 0x80081272  # linux/fs.h
BLKZEROOUT = 0x127F  # linux/fs.h: zeroes for certain, by the device's own command where it has one
FALLOC_PUNCH, FALLOC_KEEP = 0x02, 0x01  # linux/falloc.h
ALIGN = 4096  # bytes: what O_DIRECT wants of buffer, offset and length on every disk
HASH_TRIES = 3
SAMPLE = 16  # of the read-back "sample": every 16th chunk, and the ends of every run

Progress = Callable[[int, int], None]  # bytes of the target that are right, bytes fetched


class Cancelled(ImageError):
    """The caller wants no more of it."""


class Target:
    """An open block device or file of at least `size` bytes, written past the page cache where the system allows it:
    a machine of 512 MB must not drown in dirty pages."""

    def __init__(self, path: str, size: int, chunk_size: int) -> None:
        """Raises TargetTooSmall or TargetFailed."""
        self.path, self.size, self.chunk_size = path, size, chunk_size
        with self.failures("opening"):
            self.fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        self.direct = -1
        try:
            with self.failures("opening"):
                self.block = stat.S_ISBLK(os.fstat(self.fd).st_mode)
                room = self._room()
            if room < size:
                raise TargetTooSmall(f"{path} has {room} bytes, the image needs {size}")
        except BaseException:
            os.close(self.fd)
            raise
        if chunk_size % ALIGN == 0:
            with contextlib.suppress(OSError):  # tmpfs, for one, knows no O_DIRECT
                self.direct = os.open(path, os.O_RDWR | os.O_CLOEXEC | os.O_DIRECT)

    def _room(self) -> int:
        if not self.block:
            return os.fstat(self.fd).st_size
        answer = fcntl.ioctl(self.fd, BLKGETSIZE64, b"\0" * 8)
        return int(struct.unpack("Q", answer)[0])

    @contextlib.contextmanager
    def failures(self, act: str) -> Iterator[None]:
        """What the system refuses becomes a TargetFailed that names the disk."""
        try:
            yield
        except OSError as error:
            raise TargetFailed(f"{act} {self.path} failed: {os.strerror(error.errno or errno.EIO)}") from None

    def write(self, buffer: mmap.mmap, length: int, chunk: int) -> None:
        """Write the first `length` bytes of an aligned buffer where `chunk` begins."""
        offset, done = chunk * self.chunk_size, 0
        with self.failures("writing"), memoryview(buffer) as view:
            while done < length:
                # The tail of a partition may not be aligned; it goes through the page cache.
                fd = self.direct if self.direct >= 0 and not (length - done) % ALIGN and not done % ALIGN else self.fd
                with view[done:length] as rest:
                    done += os.pwrite(fd, rest, offset + done)

    def zero(self, start: int, count: int) -> None:
        """Make chunks read as zero. Discard is not enough: nothing promises what is read after it."""
        offset = start * self.chunk_size
        length = min(count * self.chunk_size, self.size - offset)
        with self.failures("zeroing"):
            try:
                if self.block:
                    fcntl.ioctl(self.fd, BLKZEROOUT, struct.pack("QQ", offset, length))
                    return
                _punch(self.fd, offset, length)
                return
            except OSError as error:
                if error.errno not in (errno.EOPNOTSUPP, errno.EINVAL, errno.ENOTTY, errno.ENOSYS):
                    raise
            blank = bytes(1 << 20)
            while length:
                done = os.pwrite(self.fd, memoryview(blank)[: min(length, len(blank))], offset)
                offset, length = offset + done, length - done

    def read(self, buffer: mmap.mmap, length: int, chunk: int) -> memoryview:
        """`length` bytes from where `chunk` begins, from the disk itself where O_DIRECT is to be had."""
        offset, done = chunk * self.chunk_size, 0
        with self.failures("reading"):
            fd = self.direct if self.direct >= 0 and not length % ALIGN else self.fd
            view = memoryview(buffer)
            while done < length:
                with view[done:length] as rest:
                    got = os.preadv(fd, [rest], offset + done)
                if not got:
                    raise OSError(errno.EIO, "short read")
                done += got
        return view[:length]

    def flush(self) -> None:
        """Everything written is on the disk after this, and no longer in the page cache."""
        with self.failures("flushing"):
            os.fsync(self.fd)
            os.posix_fadvise(self.fd, 0, 0, os.POSIX_FADV_DONTNEED)

    def close(self) -> None:
        """Give the device back."""
        for fd in (self.fd, self.direct):
            if fd >= 0:
                os.close(fd)
        self.fd = self.direct = -1


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
    workers: int = 4,
    cancel: threading.Event | None = None,
    progress: Progress | None = None,
) -> Work:
    """Bring `runs` onto the device or file `path` and return what was done.

    `size` is the partition's in bytes, `packs` their sha256 in the order the runs number them. With `held` the target
    is read first and what is right is kept: a re-image, or an interrupted restore again. `verify` is how much is read
    back at the end: "none", "sample" or "full". `progress` is called at most five times a second, and at the end.
    Raises TargetTooSmall, TargetFailed (names the disk), ChunkInvalid or ChunkMissing (name chunk, pack and offset),
    Cancelled; after any of them the partition's first chunk is zero.
    """
    target = Target(path, size, chunk_size)
    try:
        right = _held(target, runs, workers, cancel) if held else frozenset[int]()
        work = plan_restore(runs, size, chunk_size, held=right)
        job = _Job(
            target, role, work, packs, source, cancel or threading.Event(), progress or (lambda done, came: None)
        )
        if work.to_fetch or work.to_zero:
            # Chunk 0 counts as missing from here on, whatever it was: it is what makes a filesystem one.
            if 0 in right:
                work = job.work = plan_restore(runs, size, chunk_size, held=right - {0})
            target.zero(0, 1)
            target.flush()
            job.zero(work.zeros)
            job.run(work.fetches, workers)
            target.flush()
            for item in work.last:
                job.zero([item]) if isinstance(item, Zero) else job.run([item], 1)
            target.flush()
        if verify != "none":
            check(target, role, runs, full=verify == "full", workers=workers)
        job.tell(force=True)
        return work
    finally:
        target.close()


class _Job:
    """The pipeline's shared state: what is left, what was done, the first error."""

    def __init__(
        self,
        target: Target,
        role: str,
        work: Work,
        packs: Sequence[str],
        source: Source,
        cancel: threading.Event,
        progress: Progress,
    ) -> None:
        self.target, self.role, self.work, self.packs, self.source = target, role, work, packs, source
        self.cancel, self.progress = cancel, progress
        self.done, self.came = work.kept, 0
        self._lock = threading.Lock()
        self._told = 0.0
        self._error: BaseException | None = None

    def zero(self, zeros: Iterable[Zero]) -> None:
        """Zero runs, one after another: the device does it, or it is quick."""
        for zero in zeros:
            self._heed()
            self.target.zero(zero.start, zero.count)
            self._count(self._raw(zero.start, zero.count), 0)

    def run(self, fetches: Sequence[Fetch], workers: int) -> None:
        """All fetches, by several workers. The first error ends them all."""
        left: queue.SimpleQueue[Fetch] = queue.SimpleQueue()
        for fetch in fetches:
            left.put(fetch)
        count = min(workers, len(fetches))
        if count == 1:
            self._work(left)
        elif count:
            with ThreadPoolExecutor(count, "restore") as pool:
                for _ in range(count):
                    pool.submit(self._work, left)
        if self._error is not None:
            raise self._error

    def _work(self, left: queue.SimpleQueue[Fetch]) -> None:
        fetcher = None
        try:
            fetcher = self.source.open()
            with mmap.mmap(-1, max(MAX_RAW, self.target.chunk_size)) as buffer:
                while self._error is None:
                    try:
                        fetch = left.get_nowait()
                    except queue.Empty:
                        return
                    self._heed()
                    self._bring(fetch, fetcher, buffer)
        except BaseException as error:
            with self._lock:
                self._error = self._error or error
        finally:
            if fetcher is not None:
                fetcher.close()

    def _bring(self, fetch: Fetch, fetcher: Fetcher, buffer: mmap.mmap) -> None:
        pack = self.packs[fetch.pack]
        frames = fetcher.fetch(pack, fetch.offset, fetch.length)
        at = filled = 0
        bad: list[tuple[int, int, int]] = []  # chunk, where its frame is in the pack, where its bytes go
        for number, (name, length) in enumerate(fetch.chunks, fetch.start):
            raw = self._content(frames[at : at + length], name, number)
            expected = chunk_length(number, self.target.size, self.target.chunk_size)
            if raw is None:
                bad.append((number, fetch.offset + at, filled))
            else:
                buffer[filled : filled + expected] = raw
            at, filled = at + length, filled + expected
        for number, offset, where in bad:
            name, length = fetch.chunks[number - fetch.start]
            again = self._again(fetcher, pack, offset, length, name, number)
            buffer[where : where + len(again)] = again
        self.target.write(buffer, filled, fetch.start)
        self._count(filled, fetch.length)

    def _content(self, frame: memoryview, name: bytes, number: int) -> bytes | memoryview | None:
        expected = chunk_length(number, self.target.size, self.target.chunk_size)
        try:
            raw = decompress(frame, expected)
        except ChunkInvalid:
            return None
        return raw if len(raw) == expected and chunk_hash(raw) == name else None

    def _again(
        self, fetcher: Fetcher, pack: str, offset: int, length: int, name: bytes, number: int
    ) -> bytes | memoryview:
        for _ in range(HASH_TRIES - 1):
            raw = self._content(fetcher.fetch(pack, offset, length), name, number)
            self._count(0, length)
            if raw is not None:
                return raw
        raise ChunkInvalid(
            f"chunk {number} of {self.role} is damaged (pack {pack}, offset {offset}): fetched {HASH_TRIES} times",
            "on the head: gild.pyz image verify",
        )

    def _raw(self, start: int, count: int) -> int:
        last = chunk_length(start + count - 1, self.target.size, self.target.chunk_size)
        return (count - 1) * self.target.chunk_size + last

    def _heed(self) -> None:
        if self.cancel.is_set():
            raise Cancelled(f"writing {self.target.path} was cancelled")

    def _count(self, done: int, came: int) -> None:
        with self._lock:
            self.done += done
            self.came += came
        self.tell()

    def tell(self, *, force: bool = False) -> None:
        """Report progress, at most five times a second."""
        now = time.monotonic()
        with self._lock:
            if not force and now - self._told < 0.2:
                return
            self._told = now
            done, came = self.done, self.came
        self.progress(done, came)


def check(target: Target, role: str, runs: Sequence[Run], *, full: bool, workers: int = 4) -> None:
    """Read back what was written. Raises TargetFailed naming the first chunk that is not what it should be."""
    wanted = [(number, name) for number, name in _named(runs) if full or _sampled(number, runs_ends(runs))]
    right = _right(target, wanted, workers, None)
    wrong = next((number for number, _ in wanted if number not in right), None)
    if wrong is not None:
        raise TargetFailed(
            f"{target.path} did not keep what was written: chunk {wrong} of {role} reads differently",
            "the disk is failing, or is smaller than it says",
        )


def runs_ends(runs: Sequence[Run]) -> frozenset[int]:
    """First and last chunk of every run that has content."""
    kept = [run for run in runs if run.kind is not Kind.FREE]
    return frozenset(n for run in kept for n in (run.start, run.start + run.count - 1))


def _sampled(number: int, ends: frozenset[int]) -> bool:
    return number % SAMPLE == 0 or number in ends


def _named(runs: Sequence[Run]) -> Iterator[tuple[int, bytes]]:
    """(chunk, hash) of everything that counts; an empty hash stands for zeros."""
    for run in runs:
        if run.kind is Kind.DATA:
            for number, (name, _) in enumerate(run.chunks, run.start):
                yield number, name
        elif run.kind is Kind.ZERO:
            for number in range(run.start, run.start + run.count):
                yield number, b""


def _held(target: Target, runs: Sequence[Run], workers: int, cancel: threading.Event | None) -> frozenset[int]:
    return _right(target, list(_named(runs)), workers, cancel)


def _right(
    target: Target, wanted: Sequence[tuple[int, bytes]], workers: int, cancel: threading.Event | None
) -> frozenset[int]:
    """Which of `wanted` the target already holds."""
    stretches = [wanted[n : n + 64] for n in range(0, len(wanted), 64)]
    zero = bytes(target.chunk_size)

    def look(stretch: Sequence[tuple[int, bytes]]) -> list[int]:
        found = []
        with mmap.mmap(-1, target.chunk_size) as buffer:
            for number, name in stretch:
                if cancel is not None and cancel.is_set():
                    raise Cancelled(f"reading {target.path} was cancelled")
                length = chunk_length(number, target.size, target.chunk_size)
                with target.read(buffer, length, number) as data:
                    if (chunk_hash(data) == name) if name else (data == zero[:length]):
                        found.append(number)
        return found

    with ThreadPoolExecutor(workers, "compare") as pool:
        return frozenset(number for found in pool.map(look, stretches) for number in found)


def _punch(fd: int, offset: int, length: int) -> None:
    """fallocate(2) with FALLOC_FL_PUNCH_HOLE: os has posix_fallocate alone."""
    import ctypes

    libc = ctypes.CDLL(None, use_errno=True)
    libc.fallocate.argtypes = [ctypes.c_int, ctypes.c_int, ctypes.c_int64, ctypes.c_int64]
    if libc.fallocate(fd, FALLOC_PUNCH | FALLOC_KEEP, offset, length):
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
