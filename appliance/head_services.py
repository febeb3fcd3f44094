"""The cluster's services told by themselves: whenever the inventory changes, a moment after the last change."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Any

from appliance.cluster.apply import Here, apply
from appliance.cluster.inventory import Inventory, machine_of
from appliance.cluster.services import SERVICES, Wanted
from appliance.power.crew import Crew
from appliance.roster import Roster
from appliance.timeline import clean
from images.errors import GildError
from netboot.node import Event, Node

log = logging.getLogger("gild")

QUIET = 2.0  # seconds without a change before services are told
LONGEST = 20.0  # seconds after which they are told even if changes go on
AGAIN = (10.0, 60.0)  # seconds before what failed is tried again


def tell(service: str, inventory: Inventory) -> str:
    """Bring one service up to date on this machine; gives what was done. Raises GildError."""
    here = Here()
    change = SERVICES[service](inventory, here, Wanted())
    if not change.needed:
        return "nothing to do"
    apply(change, here)
    return "told of " + (f"{len(inventory.machines)} nodes" if len(inventory.machines) != 1 else "one node")


class Services:
    """Subscribes to the roster for the services of the setting. Lives on the event loop's thread; services are told in
    another, one after the other."""

    def __init__(
        self,
        roster: Roster,
        names: tuple[str, ...],
        snapshot: Callable[[], Inventory],
        tell: Callable[[str, Inventory], str] = tell,
    ) -> None:
        """`snapshot` gives the inventory as it is."""
        self.roster, self.names, self._snapshot, self._tell = roster, names, snapshot, tell
        self.quiet, self.again = QUIET, AGAIN
        self._said: dict[str, dict[str, Any]] = {}
        self._changed = False
        self._wake: asyncio.Event | None = None
        self._crew = Crew()
        if names:
            roster.listeners.append(self.heard)

    def heard(self, before: Node | None, after: Node | None, event: Event | None) -> None:
        """Something happened to a node; only what services would see of it counts."""
        if (machine_of(before) if before else None) != (machine_of(after) if after else None):
            self._change()

    def _change(self) -> None:
        self._changed = True
        if self._wake is not None:
            self._wake.set()

    def rows(self) -> list[dict[str, Any]]:
        """How each service was told last, for people."""
        never = {"at": 0.0, "ok": True, "text": "not told yet"}
        return [{"name": name, **self._said.get(name, never)} for name in self.names]

    async def work(self) -> None:
        """Tell them, now and after every change, for as long as the head serves."""
        if not self.names:
            return
        self._wake = asyncio.Event()
        while True:
            await self._settled()
            self._changed = False
            await self._all()
            if not self._changed:
                self._wake.clear()
                await self._wake.wait()

    async def _settled(self) -> None:
        """Wait until nothing has changed for a while, one run for many changes; but not for ever."""
        assert self._wake is not None
        loop = asyncio.get_running_loop()
        end = loop.time() + LONGEST
        while loop.time() < end:
            self._wake.clear()
            try:
                async with asyncio.timeout(self.quiet):
                    await self._wake.wait()
            except TimeoutError:
                return

    async def _all(self) -> None:
        """All services; those that failed again, unless there is news for all of them meanwhile."""
        left = list(self.names)
        for pause in (*self.again, None):
            left = [name for name in left if not await self._one(name)]
            if not left or pause is None:
                return
            await asyncio.sleep(pause)
            if self._changed:
                return

    async def _one(self, name: str) -> bool:
        inventory = self._snapshot()
        try:
            text, ok = await asyncio.wrap_future(self._crew.submit(lambda: self._tell(name, inventory))), True
        except GildError as error:
            text, ok = error.message, False
        except Exception as error:
            # A service's file may hold what nobody has thought of; nodes are installed all the same.
            log.exception("service %s", name)
            text, ok = f"{type(error).__name__}: {clean(str(error))[:200]}", False
        (log.info if ok else log.error)("service %s: %s", name, text)
        self._said[name] = {"at": self.roster.clock.wall(), "ok": ok, "text": text}
        return ok
