"""A golden client captured: the real agent reads a loop disk and sends it over TLS to the real head."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import ssl
import struct
import subprocess
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

import pytest
from aiohttp import web

from appliance.errors import Wrong
from appliance.web.app import application, runner
from appliance.web.node_api import NodeApi
from images import ext4, working
from images.errors import GildError
from images.manifest import Manifest
from images.namespace import in_private_namespace, mounted
from images.store import Store
from netboot.agent import facts
from netboot.agent.__main__ import story
from netboot.report import HELLO, Disk, Hello
from netboot.wire import decode, encode
from tests.appliance.rack import Machine, Rack
from tests.images.sametree import differences
from tests.images.tinytree import tiny_tree
from tests.netboot.agent.lightnode import MIB, LightMachine
from tests.netboot.agent.loopdisk import loop_disk, needs_root
from tests.netboot.agent.smallhead import certificate, public

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


class Loop:
    """A head with a real store behind its node API, on an event loop of its own; one machine that is approved."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.store = folder, Store(folder / "store")
        self.pem = certificate(folder)
        self.loop = asyncio.new_event_loop()
        self.thread = threading.Thread(target=self.loop.run_forever, daemon=True)
        self.thread.start()
        self.posts: dict[str, int] = {}
        self.bend: Callable[[str], int] = lambda path: 0
        self.rack, self.machine = self.call(self._rack)
        self.port = asyncio.run_coroutine_threadsafe(self._serve(), self.loop).result(20)

    def call(self, work: Callable[[], T]) -> T:
        """Run `work` where the head lives."""
        done: Future[T] = Future()

        def body() -> None:
            try:
                done.set_result(work())
            except BaseException as error:
                done.set_exception(error)

        self.loop.call_soon_threadsafe(body)
        return done.result(60)

    def _rack(self) -> tuple[Rack, Machine]:
        (self.folder / "state").mkdir()
        rack = Rack(self.folder / "state")
        rack.images = self.store  # type: ignore[assignment]
        rack.stop()
        rack.start()
        machine = rack.machine(1)
        machine.boot()
        return rack, machine

    async def _serve(self) -> int:
        api = NodeApi(self.rack.head)

        async def hello(request: web.Request) -> web.Response:
            said = replace(decode(Hello, await request.read()), mac=self.machine.mac)
            # On one machine everybody comes from the loopback address; the head wants the node's own.
            return web.Response(body=encode(self.rack.head.hello(said, self.machine.address)))

        @web.middleware
        async def count(request: web.Request, handler: Any) -> web.StreamResponse:
            self.posts[request.path] = self.posts.get(request.path, 0) + (request.content_length or 0)
            if status := self.bend(request.path):
                await request.read()
                if status == 1 and request.transport is not None:
                    await handler(request)
                    request.transport.abort()  # done, but the answer is lost
                return web.Response(status=503)
            answer: web.StreamResponse = await handler(request)
            return answer

        app = application([web.post(HELLO, hello), *api.routes()[1:]])
        app.middlewares.append(count)
        self.runner = runner(app)
        await self.runner.setup()
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self.pem)
        site = web.TCPSite(self.runner, "127.0.0.1", 0, ssl_context=context)
        await site.start()
        return int(self.runner.addresses[0][1])

    def order(self, **given: Any) -> dict[str, Any]:
        return self.call(lambda: self.rack.head.capture(self.machine.mac, "gold", **given))

    def agent(self, disk: Callable[[], tuple[Disk, ...]], name: str = "agent") -> LightMachine:
        """One boot of the installer, to its end."""
        folder = self.folder / name
        (folder / "etc").mkdir(parents=True, exist_ok=True)
        (folder / "etc/head.pem").write_text(public(self.pem))
        (folder / "etc/settings.json").write_text(json.dumps({"head": "127.0.0.1", "https_port": self.port}))
        machine = LightMachine(etc=str(folder / "etc"), run=str(folder / "run"), mnt=str(folder / "mnt"))
        machine.disks = disk
        machine.command = {"BOOTIF": "01-" + self.machine.mac.replace(":", "-")}
        assert story(machine) == 0
        return machine

    def settled(self) -> str:
        """The node's state once nothing is being published any more."""
        for _ in range(600):
            self.call(lambda: self.rack.head.tick())
            if not self.call(lambda: dict(self.rack.head._captures.running)):
                break
            threading.Event().wait(0.1)
        return self.call(lambda: self.rack.state_of(self.machine.mac))

    def timeline(self) -> str:
        return self.call(lambda: self.rack.timeline(self.machine.mac))

    def close(self) -> None:
        asyncio.run_coroutine_threadsafe(self.runner.cleanup(), self.loop).result(20)
        self.call(self.rack.stop)
        self.loop.call_soon_threadsafe(self.loop.stop)
        self.thread.join(10)


@pytest.fixture
def head(tmp_path: Path) -> Iterator[Loop]:
    loop = Loop(tmp_path)
    try:
        loop.call(lambda: loop.rack.head.approve([loop.machine.mac]))
        loop.call(lambda: loop.rack.await_keys(loop.machine))
        yield loop
    finally:
        loop.close()


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


def test_a_golden_client_becomes_a_version_and_only_new_chunks_are_sent(tmp_path: Path, head: Loop) -> None:
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
        assert head.store.verify("gold") == []
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


def test_a_lost_answer_and_a_head_that_is_away_do_no_harm(tmp_path: Path, head: Loop) -> None:
    seen: dict[str, int] = {}

    def bend(path: str) -> int:
        seen[path] = seen.get(path, 0) + 1
        return {1: 2, 2: 1}.get(seen[path], 0) if path.startswith("/node/capture/") else 0

    with golden(tmp_path) as (disk, _, _):
        head.order()
        head.bend = bend
        assert head.agent(disk).left == "reboot"
        assert head.settled() == "ready" and head.store.verify("gold:1") == [], head.timeline()


def test_a_capture_that_is_taken_back_gives_everything_back(tmp_path: Path, head: Loop) -> None:
    with golden(tmp_path) as (disk, _, _):
        head.order()

        def bend(path: str) -> int:
            if path == "/node/capture/chunks":
                head.rack.head.cancel([head.machine.mac])
            return 0

        head.bend = bend
        machine = LightMachine()
        thread = threading.Thread(target=lambda: machine.screen.append(str(head.agent(disk))), daemon=True)
        thread.start()
        for _ in range(300):
            head.call(lambda: head.rack.head.tick())
            if "not captured" in head.timeline() or "taken back" in head.timeline():
                break
            threading.Event().wait(0.1)
        for _ in range(100):
            if not (head.store.work("gold") / "next").exists():
                break
            threading.Event().wait(0.1)
        assert head.store.images() == [] and not (head.store.work("gold") / "next").exists()
        with head.store.lineage_lock("gold"):
            pass  # nobody holds it any more


@pytest.mark.parametrize(
    ("kind", "words"), [("lvm", "physical volume of LVM"), ("none", "no filesystem"), ("data", "holds a system")]
)
def test_a_disk_that_cannot_be_captured_is_told_and_the_node_stays(
    tmp_path: Path, head: Loop, kind: str, words: str
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
        threading.Thread(target=head.agent, args=(lambda: seen,), daemon=True).start()
        for _ in range(300):
            if "not captured" in head.timeline():
                break
            threading.Event().wait(0.1)
        assert words in head.timeline(), head.timeline()
        assert head.settled() == "ready" and head.store.images() == []
        assert list((head.store.root / "work").glob("*/next")) == []


def test_what_cannot_be_ordered(head: Loop) -> None:
    with pytest.raises(GildError, match="nonsense"):
        head.order(preview=True, disk="nonsense")
    with pytest.raises(Wrong, match="names a version"):
        head.call(lambda: head.rack.head.capture(head.machine.mac, "gold:2"))
