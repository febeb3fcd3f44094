"""Installations that have ended, kept for statistics."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Any

from appliance.errors import Wrong
from appliance.head_nodes import seconds_to
from appliance.roster import Roster
from netboot.node import Event, Node, State
from netboot.statistics import Installed, summary
from netboot.wire import WireInvalid, decode

KEPT = 100_000
BYS = ("node", "profile", "image", "group")
ENDS = {
    State.UP: "up", State.FAILED: "failed", State.LOST: "lost",
}  # fmt: skip


class History:
    """Listens to the roster; one row an installation."""

    def __init__(self, roster: Roster) -> None:
        self.roster = roster
        roster.listeners.append(self._changed)

    def stats(self, by: str, since: float) -> list[dict[str, Any]]:
        """Rows as netboot.statistics has them. Raises Wrong, DatabaseInvalid."""
        if by not in BYS:
            raise Wrong(f"statistics are by {', '.join(BYS)}", f"not by {by[:40]!r}")
        self.roster.store.flush()
        found = []
        for (body,) in self.roster.store.read("SELECT body FROM installs WHERE at >= ? ORDER BY id", (since,)):
            try:
                found.append(decode(Installed, body.encode()))
            except WireInvalid:
                continue
        return summary(found, by)

    def _changed(self, before: Node | None, after: Node | None, event: Event | None) -> None:
        if before is None or after is None or before.state not in (State.INSTALLING, State.INSTALLED):
            return
        outcome = ENDS.get(after.state, "")
        if after.state is State.INSTALLED and before.state is State.INSTALLING and after.finish == "poweroff":
            outcome = "written"
        if after.state is before.state or not outcome:
            return
        now = self.roster.clock.wall()
        row = Installed(
            after.name, after.profile, after.image or before.image or self._image(after), after.groups, outcome,
            after.reason, now, seconds_to(after), after.fetched, after.done,
        )  # fmt: skip
        body = json.dumps(asdict(row), ensure_ascii=False)
        self.roster.store.submit([
            ("INSERT INTO installs (node_id, at, body) VALUES (?, ?, ?)", (after.id, now, body)),
            ("DELETE FROM installs WHERE id <= (SELECT max(id) FROM installs) - ?", (KEPT,)),
        ], lambda error: None)  # fmt: skip

    def _image(self, node: Node) -> str:
        order = self.roster.orders.get(node.id)
        return order.image if order is not None else ""
