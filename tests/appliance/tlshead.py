"""A head with a real store behind its node API, over TLS on the loopback device; one machine that is approved."""

from __future__ import annotations

import asyncio
import json
import ssl
import threading
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

from aiohttp import web

from appliance.web.app import application, runner
from appliance.web.node_api import NodeApi
from images.store import Store
from netboot.agent.__main__ import story
from netboot.report import HELLO, NEXT, Answer, Disk, Do, Hello
from netboot.wire import decode, encode
from tests.appliance.rack import Machine, Rack
from tests.netboot.agent.lightnode import LightMachine
from tests.netboot.agent.smallhead import certificate, public

T = TypeVar("T")


class TlsHead:
    """A head with a real store behind its node API, on an event loop of its own; one machine that is approved."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.store = folder, Store(folder / "store")
        self.pem = certificate(folder)
        self.loop = asyncio.new_event_loop()
        self.thread = threading.Thread(target=self.loop.run_forever, daemon=True)
        self.thread.start()
        self.posts: dict[str, int] = {}
        self.over = False
        self._agents: list[threading.Thread] = []
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
        rack.head.approve([machine.mac])
        rack.await_keys(machine)
        return rack, machine

    async def _serve(self) -> int:
        api = NodeApi(self.rack.head)

        async def hello(request: web.Request) -> web.Response:
            said = replace(decode(Hello, await request.read()), mac=self.machine.mac)
            # On one machine everybody comes from the loopback address; the head wants the node's own.
            return web.Response(body=encode(self.rack.head.hello(said, self.machine.address)))

        async def following(request: web.Request) -> web.Response:
            if self.over:
                return web.Response(body=encode(Answer(Do.POWEROFF)))
            return await api.next(request)

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

        app = application([web.post(HELLO, hello), web.post(NEXT, following), *api.routes()[2:]])
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
        folder = self.client_folder(name)
        machine = LightMachine(etc=str(folder / "etc"), run=str(folder / "run"), mnt=str(folder / "mnt"))
        machine.disks = disk
        machine.command = {"BOOTIF": "01-" + self.machine.mac.replace(":", "-")}
        assert story(machine) == 0
        return machine

    def spawn(self, disk: Callable[[], tuple[Disk, ...]]) -> None:
        """An installer whose story ends with this head."""
        thread = threading.Thread(target=self.agent, args=(disk,), daemon=True)
        self._agents.append(thread)
        thread.start()

    def client_folder(self, name: str) -> Path:
        """What the head gives the installer: its certificate and where it is."""
        folder = self.folder / name
        (folder / "etc").mkdir(parents=True, exist_ok=True)
        (folder / "etc/head.pem").write_text(public(self.pem))
        (folder / "etc/settings.json").write_text(json.dumps({"head": "127.0.0.1", "https_port": self.port}))
        return folder

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
        """Switch the machines off, then the head."""
        self.over = True
        for thread in self._agents:
            while thread.is_alive():
                self.call(lambda: self.rack.head._installs.sessions.wake(1))
                thread.join(0.2)
        asyncio.run_coroutine_threadsafe(self.runner.cleanup(), self.loop).result(20)
        self.call(self.rack.stop)
        self.loop.call_soon_threadsafe(self.loop.stop)
        self.thread.join(10)
