"""What must be done to bring a partition onto a target: a checked list of fetch, zero and keep."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from images.chunk import chunk_count, chunk_length
from images.errors import ManifestInvalid
from images.manifest import Kind, Run

# Chunks of one fetch: 8 MiB of raw bytes at 256 KiB, about 3 MiB on the wire. Larger ranges gain nothing and cost
# every worker memory; smaller ones cost requests (measured: 0.13 ms of the server's processor each).
MAX_CHUNKS = 32
MAX_RAW = 8 << 20  # bytes


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

    `last` holds what touches the partition's first chunk: it is done after everything else, so that nothing half
    written looks like a filesystem.
    """

    fetches: tuple[Fetch, ...]
    zeros: tuple[Zero, ...]
    last: tuple[Fetch | Zero, ...]
    to_fetch: int
    to_write: int
    to_zero: int
    kept: int


def plan_restore(
    runs: Sequence[Run], size: int, chunk_size: int, *, held: Collection[int] = frozenset(), max_raw: int = MAX_RAW
) -> Work:
    """The work that brings `runs` onto a target which already holds the chunks numbered in `held`.

    `size` is the partition's in bytes. Neighbouring frames become one fetch of at most `max_raw` raw bytes. Raises
    ManifestInvalid if the runs do not tile the partition.
    """
    limit = max(1, min(MAX_CHUNKS, max_raw // chunk_size))
    fetches: list[Fetch] = []
    zeros: list[Zero] = []
    last: list[Fetch | Zero] = []
    at = kept = 0
    for run in runs:
        if run.start != at or run.count < 1:
            raise ManifestInvalid(f"runs do not tile the partition: chunk {at} follows {run.start}+{run.count}")
        at += run.count
        if run.kind is Kind.FREE:
            continue
        offset = run.offset
        for start, count in _wanted(run, held):
            first = start - run.start
            if run.kind is Kind.ZERO:
                head = 1 if start == 0 else 0
                last += [Zero(0, 1)] * head
                zeros += [Zero(start + head, count - head)] if count > head else []
                continue
            begin = offset + sum(length for _, length in run.chunks[:first])
            for piece in _pieces(start, count, limit):
                chunks = run.chunks[piece[0] - run.start : piece[0] - run.start + piece[1]]
                length = sum(frame for _, frame in chunks)
                fetch = Fetch(run.pack, begin, length, piece[0], chunks)
                (last if piece[0] == 0 else fetches).append(fetch)
                begin += length
        kept += sum(chunk_length(n, size, chunk_size) for n in range(run.start, at) if n in held) if held else 0
    if at != chunk_count(size, chunk_size):
        raise ManifestInvalid(f"runs cover {at} chunks of {chunk_count(size, chunk_size)}")
    work = [*fetches, *(item for item in last if isinstance(item, Fetch))]
    cleared = [*zeros, *(item for item in last if isinstance(item, Zero))]
    return Work(
        tuple(fetches),
        tuple(zeros),
        tuple(last),
        to_fetch=sum(fetch.length for fetch in work),
        to_write=sum(_raw(fetch.start, len(fetch.chunks), size, chunk_size) for fetch in work),
        to_zero=sum(_raw(zero.start, zero.count, size, chunk_size) for zero in cleared),
        kept=kept,
    )


def _wanted(run: Run, held: Collection[int]) -> list[tuple[int, int]]:
    """Stretches (start, count) of a run whose chunks are not held."""
    if not held:
        return [(run.start, run.count)]
    found: list[tuple[int, int]] = []
    for chunk in range(run.start, run.start + run.count):
        if chunk in held:
            continue
        if found and found[-1][0] + found[-1][1] == chunk:
            found[-1] = (found[-1][0], found[-1][1] + 1)
        else:
            found.append((chunk, 1))
    return found


def _pieces(start: int, count: int, limit: int) -> list[tuple[int, int]]:
    """Stretches of at most `limit` chunks; the partition's chunk 0 stands alone."""
    pieces = [(0, 1)] if start == 0 else []
    at, end = start + len(pieces), start + count
    while at < end:
        pieces.append((at, min(limit, end - at)))
        at += limit
    return pieces


def _raw(start: int, count: int, size: int, chunk_size: int) -> int:
    return (count - 1) * chunk_size + chunk_length(start + count - 1, size, chunk_size)
