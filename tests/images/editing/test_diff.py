"""Trees and versions compared: every kind of difference, and no other."""

from __future__ import annotations

import os
import shutil
import time
from pathlib import Path

import pytest

from images.disk import hold
from images.editing.diff import SCRATCH, SETTLED, Change, changes, scratch, two_versions
from images.errors import ImageError, SourceInvalid
from images.namespace import loop_of
from images.publish import Part, publish
from images.store import Store
from images.working import publish_tree
from tests.images.sound import damaged
from tests.images.systems import link, put
from tests.images.tinytree import tiny_tree

pytestmark = [pytest.mark.root, pytest.mark.skipif(os.geteuid() != 0, reason="needs root")]


def pair(tmp_path: Path) -> tuple[Path, Path]:
    """Two equal trees."""
    one = tmp_path / "one"
    put(one, "a/file", "text")
    put(one, "a/sub/file", "text")
    put(one, "z", "text")
    link(one, "link", "a/file")
    os.mkfifo(one / "pipe")
    os.mknod(one / "device", 0o20600, os.makedev(1, 3))
    os.setxattr(one / "z", "user.x", b"1")
    shutil.copytree(one / "a", tmp_path / "two/a")
    two = tmp_path / "two"
    shutil.copy2(one / "z", two / "z")
    link(two, "link", "a/file")
    os.mkfifo(two / "pipe")
    os.mknod(two / "device", 0o20600, os.makedev(1, 3))
    return one, two


def test_equal_trees_have_no_changes(tmp_path: Path) -> None:
    one, two = pair(tmp_path)
    os.utime(two / "z", (1, 1))
    assert list(changes(one, two)) == []


def test_every_kind_of_change(tmp_path: Path) -> None:
    one, two = pair(tmp_path)
    put(two, "a/new/deep", "x")
    shutil.rmtree(two / "a/sub")
    (two / "a/sub").symlink_to("x")
    (two / "a/file").write_text("TEXT")
    (two / "a/file").chmod(0o600)
    os.chown(two / "z", 5, 6)
    os.setxattr(two / "z", "user.x", b"2")
    os.setxattr(two / "z", "user.y", b"")
    (two / "link").unlink()
    link(two, "link", "b")
    (two / "device").unlink()
    os.mknod(two / "device", 0o20600, os.makedev(1, 5))
    (two / "pipe").unlink()
    put(two, "last", "longer")
    put(one, "last", "long")
    assert list(changes(one, two)) == [
        Change("/device", "changed", ("device 1:3 to 1:5",)),
        Change("/last", "changed", ("size 4 to 6",)),
        Change("/link", "changed", ("target a/file to b",)),
        Change("/pipe", "removed"),
        Change("/z", "changed", ("owner 0:0 to 5:6", "attribute user.x", "attribute user.y")),
        Change("/a/file", "changed", ("mode 0644 to 0600", "content")),
        Change("/a/new", "added"),
        Change("/a/sub", "changed", ("directory became link",)),
        Change("/a/new/deep", "added"),
        Change("/a/sub/file", "removed"),
    ]


def test_names_that_are_no_text(tmp_path: Path) -> None:
    one, two = pair(tmp_path)
    (two / os.fsdecode(b"\xff\n")).touch()
    assert list(changes(one, two)) == [Change("/\udcff\n", "added")]


def test_a_tree_that_cannot_be_read_is_said(tmp_path: Path) -> None:
    one, _ = pair(tmp_path)
    with pytest.raises(ImageError, match="comparing two trees: No such file"):
        list(changes(one, tmp_path / "none"))


def test_the_consumers_own_errors_are_left_alone(tmp_path: Path) -> None:
    one, two = pair(tmp_path)
    (two / "new").touch()
    with pytest.raises(BrokenPipeError):
        for _ in changes(one, two):
            raise BrokenPipeError


def test_versions_of_two_lineages_from_packs_and_from_the_working_image(tmp_path: Path) -> None:
    store = Store(tmp_path / "store")
    tree = tiny_tree(tmp_path / "tree")
    for name in ("x", "y"):
        with store.lineage_lock(name):
            (tree / "etc/which").write_text(name)
            publish_tree(store, name, tree)
    with store.lineage_lock("x"):
        (tree / "usr/lib/text").unlink()
        publish_tree(store, "x", tree)

    def found(before: str, after: str) -> list[Change]:
        one, two = store.load(before)[0], store.load(after)[0]
        return two_versions(store, one, two, lambda a, b, tell: list(changes(a, b, on_entry=tell)))

    assert found("x:1", "x:2") == [
        Change("/etc/which", "changed", ("content",)),
        Change("/usr/lib/text", "removed"),
    ]
    assert found("y:1", "x:1")[0] == Change("/etc/which", "changed", ("content",))
    assert found("x:2", "x:2") == []
    assert sorted(p.name for p in (store.root / "work").iterdir()) == ["x", "y"]
    assert not loop_of(store.work("x") / "current/root.img") and damaged(store, "x:2") == []


def test_a_disk_kept_bit_for_bit_is_not_opened(tmp_path: Path) -> None:
    store = Store(tmp_path / "store")
    (tmp_path / "disk").write_bytes(b"x" * 5000)
    with store.lineage_lock("x"):
        publish(store, "x", [Part("whole", tmp_path / "disk", "whole", "")])
    manifest = store.load("x")[0]
    with pytest.raises(SourceInvalid, match="bit for bit"):
        two_versions(store, manifest, manifest, lambda a, b, tell: None)
    assert list((store.root / "work").iterdir()) == []


def test_scratch_of_killed_processes_is_cleared_and_of_living_ones_not(tmp_path: Path) -> None:
    store = Store(tmp_path / "store")
    dead, alive = (store.root / "work" / f"{SCRATCH}{name}" for name in ("dead", "alive"))
    for directory in (dead, alive):
        (directory / "before").mkdir(parents=True)
        os.utime(directory, (time.time() - SETTLED - 1,) * 2)
    (alive / ".lock").touch()
    os.utime(alive, (time.time() - SETTLED - 1,) * 2)
    with hold(alive / ".lock", exclusive=True, what="it"), scratch(store) as own:
        assert own.is_dir() and alive.is_dir() and not dead.exists()
    assert not own.exists()
