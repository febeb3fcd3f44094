"""The filesystem of a lineage: same tree, same bytes; grown without a mount."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from images import ext4
from images.errors import CommandFailed, ImageError
from tests.images.tinytree import tiny_tree


def test_the_same_tree_gives_the_same_bytes(tmp_path: Path) -> None:
    tree = tiny_tree(tmp_path / "tree")
    for name in ("one", "two"):
        (tree / "etc/hostname").chmod(0o600)  # a new change time, as a second build has
        (tree / "etc/hostname").chmod(0o644)
        (tree / "usr/lib/text").read_bytes()
        ext4.make(tree, tmp_path / name, name="compute", size=256 << 20, inodes=100)
        identity = ext4.check(tmp_path / name)
        assert identity == ext4.Identity(ext4.filesystem_uuid("compute"), "gild-root")
    assert subprocess.run(["cmp", tmp_path / "one", tmp_path / "two"], check=False).returncode == 0


def test_lineages_differ_in_uuid() -> None:
    assert ext4.filesystem_uuid("a") != ext4.filesystem_uuid("b")
    assert ext4.filesystem_uuid("a") == ext4.filesystem_uuid("a")


def test_a_hard_linked_file_counts_once(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"x" * 5000)
    (tmp_path / "b").hardlink_to(tmp_path / "a")
    (tmp_path / "d").mkdir()
    size = ext4.tree_size(tmp_path)
    assert size.inodes == 2 and size.bytes >= 8192 + 4096


@pytest.mark.parametrize("used", [0, 400 << 20, 700 << 20, 2 << 30])
def test_sizes_leave_room_and_are_round(used: int) -> None:
    size = ext4.filesystem_size(ext4.TreeSize(used, 30_000))
    assert size % ext4.STEP == 0 and size > used * 1.25 + (100 << 20)
    if used <= 2 << 30:
        assert size < 4_000_000_000, "fits a disk of 4 GB"


def test_growing_keeps_the_content(tmp_path: Path) -> None:
    tree = tiny_tree(tmp_path / "tree")
    image = tmp_path / "fs"
    ext4.make(tree, image, name="compute", size=256 << 20, inodes=100)
    ext4.grow(image, 320 << 20)
    ext4.grow(image, 100 << 20)
    assert image.stat().st_size == 320 << 20 and ext4.check(image).label == "gild-root"
    found = subprocess.run(["debugfs", "-R", "cat /usr/lib/text", image], capture_output=True, check=True).stdout
    assert found == b"golden " * 60_000


def test_a_tree_that_does_not_fit_is_an_error(tmp_path: Path) -> None:
    tree = tiny_tree(tmp_path / "tree")
    (tree / "big").write_bytes(bytes(1000) * 90_000)
    with pytest.raises(ImageError, match="making the filesystem of compute"):
        ext4.make(tree, tmp_path / "fs", name="compute", size=80 << 20, inodes=100)


def test_a_damaged_filesystem_is_not_repaired_by_guess(tmp_path: Path) -> None:
    tree = tiny_tree(tmp_path / "tree")
    ext4.make(tree, tmp_path / "fs", name="compute", size=256 << 20, inodes=100)
    subprocess.run(["debugfs", "-w", "-R", "clri <2>", tmp_path / "fs"], capture_output=True, check=True)
    with pytest.raises(CommandFailed, match="the filesystem is damaged"):
        ext4.check(tmp_path / "fs")
