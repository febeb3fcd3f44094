"""What the head shows of nodes: rows, one node with its hardware, timelines and news. Ready for JSON."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from appliance.makers import maker
from appliance.roster import Roster
from appliance.timeline import Entry
from images.errors import GildError
from netboot import disks
from netboot.identity import Sighting
from netboot.node import Node, State
from netboot.order import Order
from netboot.profile import Profile, ProfileInvalid, rule_text

TAIL = 200  # lines of the timeline in a node's own page


class Nodes:
    """The operator's use cases that only look."""

    def __init__(self, roster: Roster) -> None:
        self.roster = roster

    def nodes(self, refs: Sequence[str] | None = None) -> list[dict[str, Any]]:
        """A row a node: those of `refs`, or all, names first, then the waiting room. Raises Unknown,
        NoderangeInvalid."""
        return [self.row(node) for node in (self.roster.sorted() if refs is None else self.roster.select(refs))]

    def node(self, ref: str) -> dict[str, Any]:
        """One node with its hardware, order, predicted disk and the end of its timeline. Raises Unknown."""
        node = self.roster.find(ref)
        order = self.roster.orders.get(node.id)
        profile = self._profile(node)
        return {
            **self.row(node),
            "facts": asdict(node.facts) if node.facts else None,
            "digest": node.digest,
            "home": node.home,
            "rung": node.rung,
            "relay": node.relay,
            "secure": node.secure,
            "order_text": order.text if order else "",
            "order": _order(order) if order else None,
            "own": node.own,
            "predicted_disk": self._predicted(node, profile),
            "disk_rule": disks.tell(order.disk if order and not order.closed else profile.disk),
            "timeline": [_event(entry, node) for entry in self.roster.timeline.of_node(node.id, 0, TAIL)],
        }

    def log(self, ref: str, after: int) -> list[dict[str, Any]]:
        """A node's timeline after event number `after`. Raises Unknown."""
        node = self.roster.find(ref)
        return [_event(entry, node) for entry in self.roster.timeline.of_node(node.id, after)]

    def events_since(self, cursor: int) -> dict[str, Any]:
        """Events of all nodes after event number `cursor`, and the cursor for the next question."""
        timeline, nodes = self.roster.timeline, self.roster.nodes
        found = [_event(entry, nodes.get(entry.node_id)) for entry in timeline.after(cursor)]
        return {"cursor": timeline.last, "events": found}

    async def changes(self, cursor: int, wait: float) -> dict[str, Any]:
        """Like `events_since`, but waits up to `wait` seconds for the first of them (or any other change)."""
        if wait > 0 and self.roster.timeline.last <= cursor:
            await self.roster.timeline.news(wait)
        return self.events_since(cursor)

    def row(self, node: Node) -> dict[str, Any]:
        """A node as lists show it."""
        order, now = self.roster.orders.get(node.id), self.roster.clock.steady()
        profile = self._profile(node)
        facts = node.facts
        armed = order is not None and not order.closed
        return {
            "id": node.id,
            "name": node.name,
            "state": node.state.value,
            "address": node.address,
            "mac": node.mac,
            "macs": list(node.macs),
            "maker": maker(node.mac),
            "uuid": node.uuid,
            "serial": node.serial,
            "ports": list(node.ports),
            "machine": f"{facts.vendor} {facts.product}".strip() if facts else "",
            "firmware": (facts.firmware if facts else "") or node.firmware,
            "profile": node.profile,
            "groups": list(node.groups),
            "image": node.image,
            "wanted": order.image if armed and order else profile.image,
            "ordered": armed,
            "boot": node.boot.value,
            "reason": node.reason,
            "conflict": self._conflict(node),
            "phase": node.phase,
            "done": node.done,
            "total": node.total,
            "fetched": node.fetched,
            "disk": node.disk,
            "tries": node.tries,
            "since": node.since,
            "since_seconds": max(0.0, now - node.since),
            "seen_seconds": max(0.0, now - node.last_seen),
            "seconds_to": seconds_to(node),
        }

    def _conflict(self, node: Node) -> str:
        """What about a machine of the waiting room contradicts what is known of a node."""
        if node.state is not State.WAITING:
            return ""
        return self.roster.identify(Sighting(node.macs, node.uuid, node.serial)).conflict

    def like(self, node: Node) -> Node | None:
        """The node it looks like, and contradicts."""
        return self.roster.identify(Sighting(node.macs, node.uuid, node.serial)).like

    def _profile(self, node: Node) -> Profile:
        """Its profile with all that is inherited; an empty one where that cannot be told."""
        try:
            return self.roster.wanted(node).profile
        except ProfileInvalid:
            return Profile(node.profile)

    def _predicted(self, node: Node, profile: Profile) -> str:
        if node.facts is None:
            return ""
        try:
            return disks.describe(disks.choose(node.facts.disks, profile.disk))
        except GildError as error:
            return f"none: {error.message}"


def _event(entry: Entry, node: Node | None) -> dict[str, Any]:
    label = node.label if node is not None else f"#{entry.node_id}"
    return {
        "id": entry.id, "node_id": entry.node_id, "node": label, "at": entry.at, "level": entry.level,
        "text": entry.text,
    }  # fmt: skip


def _order(order: Order) -> dict[str, Any]:
    """An order without its secrets."""
    return {
        "id": order.id, "image": order.image, "digest": order.digest, "disk": rule_text(order.disk),
        "finish": order.finish, "created": order.created, "expires": order.expires, "used": order.used,
        "tries": order.tries, "closed": order.closed, "outcome": order.outcome,
    }  # fmt: skip


def seconds_to(node: Node) -> dict[str, float]:
    """Seconds of the last installation: to hello from power-on; to everything written and to the call home from
    power-on, or from the order if the machine stood waiting for it. What has not happened is left out."""
    if not node.started_at or not node.taken_at:
        return {}
    begun = node.ordered_at if node.ordered_at > node.hello_at else node.started_at
    spans = {"hello": node.hello_at - node.started_at}
    spans |= {key: end - begun for key, end in (("written", node.written_at), ("up", node.up_at)) if end}
    return {key: round(max(0.0, span), 1) for key, span in spans.items()}
