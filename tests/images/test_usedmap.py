"""Used blocks: the bitmap reader against e2fsprogs, and the arithmetic of stretches."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from images.maps import extents
from images.maps.ext4 import ext4_used
from images.usedmap import MapUnreadable, data_extents, gaps, overlap, used_map

EXT4 = (
    ["-O", "^metadata_csum"],
    ["-b", "1024"],
    ["-O", "sparse_super2"],
    ["-O", "^64bit,^resize_inode"],
    ["-O", "^has_journal,^64bit,^extent,^flex_bg,^uninit_bg,^metadata_csum"],
)


def make(path: Path, *options: str, size: str = "300M") -> Path:
    subprocess.run(["truncate", "-s", size, path], check=True)
    subprocess.run(["mke2fs", "-q", "-F", "-t", "ext4", "-d", os.path.dirname(__file__), *options, path], check=True)
    return path


def free_by_dumpe2fs(path: Path) -> set[int]:
    """Free blocks as e2fsprogs lists them."""
    text = subprocess.run(["dumpe2fs", path], capture_output=True, text=True, check=True).stdout
    free: set[int] = set()
    for line in re.findall(r"(?m)^  Free blocks: (.*)$", text):
        for low, high in re.findall(r"(\d+)(?:-(\d+))?", line):
            free.update(range(int(low), int(high or low) + 1))
    return free


@pytest.mark.parametrize("options", [[], *EXT4], ids=lambda o: " ".join(o) or "default")
def test_the_map_is_what_e2fsprogs_says(tmp_path: Path, options: list[str]) -> None:
    block = 1024 if "1024" in options else 4096
    image = make(tmp_path / "fs", *options, *(() if "-b" in options else ("-b", "4096")))
    size = image.stat().st_size
    with image.open("rb") as file:
        used = ext4_used(lambda at, length: os.pread(file.fileno(), length, at), size)
    free = {b for at, n in gaps(used, 0, size) for b in range(at // block, (at + n) // block)}
    assert free == free_by_dumpe2fs(image)


@pytest.mark.parametrize("feature", ["bigalloc", "meta_bg,^resize_inode"])
def test_what_is_not_understood_counts_as_used(tmp_path: Path, feature: str) -> None:
    image = make(tmp_path / "fs", "-O", feature)
    fd = os.open(image, os.O_RDONLY)
    try:
        found = used_map(fd, 300 << 20, "ext4")
    finally:
        os.close(fd)
    assert found.extents == ((0, 300 << 20),) and not found.known and "features" in found.why


def test_another_filesystem_counts_as_used(tmp_path: Path) -> None:
    (tmp_path / "fs").write_bytes(bytes(100_000))
    fd = os.open(tmp_path / "fs", os.O_RDONLY)
    try:
        assert used_map(fd, 100_000, "xfs").used == 100_000
        assert not used_map(fd, 100_000, "ext4").known
    finally:
        os.close(fd)


def test_a_bitmap_that_contradicts_its_group_is_not_believed(tmp_path: Path) -> None:
    data = bytearray(make(tmp_path / "fs", "-b", "4096", size="20M").read_bytes())
    bitmap = int.from_bytes(
        data[4096:4100], "little"
    )  # first field of the first descriptor, one block after the superblock
    data[bitmap * 4096 + 400] ^= 0xFF
    with pytest.raises(MapUnreadable, match="group 0"):
        ext4_used(lambda at, length: bytes(data[at : at + length]), len(data))


@pytest.mark.parametrize(("state", "word"), [(0, "unmounted"), (3, "errors")])
def test_a_filesystem_that_waits_for_a_check_is_not_believed(tmp_path: Path, state: int, word: str) -> None:
    data = bytearray(make(tmp_path / "fs", "-O", "^has_journal", size="20M").read_bytes())
    assert ext4_used(lambda at, length: bytes(data[at : at + length]), len(data))
    data[1024 + 58] = state
    with pytest.raises(MapUnreadable, match=word):
        ext4_used(lambda at, length: bytes(data[at : at + length]), len(data))


def test_a_map_of_too_many_stretches_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    image = make(tmp_path / "fs", "-b", "4096", size="300M")
    monkeypatch.setattr(extents, "MAX_EXTENTS", 1)
    fd = os.open(image, os.O_RDONLY)
    try:
        found = used_map(fd, 300 << 20, "ext4")
    finally:
        os.close(fd)
    assert found.extents == ((0, 300 << 20),) and "more than 1 stretches" in found.why


@pytest.mark.root
def test_a_disk_has_no_holes(tmp_path: Path) -> None:
    with (tmp_path / "sparse").open("wb") as file:
        file.truncate(4 << 20)
    argv = ["losetup", "--find", "--show", "--read-only", str(tmp_path / "sparse")]
    loop = subprocess.run(argv, capture_output=True, text=True, check=True).stdout.strip()
    try:
        fd = os.open(loop, os.O_RDONLY)
        assert data_extents(fd, 4 << 20) == [(0, 4 << 20)]
        os.close(fd)
    finally:
        subprocess.run(["losetup", "--detach", loop], check=True)


def test_data_extents_follow_the_holes(tmp_path: Path) -> None:
    with (tmp_path / "sparse").open("wb") as file:
        file.truncate(4 << 20)
        os.pwrite(file.fileno(), b"x" * 65536, 1 << 20)
    fd = os.open(tmp_path / "sparse", os.O_RDONLY)
    try:
        assert overlap(data_extents(fd, 4 << 20), 0, 4 << 20) == [(1 << 20, 65536)]
    finally:
        os.close(fd)


stretches = st.lists(st.integers(0, 60), unique=True, max_size=20).map(sorted)


@given(stretches, st.integers(0, 60), st.integers(0, 30))
def test_overlap_and_gaps_share_out_every_byte(points: list[int], start: int, length: int) -> None:
    found = [(a, b - a) for a, b in zip(points[::2], points[1::2], strict=False)]
    inside = {n for at, count in overlap(found, start, length) for n in range(at, at + count)}
    outside = {n for at, count in gaps(found, start, length) for n in range(at, at + count)}
    taken = {n for at, count in found for n in range(at, at + count)}
    wanted = set(range(start, start + length))
    assert inside == taken & wanted and outside == wanted - taken
