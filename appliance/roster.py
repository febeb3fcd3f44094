"""The nodes in memory, found by number, name, MAC, address, UUID and serial; the only caller of step()."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any

from appliance import rows
from appliance.addresses import Addresses
from appliance.clock import Clock
from appliance.config import Config
from appliance.errors import Unknown
from appliance.groups import members
from appliance.saving import Saving
from appliance.store import Store
from appliance.timeline import Timeline, clean
from appliance.zones import Zones
from netboot import identity, noderange
from netboot.identity import Sighting, Verdict
from netboot.lease import LeaseInvalid
from netboot.node import CloseOrder, Event, Node, Record, State, step
from netboot.order import Order, close
from netboot.profile import DEFAULT, Profile, ProfileInvalid
from netboot.wanted import Wanted, wanted

# Told of a node as it was and as it is (None: it was not, it is no more) and what happened to it; None for a change by
# people. Never waits, never raises.
Listener = Callable[[Node | None, Node | None, Event | None], None]

MAX_STRANGERS = 1000  # machines in the waiting room; past it the one unseen for longest makes room


class Roster:
    """All nodes with their orders, profiles and addresses. Lives on the event loop's thread."""

    def __init__(self, store: Store, config: Config, clock: Clock) -> None:
        """Load everything from the journal. Raises DatabaseInvalid or LeaseInvalid."""
        self.store, self.config, self.clock = store, config, clock
        self.timeline = Timeline(store, clock.wall, clock.steady)
        self.addresses = Addresses(config, rows.load_subnets(store))
        self.pool = self.addresses.pool
        self.nodes: dict[int, Node] = {}
        self.orders: dict[int, Order] = {order.node_id: order for order in rows.load_orders(store)}
        self.profiles: dict[str, Profile] = {profile.name: profile for profile in rows.load_profiles(store)}
        self.quiet_since: dict[int, float] = {}  # steady time of each node's last sign of life
        self._index: dict[str, set[int]] = {}  # "mac:..", "uuid:..", "serial:..", "name:.." -> node ids
        self.unsaved = unsaved = Saving(self)
        self.save, self.save_now, self.lost = unsaved.save, unsaved.save_now, unsaved.lost
        self.durable, self.durable_soon = unsaved.durable, unsaved.durable_soon
        self.zones = Zones(config, self.addresses, self.sorted, int(clock.wall()))
        self.listeners: list[Listener] = []
        # Whose card an address is; only where another server gives the addresses.
        self.neighbour: Callable[[str], str] | None = None
        self.last_order = store.read("SELECT max(id) FROM orders")[0][0] or 0
        self.profiles.setdefault(DEFAULT, Profile(DEFAULT))
        self._load()

    def _load(self) -> None:
        now = self.clock.steady()
        nodes = rows.load_nodes(self.store)
        taken = {node.address for node in nodes}
        for node in nodes:
            node = self._moved(node, taken)
            self._put(node)
            self.quiet_since[node.id] = now
            if node.state is not State.WAITING and node.address:
                try:
                    self.pool.reserve(node.holder, node.address)
                except LeaseInvalid as error:
                    self.timeline.add(node.id, f"cannot have its address any more: {error.message}", "bad")
        for mac, address, expires in rows.load_leases(self.store):
            # A lease never outlives what was promised, whatever the wall clock did in between; one that seems over
            # is put back all the same, so that its machine finds its address again.
            self.pool.restore(mac, address, min(max(expires, now + 1), now + self.config.lease_seconds))
        self._last_node = max(self.nodes, default=0)
        seen = self.store.read("SELECT max(node_id) FROM events")[0][0] or 0
        self._last_node = max(self._last_node, seen)

    def _moved(self, node: Node, taken: set[str]) -> Node:
        """The node where the head's network is now: a head whose address has changed takes its nodes along."""
        address = self.addresses.moved(node.address, taken) if node.address and node.state is not State.WAITING else ""
        if not address:
            return node
        taken.add(address)
        self.unsaved.nodes.add(node.id)
        self.timeline.add(
            node.id,
            f"its address is {address} now: {node.address} is not in {self.addresses.main.network}, the head's network;"
            " its system has the old one until it is installed again",
            "warn",
        )
        return replace(node, address=address)

    # --- finding

    def find(self, ref: str) -> Node:
        """The node of that name, number (7 or #7), MAC or address. Raises Unknown with what there is."""
        text = ref.strip().lower()
        number = text.removeprefix("#")
        if number.isascii() and number.isdigit() and len(number) < 10 and int(number) in self.nodes:
            return self.nodes[int(number)]
        for key in (f"name:{text}", f"mac:{identity.real_mac(text)}"):
            for node_id in sorted(self._index.get(key, ())):
                return self.nodes[node_id]
        for node in self.nodes.values():
            if node.address and node.address == text:
                return node
        names = [node.label for node in self.sorted()][:10]
        shown = clean(ref)[:80]
        raise Unknown(f"there is no node {shown!r}", f"nodes here: {', '.join(names) or 'none yet'}")

    def select(self, refs: Sequence[str]) -> list[Node]:
        """The nodes of noderange expressions (`node[01-16]`, `@rack1`, `@state:failed`, `!node07`), each once, in the
        order in which they are named. Raises Unknown, also if nobody is left, or NoderangeInvalid."""
        labels = noderange.select(refs, self._approved, lambda ref: self.find(ref).label, self._group)
        if not labels:
            raise Unknown(f"no node is left of {clean(','.join(refs))[:80]!r}", "see: gild.pyz node list")
        return [self.find(label) for label in labels]

    def _approved(self) -> list[str]:
        return [node.name for node in self.sorted() if node.name]

    def _group(self, name: str) -> list[str]:
        return members(name, self.sorted())

    def sorted(self) -> list[Node]:
        """All nodes: those with names by name, then the waiting room by number."""
        return sorted(self.nodes.values(), key=lambda node: (not node.name, node.name, node.id))

    def wanted(self, node: Node) -> Wanted:
        """What the node is to get, by itself, its profile and that one's parents. Raises ProfileInvalid naming it."""
        try:
            return wanted(node.profile, self.profiles, node.own)
        except ProfileInvalid as error:
            raise ProfileInvalid(f"{node.label}: {error.message}", error.hint) from None

    def by_mac(self, mac: str) -> Node | None:
        """The node with that card, the oldest of several."""
        found = self._index.get(f"mac:{mac}")
        return self.nodes[min(found)] if found else None

    def settle(self, address: str) -> None:
        """Somebody speaks from that address. Where another server gives the addresses, this is when it is learnt whose
        it is; what the machine is called follows it."""
        mac = self.neighbour(address) if self.neighbour is not None else ""
        if not mac or self.pool.address(mac) == address:
            return
        node = self.by_mac(mac)
        self.pool.learn(mac, address, self.clock.steady(), self.config.lease_seconds)
        if node is None or node.address == address:
            return
        if node.state is not State.WAITING:
            self.timeline.add(node.id, f"has the address {address} of the other DHCP server, not {node.address}")
        self.replace(replace(node, address=address))

    def by_address(self, address: str) -> Node | None:
        """The node that has this address now."""
        self.settle(address)
        mac = self.pool.holder(address)
        return self.by_mac(mac) if mac else None

    def names(self) -> set[str]:
        """Names in use."""
        return {node.name for node in self.nodes.values() if node.name}

    def identify(self, sighting: Sighting) -> Verdict:
        """Who this is."""
        keys = [f"mac:{mac}" for mac in sighting.macs]
        keys += [f"uuid:{sighting.uuid}"] if sighting.uuid else []
        keys += [f"serial:{sighting.serial}"] if sighting.serial else []
        candidates = {node_id for key in keys for node_id in self._index.get(key, ())}
        return identity.identify(sighting, [self.nodes[node_id] for node_id in candidates])

    def holders(self, sighting: Sighting) -> Iterator[tuple[str, Node]]:
        """Nodes with one of these cards, this UUID or this serial, and which it is: ("serial number", node)."""
        keys = [("network card", f"mac:{mac}") for mac in sighting.macs]
        keys += [("UUID", f"uuid:{sighting.uuid}")] if sighting.uuid else []
        keys += [("serial number", f"serial:{sighting.serial}")] if sighting.serial else []
        for kind, key in keys:
            for node_id in sorted(self._index.get(key, ())):
                yield kind, self.nodes[node_id]

    # --- changing

    def add(self, sighting: Sighting) -> Node:
        """A machine never seen: a new number in the waiting room."""
        strangers = [node for node in self.nodes.values() if node.state is State.WAITING]
        if len(strangers) >= MAX_STRANGERS:
            self.remove(min(strangers, key=lambda node: (node.facts is not None, node.last_seen)))
        self._last_node += 1
        now = self.clock.steady()
        node = Node(
            self._last_node, since=now, first_seen=now, last_seen=now, macs=sighting.macs, uuid=sighting.uuid,
            serial=sighting.serial, machine_id=_machine_id(),
        )  # fmt: skip
        self._put(node)
        self.unsaved.nodes.add(node.id)
        self.quiet_since[node.id] = now
        self.timeline.add(node.id, f"first seen: {node.mac or node.uuid or node.serial}")
        self._tell(None, node)
        return node

    def apply(self, node: Node, event: Event, **details: Any) -> Node:
        """One event: step the node, record what follows, save with the next batch."""
        after, effects = step(node, event, self.clock.steady(), **details)
        self._replace(after)
        for effect in effects:
            if isinstance(effect, CloseOrder):
                self._close_order(after.id, effect.outcome)
            elif isinstance(effect, Record) and event in _REPEATING:
                self.timeline.note(after.id, effect.text, effect.level)
            elif isinstance(effect, Record):
                self.timeline.add(after.id, effect.text, effect.level)
        self._tell(node, after, event)
        return after

    def replace(self, node: Node) -> None:
        """Put a changed node in the place of the old one."""
        before = self.nodes.get(node.id)
        if before is not node:
            self._replace(node)
            self._tell(before, node)

    def _tell(self, before: Node | None, after: Node | None, event: Event | None = None) -> None:
        for listener in self.listeners:
            listener(before, after, event)

    def _replace(self, node: Node) -> None:
        before = self.nodes.get(node.id)
        if before is node:
            return
        if before is None or (before.name, before.address) != (node.name, node.address):
            self.zones.stale()
        if before is None or before.facts is not node.facts:
            self.unsaved.facts.add(node.id)
        self._put(node)
        self.unsaved.nodes.add(node.id)
        self.timeline.wake()

    def touch(self, node_id: int) -> None:
        """A sign of life: its silence begins anew."""
        self.quiet_since[node_id] = self.clock.steady()

    def remove(self, node: Node) -> None:
        """Forget a node, its address, order, keys and timeline."""
        for key in _keys(node):
            self._index.get(key, set()).discard(node.id)
        for holder in (*node.macs, node.holder):
            self.pool.unreserve(holder)
        for table in (self.nodes, self.orders, self.quiet_since):
            table.pop(node.id, None)
        self.unsaved.forget(node.id)
        self.zones.stale()
        self.timeline.forget(node.id)
        self.store.submit(rows.node_gone(node.id))
        self._tell(node, None)
        self.timeline.wake()

    def set_order(self, order: Order) -> None:
        """Change a node's order; saved with the next batch."""
        self.orders[order.node_id] = order
        self.unsaved.orders.add(order.node_id)

    def _close_order(self, node_id: int, outcome: str) -> None:
        order = self.orders.get(node_id)
        if order is not None:
            self.set_order(close(order, outcome, self.clock.steady()))

    def _put(self, node: Node) -> None:
        before = self.nodes.get(node.id)
        if before is None or _keys(before) != _keys(node):
            for key in _keys(before) if before else ():
                self._index[key].discard(node.id)
                if not self._index[key]:
                    del self._index[key]
            for key in _keys(node):
                self._index.setdefault(key, set()).add(node.id)
        self.nodes[node.id] = node

    # --- names

    def free_address(self, address: str) -> bool:
        """Whether a person may give this address to a node: in a network, not the head's, nobody else's."""
        taken = (node.address for node in self.nodes.values() if node.state is not State.WAITING)
        return self.addresses.free(address, taken)

    def strangers(self) -> Iterator[Node]:
        """The waiting room, in the order of arrival."""
        return (node for node in sorted(self.nodes.values(), key=lambda n: n.id) if node.state is State.WAITING)


# Loaders and firmware ask several times for the same thing.
_REPEATING = frozenset({Event.SEEN, Event.LOADER_SENT, Event.SCRIPT_SENT, Event.LOCAL_SENT, Event.HELLO})


def _keys(node: Node) -> frozenset[str]:
    keys = {f"mac:{mac}" for mac in node.macs}
    keys |= {
        f"{kind}:{value}"
        for kind, value in (("uuid", node.uuid), ("serial", node.serial), ("name", node.name))
        if value
    }
    return frozenset(keys)


def _machine_id() -> str:
    """32 hex digits that also read as a random UUID, as machine-id(5) asks."""
    raw = bytearray(secrets.token_bytes(16))
    raw[6] = raw[6] & 0x0F | 0x40
    raw[8] = raw[8] & 0x3F | 0x80
    return raw.hex()
