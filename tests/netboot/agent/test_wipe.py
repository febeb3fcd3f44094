"""What holds a disk is stopped from the inside out, and what cannot be stopped is named. Real disks: test_disk.py."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from images.errors import CommandFailed, TargetFailed
from netboot.agent import wipe

MIB = 1 << 20


class Stack:
    """A disk sda with partition sda1 under RAID md0, under LVM dm-0, as /sys shows it; stopping is written down."""

    def __init__(self, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.sys, self.proc = root / "sys", root / "proc"
        (self.sys / "block/sda/sda1/holders/md0").mkdir(parents=True)
        (self.sys / "block/sda/sda1/partition").write_text("1\n")
        (self.sys / "block/md0/holders/dm-0").mkdir(parents=True)
        (self.sys / "block/dm-0/dm").mkdir(parents=True)
        (self.sys / "block/dm-0/dm/name").write_text("vg-root\n")
        self.proc.mkdir()
        (self.proc / "mounts").write_text("")
        (self.proc / "swaps").write_text("Filename Type Size\n")
        self.commands: list[list[str]] = []
        self.lines: list[str] = []
        self.broken = ""
        monkeypatch.setattr(wipe, "run", self.run)

    def run(self, command: Sequence[str], **_: object) -> None:
        self.commands.append(list(command))
        if self.broken and self.broken in command[-1]:
            raise CommandFailed("stopping: mdadm failed (1): device busy")

    def release(self) -> None:
        wipe.release("/dev/sda", self.lines.append, str(self.sys), str(self.proc))


@pytest.fixture
def stack(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Stack:
    return Stack(tmp_path, monkeypatch)


def test_the_innermost_goes_first(stack: Stack) -> None:
    stack.release()
    assert stack.commands == [["dmsetup", "remove", "--retry", "vg-root"], ["mdadm", "--stop", "/dev/md0"]]
    assert len(stack.lines) == 2


def test_what_does_not_let_go_is_named(stack: Stack) -> None:
    stack.broken = "md0"
    with pytest.raises(TargetFailed, match="in use by md0"):
        stack.release()


def test_a_holder_of_unknown_kind_is_named(stack: Stack) -> None:
    (stack.sys / "block/sda/holders/bcache0").mkdir(parents=True)
    with pytest.raises(TargetFailed, match="held by bcache0"):
        stack.release()


def test_a_chain_without_end_is_cut_off(stack: Stack) -> None:
    (stack.sys / "block/dm-0/holders").mkdir()
    (stack.sys / "block/dm-0/holders/md0").mkdir()
    with pytest.raises(TargetFailed, match="chain of more than"):
        stack.release()


def test_mount_points_with_blanks_are_read_as_written(stack: Stack) -> None:
    (stack.proc / "mounts").write_text("/dev/sda1 /mnt/a\\040b\\134c ext4 rw 0 0\n/dev/sda10 /other ext4 rw 0 0\n")
    assert wipe._mounts(str(stack.proc / "mounts"), "/dev/sda1") == ["/mnt/a b\\c"]


spans = st.lists(st.tuples(st.integers(0, 90 * MIB), st.integers(-5, 90 * MIB)), max_size=4)


@given(spans)
def test_forgetting_never_leaves_its_spans_but_for_the_disks_ends(spans: list[tuple[int, int]]) -> None:
    size, written = 80 * MIB, []

    def pwrite(fd: int, data: bytes, at: int) -> int:
        assert data.count(0) == len(data)
        written.append((at, at + len(data)))
        return len(data)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "pwrite", pwrite)
        patch.setattr(os, "fsync", lambda fd: None)
        wipe.forget(-1, size, spans)
    allowed = [(0, size), *((start, start + length) for start, length in spans)]
    assert all(any(low <= start and end <= high for low, high in allowed) for start, end in written)
    assert all(start >= 0 and end <= size for start, end in written)


def test_a_disk_that_does_not_take_it_is_named_as_such(tmp_path: Path) -> None:
    path = tmp_path / "disk"
    path.write_bytes(bytes(8192))
    fd = os.open(path, os.O_RDONLY)
    try:
        with pytest.raises(TargetFailed, match="did not take the wiping"):
            wipe.forget(fd, 8192, [])
    finally:
        os.close(fd)


def test_wipefs_finds_nothing_after_it(tmp_path: Path) -> None:
    path = tmp_path / "disk"
    with path.open("wb") as file:
        file.truncate(96 * MIB)
    subprocess.run(["mke2fs", "-q", "-F", "-t", "ext4", str(path)], check=True)
    with path.open("r+b", buffering=0) as file:
        for at in (64 * MIB + 64, 64 * 1024 + 64):
            file.seek(at)
            file.write(b"_BHRfS_M")
        wipe.forget(file.fileno(), 96 * MIB, [])
        file.seek(64 * MIB)
        assert file.read(4096) == bytes(4096)
    assert subprocess.run(["wipefs", "-n", str(path)], check=True, capture_output=True).stdout == b""
