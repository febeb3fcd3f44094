"""Nodes declared before their machines are seen: one by one, by a list, or as places for whoever comes next."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from appliance.errors import Unknown, Wrong
from appliance.roster import Roster
from appliance.sessions import Sessions
from appliance.timeline import clean
from images.errors import GildError
from netboot.identity import Sighting
from netboot.node import Node, State
from netboot.nodelist import MAX_TOLD, Entry, NodelistInvalid, parse, render
from netboot.noderange import natural
from netboot.profile import DEFAULT

NEW, CHANGED, SAME, HERE = "new", "changed", "same", "here already"


@dataclass(frozen=True)
class Step:
    """What becomes of one line: `node` is the one of that name, or the machine of the waiting room that it is; `after`
    is a node of that name as it is to be."""

    entry: Entry
    node: Node | None
    after: Node | None

    @property
    def word(self) -> str:
        """NEW, HERE, CHANGED or SAME."""
        if self.after is None:
            return NEW if self.node is None else HERE
        return SAME if self.after == self.node else CHANGED

    def row(self) -> dict[str, Any]:
        """For people."""
        entry = self.entry
        return {
            "line": entry.line, "name": entry.name, "is": self.word, "mac": " ".join(entry.macs),
            "address": entry.address, "profile": entry.profile, "serial": entry.serial, "port": entry.port,
            "place": entry.is_place,
        }  # fmt: skip


class Declared:
    """The operator's use cases, and the look at every machine that has shown what it is."""

    def __init__(self, roster: Roster, sessions: Sessions) -> None:
        self.roster, self.sessions = roster, sessions

    def add(self, entry: Entry) -> dict[str, Any]:
        """Declare one node. Raises Wrong, NoSpace."""
        if any(node.name == entry.name for node in self.roster.nodes.values()):
            raise Wrong(f"there is a {entry.name} already", "see: gild.pyz node list")
        steps, bad = self._steps([entry])
        if bad:
            raise Wrong(bad[0][1], "see: gild.pyz node list")
        return self._carry_out(steps)[0]

    def load(self, data: bytes, preview: bool = False) -> list[dict[str, Any]]:
        """A list: what becomes of each line, and with `preview` only that. All of it or nothing. On the disk before
        this returns. Raises NodelistInvalid, naming lines; NoSpace."""
        steps, bad = self._steps(parse(data))
        if bad:
            told = [f"line {line}: {message}" for line, message in bad[:MAX_TOLD]]
            told += [f"and {len(bad) - MAX_TOLD} more"] if len(bad) > MAX_TOLD else []
            raise NodelistInvalid("\n".join(told), "nothing was changed")
        return [step.row() for step in steps] if preview else self._carry_out(steps)

    def listed(self) -> str:
        """All approved nodes as a list that `load` takes back."""
        return render(
            Entry(0, node.name, node.macs, node.address, node.profile, node.groups, node.serial, node.uuid, node.port)
            for node in self.roster.sorted()
            if node.name
        )

    def consider(self, node: Node) -> bool:
        """A machine of the waiting room has shown its hardware, or its switch the port it is on: whether it is a
        declared node by serial, UUID or port. That node has its card and facts from then on."""
        if node.state is not State.WAITING:
            return False
        for other in self.roster.nodes.values():
            same = (node.serial and node.serial == other.serial) or (node.uuid and node.uuid == other.uuid)
            if (same or _stands_there(other, node)) and is_unseen(other):
                return self.fill(other, node)
        return False

    def places(self) -> list[Node]:
        """Declared nodes that nothing is known of, in the order of their names."""
        unseen = (node for node in self.roster.nodes.values() if is_unseen(node))
        found = [node for node in unseen if not (node.serial or node.uuid or node.port)]
        return sorted(found, key=lambda node: natural(node.name))

    def fill(self, place: Node, machine: Node) -> bool:
        """The machine is that node. What stands in the way is said on its timeline, and it waits."""
        roster = self.roster
        after = replace(
            place, macs=machine.macs, uuid=machine.uuid, serial=machine.serial or place.serial, facts=machine.facts,
            firmware=machine.firmware, first_seen=machine.first_seen, last_seen=machine.last_seen, boot=machine.boot,
            power_at=machine.power_at, hello_at=machine.hello_at, relay=machine.relay,
        )  # fmt: skip
        self.sessions.forget(machine.id)
        roster.remove(machine)
        try:
            with roster.durable([place]):
                roster.pool.unreserve(place.holder)
                roster.pool.reserve(after.holder, place.address)
                roster.replace(after)
                roster.timeline.add(place.id, f"is the machine with the card {after.mac}", "good")
        except GildError:
            return False
        return True

    # --- inside

    def _steps(self, entries: Sequence[Entry]) -> tuple[list[Step], list[tuple[int, str]]]:
        """What becomes of each line, and the lines that cannot be: number and why."""
        by_name = {node.name: node for node in self.roster.nodes.values() if node.name}
        # An address that a node of the list leaves may be taken by another one of it.
        leaving = {by_name[entry.name].address for entry in entries if entry.name in by_name and entry.address}
        taken = {node.address: node for node in by_name.values() if node.address and node.address not in leaving}
        steps: list[Step] = []
        bad: list[tuple[int, str]] = []
        for entry in entries:
            node = by_name.get(entry.name)
            try:
                self._check(entry, node, taken)
                if node is None:
                    steps.append(Step(entry, self._waiting(entry), None))
                else:
                    steps.append(Step(entry, node, self._changed(entry, node)))
            except GildError as error:
                bad.append((entry.line, error.message))
        return steps, bad

    def _check(self, entry: Entry, node: Node | None, taken: dict[str, Node]) -> None:
        """Raises Wrong, Unknown."""
        roster = self.roster
        if entry.profile and entry.profile not in roster.profiles:
            known = ", ".join(sorted(roster.profiles))
            raise Unknown(f"there is no profile {clean(entry.profile)[:40]!r}; profiles: {known}")
        if entry.address and not roster.addresses.free(entry.address, ()):
            networks = ", ".join(subnet.network for subnet in roster.addresses.subnets.values())
            raise Wrong(f"address {entry.address} is not one for a node in {networks}")
        other = taken.get(entry.address)
        if other is not None and other is not node:
            raise Wrong(f"address {entry.address} is that of {other.label}")
        sighting = Sighting(entry.macs, entry.uuid, entry.serial)
        for kind, holder in roster.holders(sighting):
            if holder.state is not State.WAITING and holder is not node:
                raise Wrong(f"the {kind} is that of {holder.label}")

    def _waiting(self, entry: Entry) -> Node | None:
        """The machine of the waiting room that is this one."""
        sighting = Sighting(entry.macs, entry.uuid, entry.serial)
        return next((node for _, node in self.roster.holders(sighting) if node.state is State.WAITING), None)

    def _changed(self, entry: Entry, node: Node) -> Node:
        """The node with what the line says of it; its cards only while it was not seen."""
        after = replace(
            node,
            address=entry.address or node.address,
            profile=entry.profile or node.profile,
            groups=node.groups if entry.groups is None else entry.groups,
            port=entry.port or node.port,
        )
        if node.facts is None:
            after = replace(
                after, macs=entry.macs or node.macs, serial=entry.serial or node.serial, uuid=entry.uuid or node.uuid
            )
        elif entry.macs and not set(entry.macs) & set(node.macs):
            raise Wrong(
                f"{node.label} has the card {node.mac}, not {entry.macs[0]}; a changed card is a question of its own:"
                f" gild.pyz node same"
            )
        return after

    def _carry_out(self, steps: Sequence[Step]) -> list[dict[str, Any]]:
        """All of them, on the disk, or none. Raises Wrong if no address is left, NoSpace."""
        roster, now = self.roster, self.roster.clock.steady()
        asked = {step.entry.address for step in steps if step.entry.address}
        existing = [step.node for step in steps if step.node is not None and step.word != SAME]
        fresh: list[Node] = []
        made: list[Node] = []
        try:
            with roster.durable(existing):
                for step in steps:  # all leave their addresses before the first one takes one
                    if step.word == CHANGED and step.node is not None:
                        roster.pool.unreserve(step.node.holder)
                for step in steps:
                    if step.node is not None and step.after is not None:
                        made.append(self._change(step.node, step.after))
                        continue
                    entry, node = step.entry, step.node
                    if node is None:
                        node = roster.add(Sighting(entry.macs, entry.uuid, entry.serial))
                        fresh.append(node)
                    address = entry.address or self._address(node, asked, now)
                    made.append(self._declare(entry, node, address, now))
                if fresh and not existing:
                    roster.save_now()
        except GildError:
            for node in fresh:
                roster.remove(roster.nodes[node.id])
            raise
        for node in made:
            self.sessions.wake(node.id)
        return [{**step.row(), "address": node.address} for step, node in zip(steps, made, strict=True)]

    def _change(self, node: Node, after: Node) -> Node:
        if after != node:
            self.roster.pool.reserve(after.holder, after.address)
            self.roster.replace(after)
            self.roster.timeline.add(node.id, "set by a list of nodes")
        return after

    def _declare(self, entry: Entry, node: Node, address: str, now: float) -> Node:
        ready = replace(
            node, state=State.READY, since=now, name=entry.name, profile=entry.profile or DEFAULT,
            groups=entry.groups or (), address=address, port=entry.port,
        )  # fmt: skip
        self.roster.pool.reserve(ready.holder, address)
        self.roster.replace(ready)
        self.roster.timeline.add(node.id, f"declared as {entry.name}, address {address}", "good")
        return ready

    def _address(self, node: Node, asked: set[str], now: float) -> str:
        """The next free one that the list gives to nobody. Raises Wrong."""
        pool = self.roster.pool
        held = pool.address(node.holder) or pool.offer(node.holder, None, now)
        if held is None:
            raise Wrong("no address is left in the range", "serve --range, or give addresses in the list")
        if held not in asked:
            return held
        # Reserved for another line in a moment: it goes, and this one gets the next.
        pool.release(node.holder, held, now)
        free = pool.next_free(asked)
        if not free:
            raise Wrong("no address is left in the range", "serve --range, or give addresses in the list")
        return free


def is_unseen(node: Node) -> bool:
    """Declared, and no machine has been seen for it."""
    return node.state is not State.WAITING and not node.macs and node.facts is None


def _stands_there(declared: Node, machine: Node) -> bool:
    """The machine is on the switch port the node was declared to be on."""
    return bool(declared.port) and declared.port.lower() in (port.lower() for port in machine.ports)
