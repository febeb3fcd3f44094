"""What must be done to bring a partition onto a target: a checked list of fetch, zero and keep."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate

from images.chunk import chunk_count, chunk_length
from images.errors import ManifestInvalid
from images.manifest import Kind, Run

# Raw bytes of one fetch. Measured with 4 workers: 2, 4 and 8 MiB are equally fast, 8 MiB needs 15 MB more memory, and
# every request costs the server 0.13 ms of its processor.
MAX_RAW = 4 << 20
MAX_ZERO = 64 << 20  # bytes zeroed by one call: 0.4 s on a slow disk, so that progress and cancelling stay alive


@dataclass(frozen=True, slots=True)
class Fetch:
    """One range of one pack: `length` bytes at `offset`, the frames of `chunks` (hash, frame length) from chunk
    `start` on."""

    pack: int
    offset: int
    length: int
    start: int
    chunks: tuple[tuple[bytes, int], ...]


@dataclass(frozen=True, slots=True)
class Zero:
    """Chunks that must read as zero."""

    start: int
    count: int


@dataclass(frozen=True)
class Work:
    """Everything to be done, in the order of the disk. Byte counts: `to_fetch` compressed, the others raw.

    `last` is what touches the partition's first chunk: it is done after everything else, so that nothing half written
    looks like a filesystem.
    """

    items: tuple[Fetch | Zero, ...]
    last: tuple[Fetch | Zero, ...]
    to_fetch: int
    to_write: int
    to_zero: int
    kept: int


def plan_restore(
    runs: Sequence[Run], size: int, chunk_size: int, *, held: Collection[int] = frozenset(), max_raw: int = MAX_RAW
) -> Work:
    """The work that brings `runs` onto a target which already holds the chunks numbered in `held`.

    `size` is the partition's in bytes. Neighbouring frames become one fetch of at most `max_raw` raw bytes, or of one
    chunk. Free runs are left alone. Raises ManifestInvalid if the runs do not tile the partition.
    """
    items: list[Fetch | Zero] = []
    at = kept = 0
    for run in runs:
        if run.start != at or run.count < 1 or (run.kind is Kind.DATA and len(run.chunks) != run.count):
            raise ManifestInvalid(f"runs do not tile the partition: chunk {at} follows {run.start}+{run.count}")
        at += run.count
        if run.kind is Kind.ZERO:
            items += [Zero(*piece) for piece in _missing(run, held, max(1, MAX_ZERO // chunk_size))]
        elif run.kind is Kind.DATA:
            offsets = list(accumulate((length for _, length in run.chunks), initial=run.offset))
            for start, count in _missing(run, held, max(1, max_raw // chunk_size)):
                first, after = start - run.start, start - run.start + count
                begin, end = offsets[first], offsets[after]
                items.append(Fetch(run.pack, begin, end - begin, start, run.chunks[first:after]))
        if held and run.kind is not Kind.FREE:
            kept += sum(chunk_length(n, size, chunk_size) for n in range(run.start, at) if n in held)
    if at != chunk_count(size, chunk_size):
        raise ManifestInvalid(f"runs cover {at} chunks of {chunk_count(size, chunk_size)}")
    fetches = [item for item in items if isinstance(item, Fetch)]
    zeros = [item for item in items if isinstance(item, Zero)]
    return Work(
        tuple(item for item in items if item.start),
        tuple(item for item in items if not item.start),
        to_fetch=sum(fetch.length for fetch in fetches),
        to_write=sum(raw_length(fetch.start, len(fetch.chunks), size, chunk_size) for fetch in fetches),
        to_zero=sum(raw_length(zero.start, zero.count, size, chunk_size) for zero in zeros),
        kept=kept,
    )


def raw_length(start: int, count: int, size: int, chunk_size: int) -> int:
    """Raw bytes of `count` chunks from `start` on in a partition of `size` bytes."""
    return min(size, (start + count) * chunk_size) - start * chunk_size


def _missing(run: Run, held: Collection[int], limit: int) -> Iterator[tuple[int, int]]:
    """Stretches (start, count) of a run's chunks that are not held, of at most `limit`; chunk 0 stands alone."""
    start, end = run.start, run.start + run.count
    while start < end:
        if start in held:
            start += 1
            continue
        stop = start + 1
        while start and stop < end and stop - start < limit and stop not in held:
            stop += 1
        yield start, stop - start
        start = stop
