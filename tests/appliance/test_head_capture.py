"""A golden client captured: the real agent reads a loop disk and sends it over TLS to the real head."""

from __future__ import annotations

import os
import shutil
import struct
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

import pytest

from appliance import head_capture
from appliance.errors import Wrong
from images import ext4, incoming, working
from images.errors import Busy, GildError
from images.manifest import Manifest
from images.namespace import in_private_namespace, mounted
from images.store import Store
from netboot.agent import facts
from netboot.report import Disk
from tests.appliance.tlshead import TlsHead
from tests.images.sametree import differences
from tests.images.sound import damaged
from tests.images.tinytree import tiny_tree
from tests.netboot.agent.lightnode import MIB
from tests.netboot.agent.loopdisk import loop_disk, needs_root

pytestmark = needs_root
T = TypeVar("T")
TABLE = """label: gpt
1 : start=2048, size=2048, type=21686148-6449-6E6F-744E-656564454649
2 : start=4096, size=65536, type=C12A7328-F81F-11D2-BA4B-00A0C93EC93B
3 : start=69632, size=32768, type=0657FD6D-A4AB-43C4-84E5-0933C84B4F4F
4 : start=102400, size=655360, type=0FC63DAF-8483-4772-8E79-3D69D8477DE4
5 : start=757760, size=327680, type=933AC7E1-2EB4-4F13-B844-0E14E2AEF915
"""
ROOT_AT, HOME_AT = 102400 * 512, 757760 * 512
DISK = 540 * MIB


@pytest.fixture
def head(tmp_path: Path) -> Iterator[TlsHead]:
    head = TlsHead(tmp_path)
    try:
        yield head
    finally:
        head.close()


@contextmanager
def golden(folder: Path) -> Iterator[tuple[Callable[[], tuple[Disk, ...]], Path, Path]]:
    """A disk with a system in partition 4 and its /home in partition 5; the trees are as they were put there."""
    tree, home = tiny_tree(folder / "tree"), folder / "home"
    (tree / "home").mkdir(exist_ok=True)
    (tree / "etc/by-hand").write_text("made by hand\n")
    (home / "ann").mkdir(parents=True)
    (home / "ann/thesis").write_bytes(os.urandom(300_000))
    (tree / "usr/lib/large").write_bytes(os.urandom(12 << 20))
    lines = [f"UUID={ext4.filesystem_uuid(name)} {at} ext4 defaults 0 2\n" for name, at in (("r", "/"), ("h", "/home"))]
    (tree / "etc/fstab").write_text("".join(lines))
    with loop_disk(folder, DISK) as found:
        subprocess.run(["sfdisk", "-q", found.path], input=TABLE.encode(), check=True, capture_output=True)
        for source, name, at, size in ((tree, "r", ROOT_AT, 655360 * 512), (home, "h", HOME_AT, 327680 * 512)):
            image = folder / f"{name}.img"
            ext4.make(source, image, name=name, size=size, inodes=2000)
            with image.open("rb") as data, open(found.path, "r+b") as disk:
                disk.seek(at)
                shutil.copyfileobj(data, disk, 1 << 20)
            image.unlink()
        yield (lambda: (replace(facts.read_disk(os.path.basename(found.path)), serial="G"),)), tree, home


def restored(store: Store, manifest: Manifest, folder: Path, against: Path, index: int) -> list[str]:
    """How partition `index` of a version differs from a tree."""
    image, at = folder / "restored.img", folder / "restored"
    working.restore(store, manifest, index, image)
    at.mkdir(exist_ok=True)

    def compare() -> list[str]:
        with mounted(image, at, read_only=True) as root:
            # mke2fs gives the top of a filesystem its own time, and a directory of its own.
            told = differences(against, root)
            return [line for line in told if "lost+found" not in line and not line.startswith("''")]

    return in_private_namespace(compare)


def test_a_golden_client_becomes_a_version_and_only_new_chunks_are_sent(tmp_path: Path, head: TlsHead) -> None:
    with golden(tmp_path) as (disk, tree, home):
        with open(disk()[0].path, "rb") as raw:
            before = raw.read()
        shown = head.order(message="by hand", preview=True)
        assert shown["image"] == "gold:1" and head.store.images() == []
        head.order(message="by hand")
        assert head.agent(disk).left == "reboot"
        assert head.settled() == "ready", head.timeline()
        manifest, _ = head.store.load("gold")
        assert [p.role for p in manifest.partitions] == ["root", "home"] and manifest.message == "by hand"
        assert manifest.system["mounts"] == {"root": "/", "home": "/home"} and manifest.source["kind"] == "capture"
        assert damaged(head.store, "gold") == []
        with open(disk()[0].path, "rb") as raw:
            assert raw.read() == before, "the golden client was written to"
        assert restored(head.store, manifest, tmp_path, home, 1) == []
        # What identifies the client is gone, everything else is the same.
        told = restored(head.store, manifest, tmp_path, tree, 0)
        kept = ("by-hand", "fstab", "usr/bin", "usr/lib/large", "usr/lib/text", "passwd")
        assert not any(word in line for word in kept for line in told), told
        assert any("ssh_host" in line for line in told), told
        assert "captured as gold:1" in head.timeline()

        # Once more: nothing but what the head changed itself has to come.
        first, head.posts = head.posts["/node/capture/chunks"], {}
        head.order()
        assert head.agent(disk, "again").left == "reboot"
        assert head.settled() == "ready", head.timeline()
        assert head.store.versions("gold") == [1, 2]
        assert head.posts.get("/node/capture/chunks", 0) < first / 4

        # It has a system of its own, which it gets at every boot that no order is for.
        assert "sanboot" in head.call(head.machine.boot) or "exit" in head.call(head.machine.script)


def test_a_lost_answer_and_a_head_that_is_away_do_no_harm(tmp_path: Path, head: TlsHead) -> None:
    seen: dict[str, int] = {}

    def bend(path: str) -> int:
        seen[path] = seen.get(path, 0) + 1
        return {1: 2, 2: 1}.get(seen[path], 0) if path.startswith("/node/capture/") else 0

    with golden(tmp_path) as (disk, _, _):
        head.order()
        head.bend = bend
        assert head.agent(disk).left == "reboot"
        assert head.settled() == "ready" and damaged(head.store, "gold:1") == [], head.timeline()


def test_a_capture_that_is_taken_back_gives_everything_back(tmp_path: Path, head: TlsHead) -> None:
    with golden(tmp_path) as (disk, _, _):
        head.order()

        def bend(path: str) -> int:
            if path == "/node/capture/chunks":
                head.rack.head.cancel([head.machine.mac])
            return 0

        head.bend = bend
        head.spawn(disk)
        for _ in range(300):
            head.call(lambda: head.rack.head.tick())
            if "not captured" in head.timeline() or "taken back" in head.timeline():
                break
            threading.Event().wait(0.1)
        for _ in range(100):
            try:
                with head.store.lineage_lock("gold"):
                    break  # nobody holds it any more
            except Busy:
                threading.Event().wait(0.1)
        assert head.store.images() == [] and not (head.store.work("gold") / "next").exists()
        with head.store.lineage_lock("gold"):
            pass


def test_a_machine_that_is_back_before_its_version_is_made_is_not_read_again(
    tmp_path: Path, head: TlsHead, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, go = head_capture._published, threading.Event()

    def slow(*arguments: Any) -> str:
        assert go.wait(60)
        return real(*arguments)

    monkeypatch.setattr(head_capture, "_published", slow)
    with golden(tmp_path) as (disk, _, _):
        head.order()
        assert head.agent(disk).left == "reboot"
        script = head.call(head.machine.boot)
        assert "sanboot" in script or "exit" in script, script
        assert head.agent(disk, "again").left == "reboot", "one that is in the installer all the same"
        assert head.call(lambda: head.rack.state_of(head.machine.mac)) == "capturing"
        go.set()
        assert head.settled() == "ready", head.timeline()
        assert head.store.versions("gold") == [1] and "captured as gold:1" in head.timeline()


def test_one_that_is_taken_back_while_room_is_made_for_it_leaves_nothing(
    tmp_path: Path, head: TlsHead, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun, go, made = threading.Event(), threading.Event(), threading.Event()

    class Slow(incoming.Incoming):
        def __init__(self, *arguments: Any) -> None:
            begun.set()
            assert go.wait(60)
            super().__init__(*arguments)
            made.set()

    monkeypatch.setattr(incoming, "Incoming", Slow)
    with golden(tmp_path) as (disk, _, _):
        head.order()
        head.spawn(disk)
        assert begun.wait(60)
        head.call(lambda: head.rack.head.cancel([head.machine.mac]))
        head.call(lambda: head.rack.head.tick())
        go.set()
        assert made.wait(60)
        for _ in range(300):
            if not (head.store.work("gold") / "next").exists():
                break
            threading.Event().wait(0.1)
        assert not (head.store.work("gold") / "next").exists()
        with head.store.lineage_lock("gold"):
            assert head.store.images() == []


@pytest.mark.parametrize(
    ("kind", "words"), [("lvm", "physical volume of LVM"), ("none", "no filesystem"), ("data", "holds a system")]
)
def test_a_disk_that_cannot_be_captured_is_told_and_the_node_stays(
    tmp_path: Path, head: TlsHead, kind: str, words: str
) -> None:
    with loop_disk(tmp_path, 200 * MIB) as found:
        table = "label: gpt\n1 : start=2048, size=300000, type=0FC63DAF-8483-4772-8E79-3D69D8477DE4\n"
        subprocess.run(["sfdisk", "-q", found.path], input=table.encode(), check=True, capture_output=True)
        if kind == "lvm":
            with open(found.path, "r+b") as disk:
                disk.seek(MIB + 512)
                disk.write(b"LABELONE" + struct.pack("<QII", 1, 0, 32) + b"LVM2 001")
        elif kind == "data":
            image = tmp_path / "fs"
            (tmp_path / "empty").mkdir()
            ext4.make(tmp_path / "empty", image, name="x", size=145 * MIB, inodes=100)
            with open(found.path, "r+b") as disk:
                disk.seek(MIB)
                disk.write(image.read_bytes())
        head.order()
        seen = (replace(facts.read_disk(os.path.basename(found.path)), serial="G"),)
        head.spawn(lambda: seen)
        for _ in range(300):
            if "not captured" in head.timeline():
                break
            threading.Event().wait(0.1)
        assert words in head.timeline(), head.timeline()
        assert head.settled() == "ready" and head.store.images() == []
        assert list((head.store.root / "work").glob("*/next")) == []


def test_a_disk_without_a_partition_table_is_one_filesystem(tmp_path: Path, head: TlsHead) -> None:
    with loop_disk(tmp_path, 200 * MIB) as found:
        image = tmp_path / "fs"
        ext4.make(tiny_tree(tmp_path / "tree"), image, name="x", size=200 * MIB, inodes=2000)
        with image.open("rb") as data, open(found.path, "r+b") as disk:
            shutil.copyfileobj(data, disk, 1 << 20)
        head.order()
        seen = (replace(facts.read_disk(os.path.basename(found.path)), serial="G"),)
        assert head.agent(lambda: seen).left == "reboot"
        assert head.settled() == "ready" and head.store.versions("gold") == [1], head.timeline()


def test_what_cannot_be_ordered(head: TlsHead) -> None:
    with pytest.raises(GildError, match="nonsense"):
        head.order(preview=True, disk="nonsense")
    with pytest.raises(Wrong, match="names a version"):
        head.call(lambda: head.rack.head.capture(head.machine.mac, "gold:2"))
