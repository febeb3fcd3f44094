"""The timeline: every event of every node, in order, in plain words. Recent ones in memory, all in the journal."""

from __future__ import annotations

import asyncio
from collections import OrderedDict, deque
from collections.abc import Callable
from dataclasses import dataclass

from appliance.rows import EVENTS_KEPT, event_row, prune_events
from appliance.store import Statement, Store
from images.errors import GildError

RECENT = 10_000  # events held in memory, of all nodes
MAX_TEXT = 500  # characters of one line
QUIET = 15.0  # seconds in which the same line of a node is only counted; a second boot takes longer, and is told
MAX_NOTES = 20_000  # remembered lines, for that
SLACK = 200  # events a node may have beyond EVENTS_KEPT before its timeline is cut
BURST, REFILL = 200.0, 10.0  # lines of a machine's own log taken at once, and a second after that


@dataclass(frozen=True, slots=True)
class Entry:
    """One line of a node's timeline; `at` in seconds since 1970."""

    id: int
    node_id: int
    at: float
    level: str
    text: str


class Timeline:
    """Adds lines, tells those who wait for news, and hands rows to the journal in batches."""

    def __init__(self, store: Store, wall: Callable[[], float], steady: Callable[[], float]) -> None:
        """`wall` is the time people read, `steady` a clock that only goes forward."""
        self._store, self._wall, self._steady = store, wall, steady
        self.last: int = (store.read("SELECT max(id) FROM events")[0][0]) or 0
        rows = store.read("SELECT id, node_id, at, level, text FROM events ORDER BY id DESC LIMIT ?", (RECENT // 10,))
        self.recent: deque[Entry] = deque((Entry(*row) for row in reversed(rows)), RECENT)
        counts = store.read("SELECT node_id, count(*) FROM events GROUP BY node_id")
        self._counts: dict[int, int] = {row[0]: row[1] for row in counts}
        self._pending: list[Entry] = []
        self._notes: OrderedDict[tuple[int, str], tuple[float, int]] = OrderedDict()
        self._budget: dict[int, tuple[float, float]] = {}
        self._news: asyncio.Event | None = None

    def add(self, node_id: int, text: str, level: str = "info") -> None:
        """One line, now."""
        self.last += 1
        entry = Entry(self.last, node_id, self._wall(), level, clean(text))
        self.recent.append(entry)
        self._pending.append(entry)
        if len(self._pending) > RECENT:  # the disk is full for long: the oldest lines are the ones to lose
            del self._pending[: RECENT // 2]
        self._counts[node_id] = self._counts.get(node_id, 0) + 1
        self.wake()

    def note(self, node_id: int, text: str, level: str = "info") -> None:
        """A line that may come again and again: within QUIET seconds it is only counted."""
        now, key = self._steady(), (node_id, text)
        begun, more = self._notes.get(key, (-QUIET, 0))
        if now - begun < QUIET:
            self._notes[key] = begun, more + 1
            return
        self._notes.pop(key, None)
        self._notes[key] = now, 0
        while len(self._notes) > MAX_NOTES:
            self._notes.popitem(last=False)
        self.add(node_id, f"{text} (and {more} times before)" if more else text, level)

    def machine_log(self, node_id: int, lines: tuple[str, ...]) -> None:
        """Lines of a machine's own log, as many as its budget allows; the rest is counted."""
        now = self._steady()
        left, at = self._budget.get(node_id, (BURST, now))
        left = min(BURST, left + (now - at) * REFILL)
        taken = min(len(lines), int(left))
        self._budget[node_id] = left - taken, now
        for line in lines[:taken]:
            self.add(node_id, line, "log")
        if taken < len(lines):
            self.note(node_id, "its installer says more than fits here; some lines are left out", "warn")

    def rows(self) -> list[Statement]:
        """Statements for everything not yet handed to the journal; call `put_back` if they could not be written."""
        entries, self._pending = self._pending, []
        statements = [event_row(e.id, e.node_id, e.at, e.level, e.text) for e in entries]
        for node_id in {entry.node_id for entry in entries}:
            if self._counts[node_id] > EVENTS_KEPT + SLACK:
                statements.append(prune_events(node_id))
                self._counts[node_id] = EVENTS_KEPT
        return statements

    def put_back(self) -> None:
        """The journal lost something: everything recent is handed over again (rows already there are left alone)."""
        self._pending = list(self.recent)

    def of_node(self, node_id: int, after: int, limit: int = EVENTS_KEPT) -> list[Entry]:
        """A node's lines after event number `after`, the last `limit` of them, oldest first."""
        held = [entry for entry in self.recent if entry.node_id == node_id and entry.id > after]
        oldest = held[0].id if held else self.last + 1
        try:
            rows = self._store.read(
                "SELECT id, node_id, at, level, text FROM events WHERE node_id = ? AND id > ? AND id < ?"
                " ORDER BY id DESC LIMIT ?",
                (node_id, after, oldest, limit),
            )
        except GildError:
            rows = []
        return ([Entry(*row) for row in reversed(rows)] + held)[-limit:]

    def after(self, cursor: int, limit: int = 500) -> list[Entry]:
        """Lines of all nodes after `cursor` that are still in memory, the last `limit` of them."""
        found: list[Entry] = []
        for entry in reversed(self.recent):
            if entry.id <= cursor or len(found) == limit:
                break
            found.append(entry)
        return found[::-1]

    def forget(self, node_id: int) -> None:
        """The node is gone."""
        self.recent = deque((entry for entry in self.recent if entry.node_id != node_id), RECENT)
        self._pending = [entry for entry in self._pending if entry.node_id != node_id]
        self._counts.pop(node_id, None)
        self._budget.pop(node_id, None)

    def wake(self) -> None:
        """Something changed: wake everybody who waits in `news`."""
        if self._news is not None:
            self._news.set()
            self._news = None

    async def news(self, seconds: float) -> None:
        """Wait for the next change, at most `seconds`."""
        if self._news is None:
            self._news = asyncio.Event()
        try:
            async with asyncio.timeout(seconds):
                await self._news.wait()
        except TimeoutError:
            pass


def clean(text: str) -> str:
    """One printable line of at most 500 characters: what machines send may carry control characters, line breaks and
    direction marks, and ends up on terminals."""
    if len(text) <= MAX_TEXT and text.isprintable():
        return text.strip()
    flat = "".join(c if c.isprintable() else " " if c in "\t\r\n" else "?" for c in text[: 2 * MAX_TEXT])
    return flat.strip()[:MAX_TEXT]
