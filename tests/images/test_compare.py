"""What a disk holds already, and whether it kept what was written."""

from __future__ import annotations

import contextlib
import errno
import os
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from images.compare import SAMPLE, UNREADABLE, held_chunks, read_back
from images.device import Device
from images.errors import TargetFailed
from images.workers import Cancelled
from tests.images.packed import CHUNK, DIRT, Packed, pack

KINDS = "DDZFDDDZZF" + "D" * 40 + "Z" * 40 + "F" + "D"


@pytest.fixture
def packed(tmp_path: Path) -> Packed:
    return pack(tmp_path / "packs", KINDS, short=1000)


@pytest.fixture
def disk(packed: Packed, tmp_path: Path) -> Iterator[Device]:
    """A disk that holds all of it, with dirt where nobody cares."""
    path = tmp_path / "disk"
    path.write_bytes(b"".join(bytes([DIRT]) * CHUNK if chunk is None else chunk for chunk in packed.content))
    with contextlib.closing(Device(str(path), packed.size, CHUNK)) as device:
        yield device


def spoil(device: Device, chunk: int, at: int = 0) -> None:
    """Change one byte of a chunk on the disk."""
    with open(device.path, "r+b") as file:
        file.seek(chunk * CHUNK + at)
        old = file.read(1)
        file.seek(-1, os.SEEK_CUR)
        file.write(bytes([old[0] ^ 1]))


def wanted() -> frozenset[int]:
    return frozenset(n for n, kind in enumerate(KINDS) if kind != "F")


def test_everything_is_held(packed: Packed, disk: Device) -> None:
    found: list[int] = []
    assert held_chunks(disk, packed.runs, 3, found=found.append) == wanted()
    assert sum(found) == sum(len(chunk) for chunk in packed.content if chunk is not None)


def test_one_changed_byte_of_data_or_zeros_is_seen_and_free_chunks_are_not_looked_at(
    packed: Packed, disk: Device
) -> None:
    changed = (0, 2, 5, 8, 30, len(KINDS) - 1)
    for chunk in changed:
        spoil(disk, chunk, CHUNK - 1001)
    spoil(disk, KINDS.index("F"))
    assert held_chunks(disk, packed.runs, 3) == wanted() - set(changed)


def test_a_place_that_cannot_be_read_is_missing_and_a_broken_disk_an_error(
    packed: Packed, disk: Device, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = Device.read

    def read(self: Device, into: memoryview, chunk: int) -> None:
        if chunk in bad:
            raise TargetFailed("reading failed")
        real(self, into, chunk)

    monkeypatch.setattr(Device, "read", read)
    monkeypatch.setattr("images.compare.READ", CHUNK)
    bad = range(4, 6)
    assert held_chunks(disk, packed.runs, 2) == wanted() - {4, 5}
    bad = range(10, 10 + UNREADABLE + 1)
    with pytest.raises(TargetFailed, match="reading failed"):
        held_chunks(disk, packed.runs, 2)


def test_reading_can_be_cancelled(packed: Packed, disk: Device) -> None:
    cancel = threading.Event()
    cancel.set()
    with pytest.raises(Cancelled, match=f"reading {disk.path} was cancelled"):
        held_chunks(disk, packed.runs, 2, cancel=cancel)
    with pytest.raises(Cancelled):
        read_back(disk, "root", packed.runs, 2, full=True, cancel=cancel)


def test_reading_back_what_is_right(packed: Packed, disk: Device) -> None:
    spoil(disk, KINDS.index("F"))
    read_back(disk, "root", packed.runs, 2, full=True)
    read_back(disk, "root", packed.runs, 2, full=False)


def test_reading_back_in_full_finds_any_chunk_and_names_the_first(packed: Packed, disk: Device) -> None:
    for chunk in (70, 13):
        spoil(disk, chunk, 7)
        with pytest.raises(TargetFailed, match=f"{disk.path} did not keep .*: chunk {chunk} of root reads differently"):
            read_back(disk, "root", packed.runs, 2, full=True)
    read_back(disk, "root", packed.runs, 2, full=True, without={70, 13})


def test_a_sample_is_the_ends_of_runs_and_every_16th_chunk_of_data(packed: Packed, disk: Device) -> None:
    ends = {n for run in packed.runs for n in (run.start, run.start + run.count - 1)}
    sampled = {n for n, kind in enumerate(KINDS) if kind != "F" and (n in ends or (kind == "D" and n % SAMPLE == 0))}
    assert {16, 32, 48} <= sampled and 64 not in sampled, "one of these is in the middle of zeros"
    for chunk in sorted(wanted()):
        spoil(disk, chunk, 3)
        if chunk in sampled:
            with pytest.raises(TargetFailed, match=f"chunk {chunk} of"):
                read_back(disk, "root", packed.runs, 1, full=False)
        else:
            read_back(disk, "root", packed.runs, 1, full=False)
        spoil(disk, chunk, 3)


def test_what_cannot_be_read_back_was_not_kept(packed: Packed, disk: Device, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> int:
        raise OSError(errno.EIO, "x")

    monkeypatch.setattr(os, "preadv", fail)
    with pytest.raises(TargetFailed, match=f"reading {disk.path} failed: Input/output error"):
        read_back(disk, "root", packed.runs, 2, full=False)
