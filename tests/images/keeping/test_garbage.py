"""Garbage: what goes, what stays, and why."""

from __future__ import annotations

import os
import time
from contextlib import suppress
from pathlib import Path

import pytest

from images.errors import Busy, ManifestInvalid
from images.keeping.garbage import collect, dead, sweep
from images.namespace import in_private_namespace
from images.packs import read_index, write_mark
from images.run import run
from images.store import Store
from tests.images.smallstore import add, contents
from tests.images.sound import damaged


@pytest.fixture
def store(tmp_path: Path) -> Store:
    made = Store(tmp_path / "store")
    one = add(made, "x", {"root": [1, 2, 3, 4]})
    add(made, "x", {"root": [1, 5]}, share=one.packs)
    return made


def test_a_preview_says_what_and_why_and_removes_nothing(store: Store) -> None:
    (store.packs / ".tmp-1").write_bytes(b"x" * 5000)
    (store.root / "images/x/7.runs").write_bytes(b"x")
    (store.root / "work/x/next").mkdir(parents=True)
    (store.root / "work/x/next/root.img").write_bytes(b"x" * 9000)
    add(store, "y", {"root": [9]})
    pack = store.load("y")[0].packs[0]
    write_mark(store.packs, pack, {0})
    store.remove("y")
    before = contents(store.root)
    found = collect(store, dry_run=True, grace=0)
    assert {item.path: item.why for item in found.items} == {
        f"packs/{pack}.pack": "no version needs it",
        "packs/.tmp-1": "left by a command that was cut off",
        "images/x/7.runs": "its manifest is not there",
        "work/x/next": "left by a command that was cut off",
    }
    assert found.packs == (pack,) and found.leftovers == 3
    assert found.freed == sum(item.size for item in found.items) >= 5000 + 9000
    assert contents(store.root) == before
    assert collect(store, grace=0).items == found.items
    assert collect(store, grace=0).items == ()
    assert not [path for path in store.packs.iterdir() if path.name.startswith((pack, "."))]
    assert damaged(store, "x:1") == [] == damaged(store, "x:2")


def test_young_packs_stay(store: Store) -> None:
    add(store, "y", {"root": [9]})
    pack = store.load("y")[0].packs[0]
    store.remove("y")
    assert collect(store).packs == () and collect(store).kept == (pack,)
    old = time.time() - 25 * 3600
    os.utime(store.pack_path(pack), (old, old))
    assert collect(store).packs == (pack,)


def test_what_is_installed_stays(store: Store) -> None:
    digest = store.load("x:1")[1]
    collect(store, grace=0, live_versions=[digest])
    store.set_tag("x", 2)
    store.remove("x:1")
    with pytest.raises(Busy, match="still installs"):
        collect(store, grace=0, live_versions=[digest])


def test_while_one_manifest_cannot_be_read_nothing_goes(store: Store) -> None:
    (store.packs / ".tmp-1").write_bytes(b"x")
    store.manifest_path("x", 2).write_bytes(b"{}")
    with pytest.raises(ManifestInvalid):
        collect(store, grace=0)
    assert (store.packs / ".tmp-1").exists()


def test_dead_bytes_of_packs_that_stay(store: Store) -> None:
    pack = store.load("x:1")[0].packs[0]
    assert dead(store) == []
    store.set_tag("x", 2)
    store.remove("x:1")
    (row,) = dead(store)
    live = max(length for _, offset, length, _ in read_index(store.packs, pack).entries() if offset == 0)
    assert row.pack == pack and row.dead == row.size - live


def test_working_images_go_if_they_can_be_made_again(store: Store) -> None:
    for name in ("x", "gone"):
        (store.work(name) / "current").mkdir(parents=True)
        (store.work(name) / "current/root.img").write_bytes(b"x" * 9000)
    (store.work("x") / "held").mkdir()
    (store.work("x") / "current/digest").write_text(store.load("x:1")[1])
    (store.work("gone") / "current/digest").write_text("0" * 64)
    assert collect(store, dry_run=True).items == ()
    pack = store.pack_path(store.load("x:1")[0].packs[0])
    pack.rename(pack.with_suffix(".away"))
    assert collect(store, dry_run=True, work=True).items == (), "the packs are not there: it is the last copy"
    pack.with_suffix(".away").rename(pack)
    (item,) = collect(store, work=True).items
    assert (item.path, item.why) == ("work/x/current", "can be made again from packs") and item.size >= 9000
    assert not (store.work("x") / "current").exists() and (store.work("x") / "held").exists()


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
def test_nothing_is_removed_through_a_mount(store: Store, tmp_path: Path) -> None:
    (tmp_path / "precious").write_bytes(b"x")
    (store.work("x") / "tree/host dir").mkdir(parents=True)

    def body() -> int:
        run(["mount", "--bind", os.fspath(tmp_path), os.fspath(store.work("x") / "tree/host dir")])
        return len(collect(store, grace=0).items)

    assert in_private_namespace(body) == 0 and (tmp_path / "precious").exists()
    assert len(collect(store, grace=0).items) == 1 and (tmp_path / "precious").exists()


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
def test_on_a_disk_without_a_free_byte(tmp_path: Path) -> None:
    def body() -> tuple[int, int]:
        run(["mount", "-t", "tmpfs", "-o", "size=1m", "gild-test", os.fspath(tmp_path)])
        store = Store(tmp_path / "store")
        add(store, "x", {"root": [1]})
        with suppress(OSError), (store.packs / ".tmp-full").open("wb", buffering=0) as file:
            while True:
                file.write(bytes(4096))
        free = os.statvfs(tmp_path).f_bavail
        collect(store)
        return free, os.statvfs(tmp_path).f_bavail

    free, after = in_private_namespace(body)
    assert free == 0 and after > 200


def test_sweeping_waits_for_nobody(store: Store) -> None:
    (store.packs / ".tmp-1").write_bytes(b"x" * 5000)
    with store.lineage_lock("x"):
        assert sweep(store) == 0 and (store.packs / ".tmp-1").exists()
    assert sweep(store) >= 5000 and not (store.packs / ".tmp-1").exists()
