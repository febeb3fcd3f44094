"""Private mounts: seen inside, invisible outside, gone afterwards."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from images import ext4
from images.errors import CommandFailed
from images.namespace import in_private_namespace, loop_of, mounted
from tests.images.tinytree import tiny_tree

pytestmark = [pytest.mark.root, pytest.mark.skipif(os.geteuid() != 0, reason="needs root")]


@pytest.fixture
def image(tmp_path: Path) -> Path:
    ext4.make(tiny_tree(tmp_path / "tree"), tmp_path / "fs", name="x", size=256 << 20, inodes=100)
    return tmp_path / "fs"


def test_a_mount_is_seen_by_its_thread_alone(tmp_path: Path, image: Path) -> None:
    at = tmp_path / "at"
    at.mkdir()
    seen: list[bool] = []

    def work() -> str:
        with mounted(image, at) as root:
            seen.append((root / "etc").is_dir())
            seen.append(str(at) in Path("/proc/self/mountinfo").read_text())
            (root / "new").write_text("written")
            return loop_of(image)

    assert in_private_namespace(work).startswith("loop")
    assert seen == [True, False] and list(at.iterdir()) == [] and loop_of(image) == ""
    assert in_private_namespace(lambda: _read(image, at, "new")) == "written"


def _read(image: Path, at: Path, name: str) -> str:
    with mounted(image, at, read_only=True) as root:
        return (root / name).read_text()


def test_deleted_blocks_are_given_back(tmp_path: Path, image: Path) -> None:
    at = tmp_path / "at"
    at.mkdir()

    def fill(delete: bool) -> None:
        with mounted(image, at) as root:
            if delete:
                (root / "big").unlink()
            else:
                (root / "big").write_bytes(os.urandom(20 << 20))

    in_private_namespace(lambda: fill(False))
    full = image.stat().st_blocks
    in_private_namespace(lambda: fill(True))
    assert image.stat().st_blocks * 512 < full * 512 - (19 << 20)


def test_an_error_inside_is_raised_outside_and_leaves_no_mount(tmp_path: Path, image: Path) -> None:
    at = tmp_path / "at"
    at.mkdir()

    def work() -> None:
        with mounted(image, at):
            raise ValueError("inside")

    with pytest.raises(ValueError, match="inside"):
        in_private_namespace(work)
    assert loop_of(image) == ""


def test_what_is_no_filesystem_is_not_mounted(tmp_path: Path) -> None:
    (tmp_path / "junk").write_bytes(b"junk" * 5000)
    (tmp_path / "at").mkdir()

    def work() -> None:
        with mounted(tmp_path / "junk", tmp_path / "at"):
            pass

    with pytest.raises(CommandFailed, match="mounting junk"):
        in_private_namespace(work)
