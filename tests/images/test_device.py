"""Disks and files: written past the page cache or through it, zeroed for certain, their errors named."""

from __future__ import annotations

import contextlib
import errno
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from images import device
from images.device import Device
from images.errors import TargetFailed, TargetTooSmall

CHUNK = 64 << 10
DIRT = b"\xff"


@pytest.fixture(params=["disk", "memory"])
def path(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Path]:
    """A dirty file of ten chunks, on a real filesystem and on tmpfs."""
    file = tmp_path / "file" if request.param == "disk" else Path(f"/dev/shm/gild-test-{os.getpid()}")
    file.write_bytes(DIRT * (10 * CHUNK))
    yield file
    file.unlink()


@contextlib.contextmanager
def opened(path: Path | str, size: int = 10 * CHUNK, chunk: int = CHUNK) -> Iterator[Device]:
    with contextlib.closing(Device(str(path), size, chunk)) as made:
        yield made


def filled(made: Device, content: bytes) -> memoryview:
    view = made.buffer(-(-len(content) // 4096) * 4096)[: len(content)]
    view[:] = content
    return view


@pytest.mark.parametrize("length", [CHUNK, 3 * CHUNK, 4096, 512, 5000, 1])
def test_what_is_written_is_read(path: Path, length: int) -> None:
    content = os.urandom(length)
    with opened(path) as made:
        made.write(filled(made, content), 2)
        made.flush()
        back = made.buffer(4 * CHUNK)[:length]
        made.read(back, 2)
        assert bytes(back) == content
    assert path.read_bytes() == DIRT * (2 * CHUNK) + content + DIRT * (8 * CHUNK - length)


def test_zeroed_chunks_read_as_zero_and_their_neighbours_stay(path: Path) -> None:
    with opened(path, 10 * CHUNK - 100) as made:
        made.zero(3, 2)
        made.zero(9, 1)
    expected = DIRT * (3 * CHUNK) + bytes(2 * CHUNK) + DIRT * (4 * CHUNK) + bytes(CHUNK - 100) + DIRT * 100
    assert path.read_bytes() == expected


def test_a_file_that_cannot_be_punched_is_zeroed_by_writing(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(fd: int, offset: int, length: int) -> None:
        raise OSError(errno.EOPNOTSUPP, "x")

    monkeypatch.setattr(device, "_punch", refuse)
    monkeypatch.setattr(device, "BLANK", bytes(CHUNK // 3))
    with opened(path) as made:
        made.zero(1, 3)
    assert path.read_bytes() == DIRT * CHUNK + bytes(3 * CHUNK) + DIRT * (6 * CHUNK)


def test_other_errors_of_zeroing_are_not_passed_over(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(fd: int, offset: int, length: int) -> None:
        raise OSError(errno.EIO, "x")

    monkeypatch.setattr(device, "_punch", fail)
    with opened(path) as made, pytest.raises(TargetFailed, match=f"zeroing {path} failed: Input/output error"):
        made.zero(1, 1)


def test_a_filesystem_that_takes_o_direct_back_is_used_through_the_cache(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real_write, real_read = os.pwrite, os.preadv

    def write(fd: int, data: memoryview, offset: int) -> int:
        if fd == made._direct:
            raise OSError(errno.EINVAL, "x")
        return real_write(fd, data, offset)

    def read(fd: int, into: list[memoryview], offset: int) -> int:
        if fd == made._direct:
            raise OSError(errno.EINVAL, "x")
        return real_read(fd, into, offset)

    monkeypatch.setattr(os, "pwrite", write)
    monkeypatch.setattr(os, "preadv", read)
    content = os.urandom(CHUNK)
    for first in ("write", "read"):
        with opened(path) as made:
            back = made.buffer(CHUNK)
            if first == "read":
                made.read(back, 4)
            made.write(filled(made, content), 4)
            made.read(back, 4)
            assert bytes(back) == content


def test_short_writes_and_reads_go_on(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real_write, real_read = os.pwrite, os.preadv
    monkeypatch.setattr(os, "pwrite", lambda fd, data, offset: real_write(fd, data[:4096], offset))
    monkeypatch.setattr(os, "preadv", lambda fd, into, offset: real_read(fd, [into[0][:8192]], offset))
    content = os.urandom(CHUNK)
    with opened(path) as made:
        made.write(filled(made, content), 1)
        back = made.buffer(CHUNK)
        made.read(back, 1)
        assert bytes(back) == content


def test_a_disk_that_takes_or_gives_nothing_does_not_hang(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "pwrite", lambda fd, data, offset: 0)
    monkeypatch.setattr(os, "preadv", lambda fd, into, offset: 0)
    with opened(path) as made:
        with pytest.raises(TargetFailed, match=r"writing .* No space left"):
            made.write(made.buffer(CHUNK), 1)
        with pytest.raises(TargetFailed, match=r"reading .* Input/output error"):
            made.read(made.buffer(CHUNK), 1)


@pytest.mark.parametrize(("code", "words"), [(errno.EIO, "Input/output error"), (errno.ENOSPC, "No space left")])
def test_the_disk_is_named_when_it_fails(path: Path, monkeypatch: pytest.MonkeyPatch, code: int, words: str) -> None:
    def fail(*_: object) -> int:
        raise OSError(code, "x")

    with opened(path) as made:
        for name in ("pwrite", "preadv", "fsync"):
            monkeypatch.setattr(os, name, fail)
        with pytest.raises(TargetFailed, match=f"writing {path} failed: {words}"):
            made.write(made.buffer(CHUNK), 0)
        with pytest.raises(TargetFailed, match=f"reading {path} failed: {words}"):
            made.read(made.buffer(CHUNK), 0)
        with pytest.raises(TargetFailed, match=f"flushing {path} failed: {words}"):
            made.flush()


def test_what_is_no_disk_or_too_small_is_refused_and_left_closed(path: Path, tmp_path: Path) -> None:
    before = len(os.listdir("/proc/self/fd"))
    with pytest.raises(TargetTooSmall, match=f"{path} has {10 * CHUNK} bytes, the image needs {10 * CHUNK + 1}"):
        Device(str(path), 10 * CHUNK + 1, CHUNK)
    for other in (tmp_path, "/dev/null"):
        with pytest.raises(TargetFailed, match="neither a disk nor a file"):
            Device(str(other), 1, CHUNK)
    with pytest.raises(TargetFailed, match=r"opening .*none failed: No such file"):
        Device(str(tmp_path / "none"), 1, CHUNK)
    assert len(os.listdir("/proc/self/fd")) == before


def test_odd_chunks_do_without_o_direct(path: Path) -> None:
    with opened(path, 10 * CHUNK, 1000) as made:
        made.write(filled(made, b"x" * 2000), 3)
    assert path.read_bytes()[2999:5001] == DIRT + b"x" * 2000 + DIRT


@pytest.mark.root
def test_a_real_disk(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_bytes(DIRT * (10 * CHUNK))
    with loop(file) as disk:
        content = os.urandom(2 * CHUNK)
        with opened(disk, 10 * CHUNK - 1000) as made:
            assert made.block
            made.write(filled(made, content), 1)
            made.zero(4, 2)
            made.zero(9, 1)
            tail = os.urandom(CHUNK - 1000)
            made.write(filled(made, tail), 9)
            made.flush()
            back = made.buffer(CHUNK)[: CHUNK - 1000]
            made.read(back, 9)
            assert bytes(back) == tail
        with pytest.raises(TargetTooSmall, match=f"{disk} has {10 * CHUNK} bytes"):
            Device(disk, 11 * CHUNK, CHUNK)
    expected = DIRT * CHUNK + content + DIRT * CHUNK + bytes(2 * CHUNK) + DIRT * (3 * CHUNK) + tail + DIRT * 1000
    assert file.read_bytes() == expected


@pytest.mark.root
def test_a_disk_in_use_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_bytes(DIRT * (10 * CHUNK))
    with loop(file) as disk:
        claim = os.open(disk, os.O_RDONLY | os.O_EXCL)  # what mounting does
        try:
            with pytest.raises(TargetFailed, match=f"opening {disk} failed: Device or resource busy .*mounted"):
                Device(disk, CHUNK, CHUNK)
        finally:
            os.close(claim)
        Device(disk, CHUNK, CHUNK).close()


@contextlib.contextmanager
def loop(file: Path) -> Iterator[str]:
    """A loop device over `file`."""
    made = subprocess.run(["losetup", "--find", "--show", file], check=True, capture_output=True, text=True)
    disk = made.stdout.strip()
    try:
        yield disk
    finally:
        subprocess.run(["losetup", "--detach", disk], check=True)
