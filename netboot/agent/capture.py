"""A golden client's disk read for a new image: used blocks alone, and of those only what the head does not have.

Nothing on the machine is written: every device is opened for reading, and nothing is mounted.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator, Sequence

from images import workers, zstd
from images.chunk import CHUNK_SIZE, chunk_length, touched
from images.errors import GildError
from images.partitions import Entry, read_table
from images.reading import Partition, Piece
from images.superblock import recognise
from netboot.agent.link import Link
from netboot.agent.machine import Machine
from netboot.agent.reporter import Reporter
from netboot.capture import MAX_BODY, Found, Named, encode_frames
from netboot.disks import choose, describe
from netboot.report import Disk, Phase
from netboot.wire import WIRE

BATCH = 16  # chunks in hand of one thread: 8 MiB raw, and about as much again compressed at the worst
LEVEL = 1  # zstd; the head compresses what it keeps anew, and the client has better things to do


class CaptureRefused(GildError):
    """The order cannot be carried out on this machine. Nothing was written."""


def capture(machine: Machine, link: Link, reporter: Reporter, log: Callable[[str], None], token: str, mac: str) -> str:
    """Use the order up and send the disk. Returns how to leave. Raises GildError with a reason for people."""
    plan = link.capture(token)
    log(f"order {plan.order}: {plan.node} is read for a new version of {plan.image}")
    if plan.wire != WIRE or plan.chunk_size != CHUNK_SIZE:
        raise CaptureRefused(f"the order is of wire version {plan.wire}, this agent speaks {WIRE}")
    disk = choose(machine.facts(mac).disks, plan.disk)
    fd = _open(disk.path)
    try:
        label, found = survey(fd, disk)
        wanted = set(link.offer(describe(disk), label, [part for part, _ in found]).parts)
        parts = [(part, start) for part, start in found if part.number in wanted]
        total = sum(part.used for part, _ in parts)
        log(f"reading {total / 1e6:.0f} MB in use of {describe(disk)}")
        progress = Progress(reporter, total)
        for part, start in parts:
            send(link, part.number, Partition(fd, part.size, part.fs, start), progress, reporter.stopped)
    except workers.Cancelled:
        raise CaptureRefused(f"the head took the order back: {reporter.stop}") from None
    finally:
        os.close(fd)
    link.captured()
    log(f"{progress.sent / 1e6:.0f} MB were new and have been sent; the disk is as it was")
    return "reboot"


def survey(fd: int, disk: Disk) -> tuple[str, list[tuple[Found, int]]]:
    """What stands on the disk open at `fd`: the kind of its partition table, and every partition with the byte at which
    it begins. Raises GildError."""
    table = read_table(lambda offset, length: os.pread(fd, length, offset), disk.size, (disk.sector,))
    entries = table.entries if table else (Entry(0, 0, disk.size, ""),)
    return table.label if table else "", [(_look(fd, entry), entry.start) for entry in entries]


def send(link: Link, number: int, partition: Partition, progress: Progress, cancel: threading.Event) -> None:
    """Send what the head lacks of one partition. Raises GildError, workers.Cancelled."""

    def work(batches: Iterator[Sequence[int]]) -> None:
        for batch in batches:
            pieces = {index: partition.read(index) for index in batch}
            named = [Named(piece.index, piece.name.hex()) for piece in pieces.values()]
            lacking = link.lacking(number, named)
            for body, came in _bodies(number, [pieces[index] for index in lacking if index in pieces]):
                link.chunks(body)
                progress.add(0, came)
            progress.add(sum(chunk_length(index, partition.size, CHUNK_SIZE) for index in batch), 0)

    count = (os.cpu_count() or 1) + 1
    workers.Workers(count, f"reading partition {number}", cancel).share(_batches(partition), work)


def _batches(partition: Partition) -> Iterator[Sequence[int]]:
    batch: list[int] = []
    for index in touched(partition.map.extents):
        batch.append(index)
        if len(batch) == BATCH:
            yield batch
            batch = []
    if batch:
        yield batch


def _bodies(number: int, pieces: Sequence[Piece]) -> Iterator[tuple[bytes, int]]:
    """Bodies for the head with as many frames as fit, and the bytes of the frames."""
    frames: list[tuple[int, bytes]] = []
    size = 0
    for piece in pieces:
        frame = zstd.compress(piece.raw, LEVEL)
        if frames and size + len(frame) + 4096 > MAX_BODY:
            yield encode_frames(number, frames), size
            frames, size = [], 0
        frames.append((piece.index, frame))
        size += len(frame)
    if frames:
        yield encode_frames(number, frames), size


def _look(fd: int, entry: Entry) -> Found:
    found = recognise(lambda offset, length: os.pread(fd, length, entry.start + offset), entry.size)
    kind, fs = entry.kind if entry.number else "", found.kind if found else ""
    if found is None or found.container or fs == "swap" or kind in ("esp", "bios", "swap"):
        return Found(entry.number, entry.size, kind, fs, partuuid=entry.uuid)
    held = Partition(fd, entry.size, fs, entry.start).map
    why = "" if held.known else held.why
    used = min(held.used, entry.size)
    return Found(entry.number, entry.size, kind, fs, found.uuid, found.label, entry.uuid, used, why)


def _open(path: str) -> int:
    try:
        return os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:
        raise CaptureRefused(f"{path} cannot be read: {error.strerror}") from None


class Progress:
    """How far it is, told to the head."""

    def __init__(self, reporter: Reporter, total: int) -> None:
        self._reporter, self._total, self._lock = reporter, total, threading.Lock()
        self._done = self.sent = 0

    def add(self, done: int, sent: int) -> None:
        """So many bytes of the disk are with the head now, so many compressed ones were sent."""
        with self._lock:
            self._done += done
            self.sent += sent
            self._reporter.progress(Phase.READ, min(self._done, self._total), self._total, self.sent)
