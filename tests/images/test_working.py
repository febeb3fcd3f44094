"""Trees become versions: the whole way in and back out, through a real mount."""

from __future__ import annotations

import os
import struct
from pathlib import Path

import pytest

from images import working
from images.errors import SourceInvalid
from images.manifest import Manifest
from images.namespace import in_private_namespace, mounted
from images.options import Options
from images.store import Store
from images.working import publish_tree, restore
from tests.images.sound import damaged
from tests.images.test_treesync import picture
from tests.images.tinytree import KERNEL, tiny_tree

IMAGE = "current/root.img"
pytestmark = [pytest.mark.root, pytest.mark.skipif(os.geteuid() != 0, reason="needs root")]


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "store")


def put(store: Store, tree: Path) -> Manifest:
    with store.lineage_lock("x"):
        return publish_tree(store, "x", tree, Options(message="m"), source={"kind": "test"})


def view(store: Store, ref: str, tmp_path: Path) -> object:
    """What a node would see: the version restored, mounted and pictured."""
    manifest, _ = store.load(ref)
    restore(store, manifest, 0, tmp_path / "restored")
    (tmp_path / "at").mkdir(exist_ok=True)

    def look() -> object:
        with mounted(tmp_path / "restored", tmp_path / "at", read_only=True) as root:
            found, groups = picture(root)
            found.pop("lost+found")
            return found, groups

    return in_private_namespace(look)


def test_a_tree_comes_back_with_owners_links_and_attributes(tmp_path: Path, store: Store) -> None:
    tree = tiny_tree(tmp_path / "tree")
    manifest = put(store, tree)
    assert view(store, "x", tmp_path) == picture(tree)
    assert manifest.arch == "amd64" and (manifest.system["id"], manifest.system["version"]) == ("debian", "12")
    (kernel,) = manifest.system["kernels"]
    assert kernel["version"] == KERNEL and kernel["generic"] and "nvme" in kernel["modules"]
    assert any(check["name"] == "ssh host keys" and check["found"] for check in manifest.checks)


def test_the_same_tree_twice_stores_the_superblock_at_most(tmp_path: Path, store: Store) -> None:
    put(store, tiny_tree(tmp_path / "one"))
    before = sum(p.stat().st_size for p in store.packs.glob("*.pack"))
    second = put(store, tiny_tree(tmp_path / "two"))
    new = sum(p.stat().st_size for p in store.packs.glob("*.pack")) - before
    assert second.version == 2 and new < 20_000


def test_a_changed_tree_is_synced_into_the_last_image(tmp_path: Path, store: Store) -> None:
    put(store, tiny_tree(tmp_path / "one"))
    tree = tiny_tree(tmp_path / "two", seed=2)
    (tree / "usr/lib/text").unlink()
    (tree / "usr/lib/more").write_bytes(os.urandom(100_000))
    put(store, tree)
    assert view(store, "x:2", tmp_path) == picture(tree)
    assert damaged(store, "x:1") == [] == damaged(store, "x:2")


def test_a_lost_working_image_is_rebuilt_from_packs(tmp_path: Path, store: Store) -> None:
    put(store, tiny_tree(tmp_path / "one"))
    (store.work("x") / IMAGE).unlink()
    before = sum(p.stat().st_size for p in store.packs.glob("*.pack"))
    tree = tiny_tree(tmp_path / "two")
    put(store, tree)
    assert sum(p.stat().st_size for p in store.packs.glob("*.pack")) - before < 20_000
    assert view(store, "x:2", tmp_path) == picture(tree)


def test_a_larger_tree_grows_the_image(tmp_path: Path, store: Store) -> None:
    first = put(store, tiny_tree(tmp_path / "one"))
    tree = tiny_tree(tmp_path / "two")
    (tree / "usr/lib/big").write_bytes(os.urandom(1 << 20) * 150)
    second = put(store, tree)
    assert second.partitions[0].size > first.partitions[0].size
    assert view(store, "x:2", tmp_path) == picture(tree)


@pytest.mark.parametrize("trouble", ["no etc", "no programs", "foreign"])
def test_what_is_no_system_is_refused_and_nothing_is_left(tmp_path: Path, store: Store, trouble: str) -> None:
    put(store, tiny_tree(tmp_path / "good"))
    image = (store.work("x") / IMAGE).stat()
    tree = tiny_tree(tmp_path / "bad")
    if trouble == "no etc":
        (tree / "etc").rename(tree / "etc2")
    elif trouble == "no programs":
        (tree / "usr/bin/env").write_text("#!/bin/sh\n")
    else:
        (tree / "usr/bin/env").write_bytes(b"\x7fELF\x02\x01\x01" + bytes(9) + struct.pack("<HH", 2, 243))
    with pytest.raises(SourceInvalid):
        put(store, tree)
    assert store.versions("x") == [1] and sorted(p.name for p in store.work("x").iterdir()) == ["current"]
    assert (store.work("x") / IMAGE).stat().st_ino == image.st_ino


def test_an_error_while_publishing_keeps_the_last_image(
    tmp_path: Path, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(store, tiny_tree(tmp_path / "one"))
    before = (store.work("x") / IMAGE).read_bytes()

    def fail(*_: object, **__: object) -> Manifest:
        raise SourceInvalid("trouble")

    monkeypatch.setattr(working, "publish", fail)
    with pytest.raises(SourceInvalid, match="trouble"):
        put(store, tiny_tree(tmp_path / "two", seed=5))
    assert (store.work("x") / IMAGE).read_bytes() == before
    assert sorted(p.name for p in store.work("x").iterdir()) == ["current"]
