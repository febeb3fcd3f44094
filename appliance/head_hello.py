"""Hello: who a machine is, and what it is to do now; held back for those that have nothing to do yet."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from dataclasses import replace
from typing import Any, TypeVar

from appliance.head_boot import new_token
from appliance.host_keys import HostKeys
from appliance.roster import Roster
from appliance.sessions import Session, Sessions
from appliance.timeline import clean
from images.errors import GildError
from netboot.identity import Sighting, real_mac, real_serial, real_uuid
from netboot.node import Event, Node, State
from netboot.order import accepts, give
from netboot.policy import Act, Asks, Decision, decide
from netboot.report import Answer, Disk, Do, Facts, Hello, Next, Nic, Seat
from netboot.wire import WIRE

POLL = 25.0  # seconds a waiting agent's question is held back at most
MAX_DISKS, MAX_NICS, MAX_WORD = 512, 128, 256

T = TypeVar("T", Facts, Disk, Nic, Seat)


class Refused(GildError):
    """The agent may not have what it asks for."""

    status = 403


class Hellos:
    """The node API's use cases up to an order."""

    def __init__(self, roster: Roster, keys: HostKeys) -> None:
        self.roster, self.keys, self.config = roster, keys, roster.config
        self.sessions = Sessions(roster)
        self.on_hello: Callable[[Node], object] = lambda node: None  # a machine nobody doubts has shown what it is

    def hello(self, hello: Hello, address: str) -> Answer:
        """Who a machine is, and what it is to do. Raises Refused for another wire version or a machine without a
        network card."""
        if hello.wire != WIRE:
            raise Refused(
                f"the installer speaks version {hello.wire} and the head version {WIRE}", "reboot the machine"
            )
        mac = real_mac(hello.mac)
        if not mac:
            raise Refused(f"{clean(hello.mac)[:40]!r} is not the address of a network card")
        facts = _cleaned(hello.facts)
        macs = tuple(dict.fromkeys([mac, *(real_mac(nic.mac) for nic in facts.nics)]))
        sighting = Sighting(tuple(m for m in macs if m), real_uuid(facts.uuid), real_serial(facts.serial))
        verdict = self.roster.identify(sighting)
        node = verdict.node if verdict.node is not None else self.roster.add(sighting)
        self.roster.settle(address)
        at_home = self.roster.pool.address(mac) == address
        if not at_home:
            self.roster.timeline.note(node.id, f"an installer with its card says hello from {address}", "warn")
        if verdict.conflict:
            self.roster.timeline.note(node.id, f"{mac} {verdict.conflict}: no order is handed out", "warn")
        trusted = at_home and not verdict.conflict
        if trusted or (node.facts is None and node.state is State.WAITING):
            for other in verdict.absorbed:
                self.roster.remove(other)
            node = self._learn(node, facts, sighting, address if at_home else "")
            if trusted:
                self.on_hello(node)
                node = self.roster.by_mac(mac) or node  # it may turn out to be a node that was declared
        secret = new_token()
        session = self.sessions.open(secret, node, mac, trusted)
        # Not saved at once: a head that dies within the second gives the next hello a token as good as this one.
        return self._answer(session, secret, hello.token)

    def _learn(self, node: Node, facts: Facts, sighting: Sighting, address: str) -> Node:
        self.roster.touch(node.id)
        if node.facts is not None and node.state is not State.WAITING:
            # Switches speak only every half minute. Whoever waits may have been carried somewhere else meanwhile.
            before = {nic.mac: nic for nic in node.facts.nics}
            nics = (replace(nic, switch=old.switch, port=old.port) if (old := before.get(nic.mac)) else nic
                    for nic in facts.nics)  # fmt: skip
            facts = replace(facts, nics=tuple(nics))
        # The card whose address is reserved stays the first one.
        macs = tuple(dict.fromkeys([*(mac for mac in node.macs[:1] if mac in sighting.macs), *sighting.macs]))
        machine = f"{facts.vendor} {facts.product}".strip() or "unknown make"
        text = f"{machine}, {facts.cores} cores, {facts.memory / (1 << 30):.1f} GiB, {len(facts.disks)} disks"
        node = self.roster.apply(
            node, Event.HELLO, facts=facts, macs=macs, uuid=sighting.uuid, serial=sighting.serial, machine=text
        )
        if node.state is State.WAITING and address and node.address != address:
            node = replace(node, address=address)
            self.roster.replace(node)
        if node.state is not State.WAITING:
            self.keys.want(node.id, node.name)
        return node

    async def next(self, ask: Next) -> Answer:
        """What a waiting machine is to do; the answer is held back until there is something, or its time is over.
        Raises SessionUnknown."""
        session = self.sessions.find(ask.session)
        if ask.seats:
            self.seated(session, ask.seats)
            session = self.sessions.find(ask.session)  # it may have turned out to be a declared node
        answer = self._answer(session, ask.session, "")
        if answer.do is Do.WAIT and ask.wait > 0:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(min(POLL, ask.wait)):
                    await session.wake.wait()
            session = self.sessions.find(ask.session)
            answer = self._answer(session, ask.session, "")
        return answer

    def seated(self, session: Session, seats: tuple[Seat, ...]) -> None:
        """The switches a machine is on have said so; its own log tells people."""
        node = self.roster.nodes[session.node_id]
        if node.facts is None or not (session.trusted or node.state is State.WAITING):
            return
        known = {seat.nic: _words(seat) for seat in seats[:MAX_NICS]}
        nics = tuple(
            replace(nic, switch=known[nic.name].switch, port=known[nic.name].port) if nic.name in known else nic
            for nic in node.facts.nics
        )
        node = replace(node, facts=replace(node.facts, nics=nics))
        self.roster.replace(node)
        if session.trusted:
            self.on_hello(node)

    def _answer(self, session: Session, secret: str, token: str) -> Answer:
        node = self.roster.nodes[session.node_id]
        order, now = self.roster.orders.get(node.id), self.roster.clock.steady()
        decision = decide(node, Asks.ORDERS, order, now, unknown=self.config.unknown, trusted=session.trusted)
        session.wake.clear()
        if session.trusted:
            self.roster.touch(node.id)
            if decision.fail:
                node = self.roster.apply(node, Event.FAILED, reason=decision.fail)
        if decision.armed and order is not None and self.keys.ready(node.id, node.name):
            if not token or not accepts(order, token, now):
                token = new_token()
                self.roster.set_order(give(order, token, now))
            if order.captures:
                return self._say(Do.CAPTURE, secret, node, token, f"{node.name} is read for {order.image}")
            return self._say(Do.INSTALL, secret, node, token, f"{node.name} gets {order.image}")
        if decision.act is Act.LOCAL:
            return self._say(Do.LOCAL, secret, node, "", decision.why)
        return self._say(Do.WAIT, secret, node, "", _waiting(node, decision))

    def _say(self, do: Do, secret: str, node: Node, token: str, message: str) -> Answer:
        return Answer(do, secret, node.name, node.id, token, clean(message), 1 if do is Do.WAIT else 5)


def _waiting(node: Node, decision: Decision) -> str:
    if node.state is State.WAITING:
        return f"number {node.id} in the waiting room: approve it with  gild.pyz node approve {node.id}"
    if decision.armed:
        return f"{node.label}: its host keys are being made"
    return f"{node.label} waits: {decision.why}"


def _cleaned(facts: Facts) -> Facts:
    """Everything a machine says of itself as short printable text, and bounded lists."""
    disks = tuple(_words(disk) for disk in facts.disks[:MAX_DISKS])
    nics = tuple(_words(nic) for nic in facts.nics[:MAX_NICS])
    return replace(_words(facts), disks=disks, nics=nics)


def _words(value: T) -> T:
    texts: dict[str, Any] = {key: clean(word)[:MAX_WORD] for key, word in vars(value).items() if isinstance(word, str)}
    return replace(value, **texts)
