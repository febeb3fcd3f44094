"""What a device holds: which chunks of a partition are there already, and whether it kept what was written."""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection, Iterator, Sequence

from images.chunk import chunk_hash, chunk_length
from images.device import Device
from images.errors import TargetFailed
from images.manifest import Kind, Run
from images.reassemble import raw_length
from images.workers import Workers

READ = 4 << 20  # bytes read at once: on a rotating disk a seek then costs a quarter of the time at most
SAMPLE = 16  # "sample" reads back every 16th data chunk, and the ends of every run
UNREADABLE = 16  # failed reads that count as "not there"; a disk with more of them is broken

Wanted = tuple[int, bytes]  # chunk and its hash; empty stands for zeros


def held_chunks(
    device: Device,
    runs: Sequence[Run],
    workers: int,
    *,
    cancel: threading.Event | None = None,
    found: Callable[[int], None] = lambda count: None,
) -> frozenset[int]:
    """The chunks of `runs` that the device holds already; zero runs are read like the others. `found` hears of their
    bytes as it goes. A place that cannot be read counts as missing: writing makes a disk replace it.

    Raises TargetFailed if many places cannot be read, Cancelled."""
    failed: list[TargetFailed] = []

    def unreadable(error: TargetFailed) -> None:
        failed.append(error)
        if len(failed) > UNREADABLE:
            raise error

    return _right(device, list(_named(runs)), workers, cancel, found, unreadable)


def read_back(
    device: Device,
    role: str,
    runs: Sequence[Run],
    workers: int,
    *,
    full: bool,
    without: Collection[int] = frozenset(),
    cancel: threading.Event | None = None,
) -> None:
    """Check that the device kept what was written: everything (`full`) or a sample, except the chunks in `without`.

    The sample is the first and last chunk of every run and every 16th chunk of data. Raises TargetFailed naming the
    first chunk that reads differently, Cancelled."""
    wanted = [(n, name) for n, name in (_named(runs) if full else _sample(runs)) if n not in without]

    def unreadable(error: TargetFailed) -> None:
        raise error

    right = _right(device, wanted, workers, cancel, lambda count: None, unreadable)
    wrong = next((number for number, _ in wanted if number not in right), None)
    if wrong is not None:
        raise TargetFailed(
            f"{device.path} did not keep what was written: chunk {wrong} of {role} reads differently",
            "the disk is failing, or is smaller than it says",
        )


def _named(runs: Sequence[Run]) -> Iterator[Wanted]:
    """Everything that counts."""
    for run in runs:
        if run.kind is Kind.DATA:
            for number, (name, _) in enumerate(run.chunks, run.start):
                yield number, name
        elif run.kind is Kind.ZERO:
            for number in range(run.start, run.start + run.count):
                yield number, b""


def _sample(runs: Sequence[Run]) -> Iterator[Wanted]:
    for run in runs:
        last = run.count - 1
        if run.kind is Kind.DATA:
            for n, (name, _) in enumerate(run.chunks):
                if n in (0, last) or (run.start + n) % SAMPLE == 0:
                    yield run.start + n, name
        elif run.kind is Kind.ZERO:
            yield run.start, b""
            if last:
                yield run.start + last, b""


def _stretches(wanted: Sequence[Wanted], limit: int) -> Iterator[Sequence[Wanted]]:
    """Neighbouring chunks, at most `limit` together."""
    start = 0
    for end in range(1, len(wanted) + 1):
        if end == len(wanted) or wanted[end][0] != wanted[end - 1][0] + 1 or end - start == limit:
            yield wanted[start:end]
            start = end


def _right(
    device: Device,
    wanted: Sequence[Wanted],
    workers: int,
    cancel: threading.Event | None,
    found: Callable[[int], None],
    unreadable: Callable[[TargetFailed], None],
) -> frozenset[int]:
    """Which of `wanted` (ascending) the device holds."""
    size, chunk_size = device.size, device.chunk_size
    limit = max(1, READ // chunk_size)
    stretches = list(_stretches(wanted, limit))
    zeros = bytes(chunk_size)
    right: list[int] = []

    def look(handed: Iterator[Sequence[Wanted]]) -> None:
        buffer = device.buffer(limit * chunk_size)
        for stretch in handed:
            start = stretch[0][0]
            data = buffer[: raw_length(start, len(stretch), size, chunk_size)]
            try:
                device.read(data, start)
            except TargetFailed as error:
                unreadable(error)
                continue
            for number, name in stretch:
                at = (number - start) * chunk_size
                chunk = data[at : at + chunk_size]
                # Comparing bytes is one memcmp; comparing a memoryview goes item by item.
                if chunk_hash(chunk) == name if name else bytes(chunk) == zeros[: len(chunk)]:
                    right.append(number)
                    found(chunk_length(number, size, chunk_size))

    Workers(min(workers, len(stretches)), f"reading {device.path}", cancel).share(stretches, look)
    return frozenset(right)
