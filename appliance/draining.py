"""What a scheduler is asked, in threads: a command that hangs must not hold up the head."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future

from appliance.power.crew import Crew
from appliance.timeline import clean
from images.errors import GildError
from netboot.rolling import Drain

LOOK_EVERY = 5.0  # seconds between two questions whether nodes have finished their work
TRIES, PAUSE = 3, 2.0  # of giving nodes back, and seconds between them
NOBODY = "no scheduler is known here"
Word = tuple[str, str]  # what is known of a node, and why


class Drainer:
    """Asks the scheduler `scheduler` (None: there is none). Lives on the event loop's thread.

    `words` say what is known of each node that was asked about: asked, busy, idle or failed of those that are being
    drained; resuming, resumed or stuck of those that are given back.
    """

    def __init__(self) -> None:
        self.scheduler: Drain | None = None
        self.words: dict[int, Word] = {}
        self._crew = Crew()
        self._running: list[Future[dict[int, Word]]] = []
        self._looking: Future[dict[int, Word]] | None = None
        self._looked = 0.0

    def drain(self, nodes: Mapping[int, str]) -> None:
        """Have these drained: node -> name."""
        scheduler = self.scheduler
        if scheduler is None:
            self.words |= dict.fromkeys(nodes, ("failed", NOBODY))
            return
        self.words |= dict.fromkeys(nodes, ("asked", ""))
        # Drained is not idle: each is busy until it was looked at.
        self._start(lambda: _each(scheduler.drain, nodes, ("busy", ""), "failed"))

    def resume(self, nodes: Mapping[int, str]) -> None:
        """Have these given back."""
        scheduler = self.scheduler
        if scheduler is None:
            self.words |= dict.fromkeys(nodes, ("stuck", NOBODY))
            return
        self.words |= dict.fromkeys(nodes, ("resuming", ""))

        def again() -> dict[int, Word]:
            found: dict[int, Word] = {}
            left = dict(nodes)
            for number in range(TRIES):
                if number:
                    time.sleep(PAUSE)
                found |= _each(scheduler.resume, left, ("resumed", ""), "stuck")
                left = {node_id: name for node_id, name in left.items() if found[node_id][0] == "stuck"}
                if not left:
                    break
            return found

        self._start(again)

    def watch(self, nodes: Mapping[int, str], now: float) -> None:
        """Look now and then whether these have finished their work."""
        busy = {number: name for number, name in nodes.items() if self.words.get(number, ("", ""))[0] == "busy"}
        scheduler = self.scheduler
        if not busy or scheduler is None or self._looking is not None or now - self._looked < LOOK_EVERY:
            return
        self._looked = now

        def look() -> dict[int, Word]:
            try:
                at_work = scheduler.busy(busy.values())
            except GildError:
                return {}  # asked again the next time; how long it may take is the job's affair
            return {number: ("busy" if name in at_work else "idle", "") for number, name in busy.items()}

        self._looking = self._start(look)

    def collect(self) -> None:
        """Take what has come."""
        for future in [future for future in self._running if future.done()]:
            self._running.remove(future)
            self._looking = None if future is self._looking else self._looking
            self.words |= future.result() if future.exception() is None else {}

    def forget(self, node_id: int) -> None:
        """Nobody asks about this node any more."""
        self.words.pop(node_id, None)

    def _start(self, ask: Callable[[], dict[int, Word]]) -> Future[dict[int, Word]]:
        future = self._crew.submit(ask)
        self._running.append(future)
        return future


def _each(act: Callable[[list[str]], None], nodes: Mapping[int, str], good: Word, bad: str) -> dict[int, Word]:
    """All at once; where that fails one by one, so that a bad name costs only itself."""
    try:
        act(list(nodes.values()))
    except GildError as error:
        if len(nodes) == 1:
            return dict.fromkeys(nodes, (bad, clean(error.message)[:200]))
    else:
        return dict.fromkeys(nodes, good)
    found: dict[int, Word] = {}
    for number, name in nodes.items():
        found |= _each(act, {number: name}, good, bad)
    return found
