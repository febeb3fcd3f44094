"""Syncing trees: the target becomes the source, and what was equal is not touched."""

from __future__ import annotations

import os
import random
import stat
from pathlib import Path

import pytest

from images.treesync import sync_tree

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")


def picture(root: Path) -> tuple[dict[str, object], set[frozenset[str]]]:
    """Everything a tree consists of, comparable; and its groups of hard links."""
    found: dict[str, object] = {}
    groups: dict[int, set[str]] = {}
    for directory, names, files in os.walk(root):
        for name in (*names, *files):
            path = os.path.join(directory, name)
            status = os.lstat(path)
            kind = stat.S_IFMT(status.st_mode)
            content: object = b""
            if stat.S_ISREG(kind):
                content = Path(path).read_bytes()
            elif stat.S_ISLNK(kind):
                content = os.readlink(path)
            elif stat.S_ISCHR(kind) or stat.S_ISBLK(kind):
                content = status.st_rdev
            attributes = {
                a: os.getxattr(path, a, follow_symlinks=False) for a in os.listxattr(path, follow_symlinks=False)
            }
            relative = os.path.relpath(path, root)
            found[relative] = (
                status.st_mode, status.st_uid, status.st_gid, int(status.st_mtime), content, attributes,
            )  # fmt: skip
            if status.st_nlink > 1 and not stat.S_ISDIR(kind):
                groups.setdefault(status.st_ino, set()).add(relative)
    return found, {frozenset(group) for group in groups.values()}


def grow(root: Path, seed: int) -> Path:
    """A tree that is mostly the same for every seed, with differences of every kind."""
    chance = random.Random(seed)
    root.mkdir()
    for number in range(40):
        path = root / f"d{number % 5}" / f"f{number}"
        path.parent.mkdir(exist_ok=True)
        kind = chance.choice(["same", "same", "same", "data", "link", "hard", "dir", "device", "fifo", "none"])
        if kind in ("same", "data"):
            path.write_bytes(b"same" * 1000 if kind == "same" else chance.randbytes(chance.choice([0, 10, 2_000_000])))
            os.chmod(path, chance.choice([0o644, 0o4755, 0o600]))
            os.chown(path, chance.choice([0, 5]), 6)
            if chance.random() < 0.3:
                os.setxattr(path, "user.x", chance.randbytes(5))
        elif kind == "link":
            os.symlink(f"/nowhere/{chance.randrange(3)}", path)
        elif kind == "hard":
            other = chance.choice(sorted(p for p in root.rglob("*") if p.is_file() and not p.is_symlink()) or [None])
            if other is not None:
                os.link(other, path)
        elif kind == "dir":
            (path / "deep").mkdir(parents=True)
            (path / "deep" / "file").write_text("x")
        elif kind == "device":
            os.mknod(path, stat.S_IFCHR | 0o620, os.makedev(4, chance.randrange(3)))
        elif kind == "fifo":
            os.mkfifo(path)
        if os.path.lexists(path):
            os.utime(path, (5, chance.choice([7, 8])), follow_symlinks=False)
    return root


@pytest.mark.parametrize("seed", range(12))
def test_any_tree_becomes_any_other(tmp_path: Path, seed: int) -> None:
    source, target = grow(tmp_path / "source", seed), grow(tmp_path / "target", seed + 100)
    sync_tree(source, target)
    assert picture(target) == picture(source)
    again = sync_tree(source, target)
    assert (again.written, again.removed) == (0, 0) and picture(target) == picture(source)


def test_equal_content_keeps_its_inode_and_blocks(tmp_path: Path) -> None:
    for name in ("source", "target"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "file").write_bytes(b"a" * 3_000_000)
    before = (tmp_path / "target/file").stat()
    changes = sync_tree(tmp_path / "source", tmp_path / "target")
    after = (tmp_path / "target/file").stat()
    assert changes.written == 0 and after.st_ino == before.st_ino


def test_lost_and_found_belongs_to_the_target(tmp_path: Path) -> None:
    (tmp_path / "source").mkdir()
    (tmp_path / "target/lost+found").mkdir(parents=True)
    sync_tree(tmp_path / "source", tmp_path / "target")
    assert (tmp_path / "target/lost+found").is_dir()


def test_zeros_over_old_bytes_are_written(tmp_path: Path) -> None:
    for name, data in (("source", bytes(2_500_000)), ("target", b"old")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "file").write_bytes(data)
    sync_tree(tmp_path / "source", tmp_path / "target")
    assert (tmp_path / "target/file").read_bytes() == bytes(2_500_000)


def test_a_link_in_the_target_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside/keep").write_text("mine")
    (tmp_path / "source/etc").mkdir(parents=True)
    (tmp_path / "source/etc/keep").write_text("theirs")
    (tmp_path / "target").mkdir()
    os.symlink(tmp_path / "outside", tmp_path / "target/etc")
    sync_tree(tmp_path / "source", tmp_path / "target")
    assert (tmp_path / "outside/keep").read_text() == "mine" and (tmp_path / "target/etc/keep").read_text() == "theirs"
