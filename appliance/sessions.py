"""Sessions of agents: one boot of the installer each, named by a secret of which only the hash is kept."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from dataclasses import dataclass, field

from appliance.roster import Roster
from images.errors import GildError
from netboot.node import Node
from netboot.order import hashed

MAX_SESSIONS = 20_000  # 25 MiB; fewer than there are nodes would push out agents that are about to ask for their plan
MAX_PER_NODE = 4  # a stranger who claims a node's MAC pushes out other strangers, never the one that installs
IDLE = 600.0  # seconds after which a session that says nothing is forgotten


class SessionUnknown(GildError):
    """The head does not know this session (any more): say hello again."""

    status = 401


@dataclass(slots=True)
class Session:
    """One boot of the installer. `trusted`: it speaks from the node's own address and shows the node's identity.
    `seen`: when it was last asked for."""

    node_id: int
    mac: str
    trusted: bool
    seen: float
    wake: asyncio.Event = field(default_factory=asyncio.Event)


class Sessions:
    """All of them, bounded. Nothing here looks at every session or order: anybody may ask, with any secret."""

    def __init__(self, roster: Roster) -> None:
        self.roster = roster
        self.table: OrderedDict[str, Session] = OrderedDict()  # sha256 of the secret -> session, longest unseen first
        self._of_node: dict[int, list[str]] = {}
        # Sessions that hold their node's order and are not in the table: an installation that was running when the
        # head was restarted goes on in its old one.
        held = ((order.session, order.node_id) for order in roster.orders.values() if order.session)
        self._asleep: OrderedDict[str, int] = OrderedDict(held)

    def open(self, secret: str, node: Node, mac: str, trusted: bool) -> Session:
        """A new session for a node; the oldest of too many goes."""
        order = self.roster.orders.get(node.id)
        keep = order.session if order is not None else ""
        own = [key for key in self._of_node.get(node.id, ()) if key != keep]
        for key in own[: max(0, len(own) - MAX_PER_NODE + 1)]:
            self._drop(key)
        return self._add(hashed(secret), Session(node.id, mac, trusted, self.roster.clock.steady()))

    def find(self, secret: str) -> Session:
        """The session of that secret. Raises SessionUnknown."""
        key = hashed(secret)
        session = self.table.get(key) or self._resumed(key)
        if session is None or session.node_id not in self.roster.nodes:
            raise SessionUnknown("the head does not know this session", "say hello again")
        session.seen = self.roster.clock.steady()
        self.table.move_to_end(key)
        return session

    def wake(self, node_id: int) -> None:
        """Something about this node has changed: its waiting agents get their answer now."""
        for key in self._of_node.get(node_id, ()):
            self.table[key].wake.set()

    def tick(self) -> None:
        """Forget sessions that have gone silent."""
        limit = self.roster.clock.steady() - IDLE
        while self.table and next(iter(self.table.values())).seen < limit:
            self._drop(next(iter(self.table)))

    def forget(self, node_id: int) -> None:
        """The node is gone; so are its sessions."""
        for key in list(self._of_node.get(node_id, ())):
            self._drop(key)

    def _add(self, key: str, session: Session) -> Session:
        while len(self.table) >= MAX_SESSIONS:
            self._drop(next(iter(self.table)))
        self.table[key] = session
        self._of_node.setdefault(session.node_id, []).append(key)
        return session

    def _drop(self, key: str) -> None:
        session = self.table.pop(key)
        session.wake.set()
        keys = self._of_node[session.node_id]
        keys.remove(key)
        if not keys:
            del self._of_node[session.node_id]
        order = self.roster.orders.get(session.node_id)
        if order is not None and order.session == key:
            self._asleep[key] = session.node_id
            while len(self._asleep) > MAX_SESSIONS:
                self._asleep.popitem(last=False)

    def _resumed(self, key: str) -> Session | None:
        node = self.roster.nodes.get(self._asleep.pop(key, 0))
        order = self.roster.orders.get(node.id) if node is not None else None
        if node is None or order is None or order.session != key:
            return None
        return self._add(key, Session(node.id, order.mac or node.mac, True, self.roster.clock.steady()))
