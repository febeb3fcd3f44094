"""Who is told what happens: hooks, in the order of events of each node, a few at a time, beside everything else."""

from __future__ import annotations

import asyncio
import json
import logging
import threading
from collections import OrderedDict
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from appliance import hooks
from appliance.errors import Unknown, Wrong
from appliance.hooks import EVENTS, Hook, Outcome
from appliance.power.crew import Crew
from appliance.roster import Roster
from appliance.timeline import clean
from netboot.node import Event, Node

log = logging.getLogger("gild")

AT_ONCE = 4  # hooks that run
STARTED = 64  # nodes with an event that is being told, most of them before the next try of a hook that failed
MOST = 1000  # events that wait to be told
PAUSES = (2.0, 10.0)  # seconds before a hook that failed is run again
FRESH = 5.0  # seconds for which it is remembered whether a hook may be run
STOP_SECONDS = 1.5  # a hook gets to end when the head does


@dataclass(frozen=True)
class Told:
    """One event that waits."""

    node_id: int
    event: str
    message: bytes


class Hooks:
    """Subscribes to the roster; lives on the event loop's thread, and its hooks in threads."""

    def __init__(self, roster: Roster, folder: Path) -> None:
        """`folder` is hooks.d, which may be missing."""
        self.roster, self.folder = roster, folder
        self.pauses: tuple[float, ...] = PAUSES
        self._waiting: OrderedDict[int, Told] = OrderedDict()  # by number, the oldest first
        self._number = 0
        self._dropped = 0
        self._busy: set[int] = set()  # nodes of which something is being told
        self._wake: asyncio.Event | None = None
        self._running: set[Future[Outcome]] = set()
        self._stop = threading.Event()
        self._crew = Crew()
        self._known: dict[str, tuple[tuple[int, ...], float, list[Hook]]] = {}  # event -> folders' times, when, hooks
        roster.listeners.append(self.heard)

    # --- listening

    def heard(self, before: Node | None, after: Node | None, event: Event | None) -> None:
        """Something happened to a node; never waits."""
        name = hooks.happened(before, after, event)
        node = after or before
        if not name or node is None or not self._chosen(name):
            return
        while len(self._waiting) >= MOST:
            self._drop(self._waiting.popitem(last=False)[1])
        message = json.dumps(self._message(name, node, before)).encode()
        self._number += 1
        self._waiting[self._number] = Told(node.id, name, message)
        if self._wake is not None:
            self._wake.set()

    def _drop(self, told: Told) -> None:
        # The oldest: whoever follows the site's machines by hooks wants to end with what is so now.
        if not self._dropped:
            log.warning("%d events wait for hooks: of the oldest none is told any more", MOST)
        self._dropped += 1
        if told.node_id in self.roster.nodes:
            text = f"no hook is told of {told.event}: more than {MOST} events wait"
            self.roster.timeline.note(told.node_id, text, "warn")

    def _chosen(self, event: str) -> list[Hook]:
        # Thousands of machines may come at once: two looks at a folder's time, not fifteen folders read.
        times, now = hooks.times(self.folder, event), self.roster.clock.steady()
        known, at, chosen = self._known.get(event, ((), 0.0, []))
        if known != times or not 0 <= now - at < FRESH:
            chosen = [hook for hook in hooks.found(self.folder) if hook.event in ("", event) and not hook.problem]
            self._known[event] = times, now, chosen
        return chosen

    def _message(self, event: str, node: Node, before: Node | None, trial: bool = False) -> dict[str, Any]:
        config = self.roster.config
        return {
            "event": event,
            "at": self.roster.clock.wall(),
            "trial": trial,
            "node": hooks.described(node),
            "before": hooks.described(before) if before is not None else None,
            "head": {"address": config.address, "domain": config.domain, "state": config.state},
        }

    # --- people

    def counts(self) -> dict[str, int]:
        """Events that wait, nodes of which one is being told, and events nobody was told of since the head began."""
        return {"waiting": len(self._waiting), "telling": len(self._busy), "dropped": self._dropped}

    def hook_message(self, event: str, ref: str = "") -> dict[str, Any]:
        """What a hook would be told of `event` for a node as it is now, without `ref` for a node that does not exist.
        Raises Unknown, Wrong."""
        if event not in EVENTS:
            raise Wrong(f"there is no event {clean(event)[:40]!r}", f"events: {', '.join(EVENTS)}")
        if not ref:
            return self._message(event, hooks.EXAMPLE, hooks.EXAMPLE, trial=True)
        chosen = self.roster.select([ref])
        if len(chosen) != 1:
            raise Unknown(f"{clean(ref)[:80]!r} are {len(chosen)} nodes", "name one")
        return self._message(event, chosen[0], chosen[0], trial=True)

    # --- telling

    async def work(self) -> None:
        """Tell what waits, for as long as the head serves. A hook that hangs holds up its own node's events alone."""
        self._wake = asyncio.Event()
        turns = asyncio.Semaphore(AT_ONCE)
        async with asyncio.TaskGroup() as group:
            while True:
                self._wake.clear()
                for told in self._next():
                    group.create_task(self._tell(told, turns))
                await self._wake.wait()

    async def close(self) -> None:
        """End what runs, and wait for it a moment."""
        self._stop.set()
        running = [asyncio.wrap_future(run) for run in self._running]
        if running:
            await asyncio.wait(running, timeout=STOP_SECONDS)

    def _next(self) -> list[Told]:
        """The oldest that waits of each node that is not busy, as many as there is room for; these are busy now."""
        begun = []
        for number, told in list(self._waiting.items()):
            if len(self._busy) >= STARTED:
                break
            if told.node_id not in self._busy:
                self._busy.add(told.node_id)
                begun.append(self._waiting.pop(number))
        return begun

    async def _tell(self, told: Told, turns: asyncio.Semaphore) -> None:
        """One event to all of its hooks, one after the other."""
        try:
            for hook in self._chosen(told.event):
                await self._one(hook, told, turns)
        except Exception:
            # Whatever goes wrong here, nodes are installed.
            log.exception("node %d: hooks at %s", told.node_id, told.event)
        finally:
            self._busy.discard(told.node_id)
            if self._wake is not None:
                self._wake.set()

    async def _one(self, hook: Hook, told: Told, turns: asyncio.Semaphore) -> None:
        """One hook, again after a pause if it fails."""
        for pause in (*self.pauses, None):
            async with turns:
                run = self._crew.submit(
                    lambda: hooks.run_hook(hook, told.event, told.message, self._stop, state=self.roster.config.state)
                )
                self._running.add(run)
                try:
                    outcome = await asyncio.wrap_future(run)
                finally:
                    if run.done():
                        self._running.discard(run)
            self._record(told.node_id, hook, told.event, outcome, pause)
            if not outcome.why or pause is None:
                return
            await asyncio.sleep(pause)

    def _record(self, node_id: int, hook: Hook, event: str, outcome: Outcome, pause: float | None) -> None:
        ended = outcome.why or f"done in {outcome.seconds:.1f} s"
        again = "" if not outcome.why else f"; again in {pause:.0f} s" if pause is not None else "; given up"
        text, level = f"hook {hook.name} at {event}: {ended}{again}", "warn" if outcome.why else "info"
        if outcome.why:
            log.warning("node %d: %s%s", node_id, text, f": {outcome.lines[-1]}" if outcome.lines else "")
        if node_id in self.roster.nodes:
            self.roster.timeline.machine_log(node_id, tuple(f"hook {hook.name}: {line}" for line in outcome.lines))
            self.roster.timeline.add(node_id, text, level)
