"""The comparer of trees sees each kind of difference, and none where there is none."""

from __future__ import annotations

import os
import shutil
import stat
import struct
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.images.sametree import differences
from tests.images.test_treesync import grow

pytestmark = [pytest.mark.root, pytest.mark.skipif(os.geteuid() != 0, reason="needs root")]

# linux/posix_acl_xattr.h: user::rw-, user:7:r-x, group::r--, mask::rwx, other::---
ENTRIES = [(0x01, 6, 0xFFFFFFFF), (0x02, 5, 7), (0x04, 4, 0xFFFFFFFF), (0x10, 7, 0xFFFFFFFF), (0x20, 0, 0xFFFFFFFF)]
ACL = struct.pack("<I", 2) + b"".join(struct.pack("<HHI", *entry) for entry in ENTRIES)
CAPABILITY = bytes.fromhex("0100000200200000000000000000000000000000")


def build(root: Path) -> Path:
    (root / "d/e").mkdir(parents=True)
    (root / "d/file").write_bytes(b"x" * 3_000_000)
    (root / "d/other").write_bytes(b"y")
    os.link(root / "d/file", root / "d/e/hard")
    os.symlink("file", root / "d/link")
    os.mknod(root / "d/device", stat.S_IFCHR | 0o600, os.makedev(1, 3))
    os.mkfifo(root / "d/fifo")
    os.setxattr(root / "d/other", "user.note", b"1")
    for path in (*root.rglob("*"), root):
        os.utime(path, (5, 7), follow_symlinks=False)
    return root


def poke(path: Path, at: int) -> None:
    with path.open("r+b") as file:
        file.seek(at)
        file.write(b"z")


def relink(root: Path) -> None:
    (root / "d/e/hard").unlink()
    shutil.copy2(root / "d/file", root / "d/e/hard")
    os.utime(root / "d/e", (5, 7))


def replace(root: Path, name: str, make: Callable[[Path], None]) -> None:
    (root / name).unlink()
    make(root / name)
    for path in (root / name, (root / name).parent):
        os.utime(path, (5, 7), follow_symlinks=False)


CHANGES: dict[str, Callable[[Path], object]] = {
    "'d/file': content differs at byte 2000000": lambda r: poke(r / "d/file", 2000000),
    "'d/other': size 1 against 2": lambda r: (r / "d/other").write_bytes(b"yy"),
    "'d/e': mode 0755 against 0700": lambda r: os.chmod(r / "d/e", 0o700),
    "'d/link': owner 0:0 against 4:5": lambda r: os.chown(r / "d/link", 4, 5, follow_symlinks=False),
    "'': time 7 against 8": lambda r: os.utime(r, (5, 8)),
    "'d/fifo': a fifo against a file": lambda r: replace(r, "d/fifo", Path.touch),
    "'d/link': link to 'file' against 'other'": lambda r: replace(r, "d/link", lambda p: p.symlink_to("other")),
    "'d/device': device 1:3 against 1:5": lambda r: replace(
        r, "d/device", lambda p: os.mknod(p, stat.S_IFCHR | 0o600, os.makedev(1, 5))
    ),
    "'d/other': attribute user.note 31 against none": lambda r: os.removexattr(r / "d/other", "user.note"),
    "'d/other': attribute security.capability none": lambda r: os.setxattr(
        r / "d/other", "security.capability", CAPABILITY
    ),
    "'d/other': attribute system.posix_acl_access none": lambda r: os.setxattr(
        r / "d/other", "system.posix_acl_access", ACL
    ),
    "'d/e/hard': one file with ['d/file'] against []": relink,
    "'d/new': a file only in": lambda r: (r / "d/new").touch(),
    "'d/fifo': a fifo only in": lambda r: (r / "d/fifo").unlink(),
}


@pytest.mark.parametrize("expected", CHANGES)
def test_each_difference_is_seen(tmp_path: Path, expected: str) -> None:
    one, other = build(tmp_path / "one"), build(tmp_path / "other")
    assert differences(one, other) == []
    CHANGES[expected](other)
    for path in (other / "d", other / "d/other", other / "d/file"):
        os.utime(path, (5, 7))
    assert any(line.startswith(expected) for line in differences(one, other)), differences(one, other)


@pytest.mark.parametrize("seed", range(3))
def test_two_trees_of_one_seed_are_the_same_and_of_two_are_not(tmp_path: Path, seed: int) -> None:
    one, other, third = (grow(tmp_path / n, s) for n, s in (("a", seed), ("b", seed), ("c", seed + 1)))
    assert differences(one, other, times=False) == []
    assert differences(one, third, times=False)


def test_what_is_left_out_is_not_compared(tmp_path: Path) -> None:
    one, other = build(tmp_path / "one"), build(tmp_path / "other")
    (other / "lost+found").mkdir()
    os.utime(other, (5, 8))
    assert differences(one, other, ignore=["lost+found"], times=False) == []
    assert len(differences(one, other)) == 2
