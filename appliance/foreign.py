"""The watch for foreign DHCP servers while this one serves: a probe beside the process, and who is told what it sees.

Two servers on one wire give machines whichever answer comes first, and with it perhaps another system on their disks.
So nothing is answered before the wire has been listened to, and a server that comes later is named.
"""

from __future__ import annotations

import asyncio
import logging
import time

from appliance.errors import Environment
from appliance.probing import START_SECONDS, command, message
from appliance.sightings import Server, Servers, frame, server
from images.errors import GildError
from images.run import beside

log = logging.getLogger("gild")

EVERY = 30.0  # seconds between two questions; broadcast answers to others are heard in between
LOOK = 4.0  # seconds without an offer after which the wire is ours: dnsmasq pings for 3 s before it offers (measured)
GONE = 300.0  # seconds of silence after which a server is no longer told of
RETRY = 10.0  # seconds before a probe that ended (its interface went down) is started again


class ForeignServers:
    """DHCP servers other than this one. `clear` turns True once none gave addresses while the wire was first listened
    to, or could not be; `refusal` is the reason not to serve if one did."""

    def __init__(self, interface: str, address: str) -> None:
        self.interface = interface
        self.clear = False
        self.refusal: Environment | None = None
        self._servers = Servers(frozenset({address}), GONE)
        self._ready = asyncio.Event()
        self._decided = asyncio.Event()
        self._trouble = ""
        self._loop = asyncio.get_running_loop()

    def rows(self) -> list[Server]:
        """Those heard of lately, those that give addresses first."""
        self._servers.forget(time.time())
        return self._servers.rows()

    async def first_look(self) -> None:
        """Until it is known whether this wire is ours: then `clear` is True or `refusal` says who else is there."""
        try:
            async with asyncio.timeout(START_SECONDS):
                await self._ready.wait()
            async with asyncio.timeout(LOOK):
                await self._decided.wait()
        except TimeoutError:
            pass
        if self.refusal is None:
            self.clear = True

    async def watch(self) -> None:
        """Listen and ask until cancelled. A probe that ends is started again."""
        argv, environ = command(self.interface, "replies", 0, EVERY)
        while True:
            try:
                with beside(argv, self._heard, env=environ, act=f"listening on {self.interface}") as wait:
                    while wait(0) is None:
                        await asyncio.sleep(1)
            except GildError as error:
                self._trouble = str(error)
            log.warning("the watch for other DHCP servers ended: %s", self._trouble or "no reason given")
            self._decide()
            await asyncio.sleep(RETRY)

    def _heard(self, line: str) -> None:
        """In the reading thread."""
        self._loop.call_soon_threadsafe(self._line, line)

    def _line(self, text: str) -> None:
        try:
            line = message(text)
        except Environment as error:
            self._trouble = str(error)
            return
        self._trouble = str(line.get("trouble", self._trouble))
        if "ready" in line:
            self._ready.set()
        seen = frame(line)
        found = server(seen) if seen is not None else None
        if seen is None or found is None or not self._servers.saw(found, seen.at):
            return
        log.warning("another DHCP server on %s: %s", self.interface, found)
        if not self.clear and found.kind == "addresses":
            self.refusal = Environment(
                f"another DHCP server is on {self.interface}: {found}",
                "stop that one, serve beside it: --dhcp proxy (see: help proxy), or insist with --dhcp-check off",
            )
            self._decide()

    def _decide(self) -> None:
        self._ready.set()
        self._decided.set()
