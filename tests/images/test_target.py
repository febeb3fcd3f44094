"""A partition comes onto a dirty target whole or not at all, whatever source and disk do."""

from __future__ import annotations

import errno
import os
import random
import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from images import target
from images.device import Device
from images.errors import ChunkInvalid, ChunkMissing, TargetFailed, TargetTooSmall
from images.reassemble import Work, plan_restore
from images.target import Cancelled, restore
from tests.images.packed import CHUNK, Packed, Spoiled, dirty, pack
from tests.images.test_device import loop

KINDS = "DDDZFDDZZDFFD" + "D" * 20 + "ZD"


@pytest.fixture
def packed(tmp_path: Path) -> Packed:
    return pack(tmp_path / "packs", KINDS, short=3000)


@pytest.fixture
def disk(packed: Packed, tmp_path: Path) -> Path:
    return dirty(tmp_path / "disk", packed.size)


@pytest.fixture(autouse=True)
def small_ranges(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two chunks a fetch, so that a small partition is many fetches."""
    planned = plan_restore

    def plan(*args: object, **kwargs: object) -> Work:
        return planned(*args, **kwargs, max_raw=2 * CHUNK)  # type: ignore[arg-type]

    monkeypatch.setattr(target, "plan_restore", plan)


def bring(packed: Packed, disk: Path | str, source: Spoiled | None = None, **options: object) -> Work:
    return restore(
        str(disk),
        "root",
        packed.runs,
        packed.size,
        CHUNK,
        packed.packs,
        source or Spoiled(packed.folder),
        **{"workers": 3, "verify": "full", **options},  # type: ignore[arg-type]
    )


def first(disk: Path) -> bytes:
    return disk.read_bytes()[:CHUNK]


@pytest.mark.parametrize("verify", ["none", "sample", "full"])
@pytest.mark.parametrize("workers", [0, 1, 4])
def test_a_dirty_target_becomes_right_and_free_chunks_are_left_alone(
    packed: Packed, disk: Path, verify: str, workers: int
) -> None:
    source = Spoiled(packed.folder)
    work = bring(packed, disk, source, verify=verify, workers=workers)
    assert packed.wrong(disk) == []
    assert work.kept == 0
    assert work.to_fetch == sum(length for _, _, length in source.asked)
    assert source.opened == source.closed


@given(st.text("DZF", min_size=1, max_size=24), st.integers(0, CHUNK - 1), st.booleans())
@settings(max_examples=40, deadline=None)
def test_any_partition_on_any_target(
    tmp_path_factory: pytest.TempPathFactory, kinds: str, short: int, held: bool
) -> None:
    folder = tmp_path_factory.mktemp("any")
    packed = pack(folder / "packs", kinds, short, seed=len(kinds))
    disk = dirty(folder / "disk", packed.size)
    if held:  # a target of which some is right
        with disk.open("r+b") as file:
            for n, chunk in enumerate(packed.content):
                if chunk is not None and n % 3:
                    file.seek(n * CHUNK)
                    file.write(chunk)
    bring(packed, disk, held=held)
    wrong = packed.wrong(disk)
    # A first chunk nobody cares about is blanked with the rest unless there was nothing to do.
    assert wrong == [] or (wrong == [0] and kinds[0] == "F" and not any(first(disk)))


@pytest.mark.root
def test_a_real_disk(packed: Packed, disk: Path) -> None:
    with disk.open("ab") as file:
        file.write(b"\xff" * 5000)
    os.truncate(disk, disk.stat().st_size // 512 * 512)
    with loop(disk) as device:
        bring(packed, device)
        again = bring(packed, device, held=True)
    assert packed.wrong(disk) == []
    assert (again.to_write, again.to_zero) == (0, 0)


def test_a_larger_target_keeps_what_lies_behind(packed: Packed, tmp_path: Path) -> None:
    disk = dirty(tmp_path / "disk", packed.size + 7777)
    bring(packed, disk)
    assert packed.wrong(disk) == []
    assert disk.read_bytes()[packed.size :] == b"\xff" * 7777


def test_a_small_target_is_refused_untouched(packed: Packed, tmp_path: Path) -> None:
    disk = dirty(tmp_path / "disk", packed.size - 1)
    source = Spoiled(packed.folder)
    with pytest.raises(TargetTooSmall, match="disk has"):
        bring(packed, disk, source)
    assert disk.read_bytes() == b"\xff" * (packed.size - 1)
    assert source.opened == 0


def test_chunks_of_the_largest_size_take_fewer_workers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    buffers: list[int] = []
    real = Device.buffer

    def buffer(self: Device, length: int) -> memoryview:
        buffers.append(length)
        return real(self, length)

    monkeypatch.setattr(Device, "buffer", buffer)
    monkeypatch.setattr(target, "MEMORY", 4 * CHUNK)
    monkeypatch.setattr(target, "MAX_RAW", 2 * CHUNK)
    packed = pack(tmp_path / "packs", "D" * 20)
    bring(packed, dirty(tmp_path / "disk", packed.size), workers=16, verify="none")
    # Two workers for all but the first chunk, and those for it.
    assert buffers == [2 * CHUNK] * 4


class Once:
    """Spoils the first `times` answers that hold the byte of a pack at `place`."""

    def __init__(self, pack: str, place: int, times: int) -> None:
        self.pack, self.place, self.left = pack, place, times

    def __call__(self, pack: str, offset: int, data: memoryview) -> memoryview:
        if pack != self.pack or not offset <= self.place < offset + len(data) or not self.left:
            return data
        self.left -= 1
        changed = bytearray(data)
        changed[self.place - offset] ^= 0x10
        return memoryview(changed)


def place_of(packed: Packed, chunk: int) -> tuple[str, int, int]:
    """Pack, offset and length of a chunk's frame."""
    run = next(run for run in packed.runs if run.start <= chunk < run.start + run.count)
    before = run.chunks[: chunk - run.start]
    return packed.packs[run.pack], run.offset + sum(length for _, length in before), run.chunks[len(before)][1]


@pytest.mark.parametrize("chunk", [0, 1, 6, 20, len(KINDS) - 1])
@pytest.mark.parametrize("inside", [0, 5, -1], ids=["magic", "header", "end"])
def test_a_chunk_that_comes_wrong_is_fetched_again_from_somebody_else(
    packed: Packed, disk: Path, chunk: int, inside: int
) -> None:
    name, offset, length = place_of(packed, chunk)
    source = Spoiled(packed.folder, Once(name, offset + inside % length, 2))
    bring(packed, disk, source)
    assert packed.wrong(disk) == []
    assert source.distrusted == 2
    assert source.asked.count((name, offset, length)) == (3 if chunk in (0, len(KINDS) - 1) else 2)


@pytest.mark.parametrize("chunk", [0, 1, 20])
def test_a_chunk_that_is_always_wrong_is_named_and_nothing_can_be_started(
    packed: Packed, disk: Path, chunk: int
) -> None:
    name, offset, _ = place_of(packed, chunk)
    source = Spoiled(packed.folder, Once(name, offset + 9, 1000))
    with pytest.raises(ChunkInvalid, match=rf"chunk {chunk} of root is damaged \(pack {name} at {offset}\)"):
        bring(packed, disk, source)
    assert not any(first(disk))
    assert chunk in packed.wrong(disk)
    assert source.opened == source.closed


def test_right_frames_of_other_chunks_are_not_taken(packed: Packed, disk: Path) -> None:
    """A frame that can be read but is another chunk's: only the hash tells."""
    name, offset, length = place_of(packed, 5)
    other = memoryview((packed.folder / f"{name}.pack").read_bytes())[offset : offset + length]
    wrong = place_of(packed, 6)

    def swap(pack: str, at: int, data: memoryview) -> memoryview:
        if pack == name and at <= wrong[1] and at + len(data) >= wrong[1] + wrong[2] == at + len(data):
            return memoryview(bytes(data[: wrong[1] - at]) + bytes(other[: wrong[2]]).ljust(wrong[2], b"\0"))
        return data

    with pytest.raises(ChunkInvalid, match="chunk 6 of root"):
        bring(packed, disk, Spoiled(packed.folder, swap))


def test_a_missing_pack_is_named(packed: Packed, disk: Path) -> None:
    (packed.folder / f"{packed.packs[1]}.pack").unlink()
    with pytest.raises(ChunkMissing, match=packed.packs[1]):
        bring(packed, disk)
    assert not any(first(disk))


class Dies:
    """A source that goes away after `after` answers."""

    def __init__(self, after: int) -> None:
        self.left = after

    def __call__(self, pack: str, offset: int, data: memoryview) -> memoryview:
        self.left -= 1
        if self.left < 0:
            raise ChunkMissing("the head is gone")
        return data


@pytest.mark.parametrize("after", [0, 1, 4, 12])
def test_an_interrupted_restore_cannot_be_started_and_goes_on_where_it_was(
    packed: Packed, disk: Path, after: int
) -> None:
    with pytest.raises(ChunkMissing, match="the head is gone"):
        bring(packed, disk, Spoiled(packed.folder, Dies(after)), workers=1)
    assert not any(first(disk))
    assert 0 in packed.wrong(disk)
    source = Spoiled(packed.folder)
    missing = sum(place_of(packed, n)[2] for n in packed.wrong(disk) if KINDS[n] == "D")
    work = bring(packed, disk, source, held=True)
    assert packed.wrong(disk) == []
    assert sum(length for _, _, length in source.asked) == work.to_fetch == missing
    assert (work.kept > 0) == (after > 0)


def test_a_killed_restore_leaves_nothing_to_start(packed: Packed, disk: Path) -> None:
    """At every single write, a crash would leave a blank first chunk, until all else is there."""
    seen: list[tuple[bool, list[int]]] = []
    real = os.pwrite

    def write(fd: int, data: memoryview, offset: int) -> int:
        seen.append((any(first(disk)), packed.wrong(disk) if offset == 0 else []))
        return real(fd, data, offset)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "pwrite", write)
        bring(packed, disk, workers=1)
    assert len(seen) > 10
    assert not any(started for started, _ in seen)
    assert seen[-1][1] == [0], "the first chunk is the last to come"


def test_a_reimage_blanks_the_first_chunk_before_it_changes_anything(packed: Packed, disk: Path) -> None:
    bring(packed, disk)
    with disk.open("r+b") as file:
        file.seek(20 * CHUNK)
        file.write(b"changed")
    seen: list[bool] = []

    def spoil(pack: str, offset: int, data: memoryview) -> memoryview:
        seen.append(any(first(disk)))
        return data

    source = Spoiled(packed.folder, spoil)
    work = bring(packed, disk, source, held=True)
    assert packed.wrong(disk) == []
    assert seen == [False, False]
    assert sorted(source.asked) == sorted([place_of(packed, 0), place_of(packed, 20)])
    assert (work.to_write, work.to_zero) == (2 * CHUNK, 0)


def test_zeros_that_are_not_zero_any_more_are_found_and_free_chunks_are_not_read(packed: Packed, disk: Path) -> None:
    bring(packed, disk)
    with disk.open("r+b") as file:
        file.seek(8 * CHUNK + 100)
        file.write(b"x")
    work = bring(packed, disk, held=True)
    assert (work.to_zero, work.to_write) == (CHUNK, CHUNK)
    assert packed.wrong(disk) == []


def test_nothing_is_touched_where_all_is_right(packed: Packed, disk: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bring(packed, disk)

    def fail(*_: object) -> int:
        raise OSError(errno.EROFS, "nothing may be written")

    monkeypatch.setattr(os, "pwrite", fail)
    monkeypatch.setattr(Device, "zero", fail)
    source = Spoiled(packed.folder)
    told: list[tuple[int, int]] = []
    work = bring(packed, disk, source, held=True, progress=lambda done, came: told.append((done, came)))
    assert source.opened == 0
    assert (work.to_fetch, work.to_write, work.to_zero) == (0, 0, 0)
    assert told[-1] == (work.kept, 0) and work.kept == sum(len(chunk) for chunk in packed.content if chunk is not None)


def lying(chunk: int) -> Callable[[Device, memoryview, int], None]:
    """A disk that changes one byte of a chunk on its way."""
    real = Device.write

    def write(self: Device, data: memoryview, start: int) -> None:
        if start <= chunk < start + -(-len(data) // CHUNK):
            data[(chunk - start) * CHUNK + 11] ^= 4
        real(self, data, start)

    return write


@pytest.mark.parametrize(("chunk", "verify"), [(0, "sample"), (0, "full"), (2, "sample"), (16, "sample"), (18, "full")])
def test_a_disk_that_does_not_keep_what_it_takes_is_found_out_and_cannot_be_started(
    packed: Packed, disk: Path, monkeypatch: pytest.MonkeyPatch, chunk: int, verify: str
) -> None:
    monkeypatch.setattr(Device, "write", lying(chunk))
    with pytest.raises(TargetFailed, match=f"disk did not keep what was written: chunk {chunk} of root"):
        bring(packed, disk, verify=verify)
    assert not any(first(disk))


def test_without_reading_back_it_is_not_found_out(packed: Packed, disk: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Device, "write", lying(18))
    bring(packed, disk, verify="sample")
    assert packed.wrong(disk) == [18]
    bring(packed, disk, verify="none")
    assert packed.wrong(disk) == [18]


def test_a_disk_that_ignores_zeroing_is_found_out(packed: Packed, disk: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = Device.zero
    monkeypatch.setattr(Device, "zero", lambda self, start, count: None if start == 7 else real(self, start, count))
    with pytest.raises(TargetFailed, match="chunk 7 of root"):
        bring(packed, disk, verify="sample")


def test_a_disk_that_fails_is_named(packed: Packed, disk: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.pwrite

    def write(fd: int, data: memoryview, offset: int) -> int:
        if offset > 10 * CHUNK:
            raise OSError(errno.EIO, "x")
        return real(fd, data, offset)

    monkeypatch.setattr(os, "pwrite", write)
    with pytest.raises(TargetFailed, match=f"writing {disk} failed: Input/output error"):
        bring(packed, disk)
    assert not any(first(disk))


@pytest.mark.root
def test_a_full_filesystem_under_a_file(packed: Packed, tmp_path: Path) -> None:
    place = tmp_path / "tiny"
    place.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={12 * CHUNK}", "gild-test", place], check=True)
    try:
        disk = place / "disk"
        disk.touch()
        os.truncate(disk, packed.size)
        with pytest.raises(TargetFailed, match=f"writing {disk} failed: No space left on device"):
            bring(packed, disk)
        assert not any(first(disk))
    finally:
        subprocess.run(["umount", place], check=True)


def test_a_cancelled_restore_stops_and_says_so(packed: Packed, disk: Path) -> None:
    cancel = threading.Event()

    def spoil(pack: str, offset: int, data: memoryview) -> memoryview:
        if len(source.asked) == 3:
            cancel.set()
        return data

    source = Spoiled(packed.folder, spoil)
    with pytest.raises(Cancelled, match=f"writing {disk} was cancelled"):
        bring(packed, disk, source, workers=1, cancel=cancel)
    assert len(source.asked) == 3
    assert not any(first(disk))


def test_progress_goes_up_seldom_and_ends_at_all(packed: Packed, disk: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[tuple[int, int]] = []
    used = sum(len(chunk) for chunk in packed.content if chunk is not None)
    monkeypatch.setattr(target, "TELL", 1e12)
    work = bring(packed, disk, progress=lambda done, came: told.append((done, came)))
    assert told == [(used, work.to_fetch)]
    monkeypatch.setattr(target, "TELL", 0.0)
    told.clear()
    disk.write_bytes(random.Random(5).randbytes(packed.size))
    bring(packed, disk, progress=lambda done, came: told.append((done, came)))
    assert len(told) > 10
    assert told == sorted(told)
    assert told[-1] == (used, work.to_fetch)


def test_progress_of_a_reimage_counts_what_is_kept_once(packed: Packed, disk: Path) -> None:
    with pytest.raises(ChunkMissing):
        bring(packed, disk, Spoiled(packed.folder, Dies(6)), workers=1)
    told: list[tuple[int, int]] = []
    work = bring(packed, disk, held=True, progress=lambda done, came: told.append((done, came)))
    assert work.kept > 0
    assert told[-1] == (sum(len(chunk) for chunk in packed.content if chunk is not None), work.to_fetch)
    with disk.open("r+b") as file:  # now with a first chunk that is right, and yet must come again
        file.seek(20 * CHUNK)
        file.write(b"changed")
    work = bring(packed, disk, held=True, progress=lambda done, came: told.append((done, came)))
    assert told[-1] == (sum(len(chunk) for chunk in packed.content if chunk is not None), work.to_fetch)


def test_an_error_of_the_progress_function_ends_the_restore(packed: Packed, disk: Path) -> None:
    def tell(done: int, came: int) -> None:
        raise RuntimeError("nobody listens")

    with pytest.raises(RuntimeError, match="nobody listens"):
        bring(packed, disk, progress=tell)
    assert not any(first(disk))


def test_a_word_that_is_no_way_to_verify_is_refused(packed: Packed, disk: Path) -> None:
    with pytest.raises(ValueError, match="none, sample, full"):
        bring(packed, disk, verify="some")
    assert disk.read_bytes() == b"\xff" * packed.size


@pytest.fixture(autouse=True)
def no_leaks() -> Iterator[None]:
    """Every restore gives its descriptors and threads back."""
    fds, threads = len(os.listdir("/proc/self/fd")), threading.active_count()
    yield
    assert len(os.listdir("/proc/self/fd")) == fds
    assert threading.active_count() == threads
