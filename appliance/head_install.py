"""From hello to "up": sessions of agents, the one use of an order, reports, and the call home."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import hmac
import secrets
from collections.abc import Callable
from dataclasses import replace
from typing import Any, TypeVar

from appliance.errors import Wrong
from appliance.head_boot import new_token
from appliance.head_overlay import Overlays
from appliance.head_plan import BootPieceOf, make_plan, network_of
from appliance.host_keys import HostKeys
from appliance.roster import Roster
from appliance.sessions import Session, Sessions
from appliance.timeline import clean
from images.errors import GildError
from netboot.identity import Sighting, real_mac, real_serial, real_uuid
from netboot.node import Event, Node, State
from netboot.order import Order, accepts, close, give, hashed, repeats, take
from netboot.plan import InstallPlan
from netboot.policy import Act, Asks, Decision, decide
from netboot.profile import FINISHES
from netboot.report import OWN_LOADER, Ack, Answer, Disk, Do, Facts, FileAsk, Hello, Next, Nic, PlanAsk, Report, Seat
from netboot.wire import WIRE

REPORTS = 500  # reports of progress a second the head asks for at most, from all machines: a tenth of a core (measured)
POLL = 25.0  # seconds a waiting agent's question is held back at most
MAX_DISKS, MAX_NICS, MAX_WORD = 512, 128, 256

T = TypeVar("T", Facts, Disk, Nic, Seat)


class Refused(GildError):
    """The agent may not have what it asks for."""

    status = 403


class Installs:
    """The node API's use cases."""

    def __init__(self, roster: Roster, keys: HostKeys, piece: BootPieceOf, overlays: Overlays) -> None:
        self.roster, self.keys, self.piece, self.overlays = roster, keys, piece, overlays
        self.config = roster.config
        self.sessions = Sessions(roster)
        self.on_up: Callable[[Node], None] = lambda node: None
        self.on_refused: Callable[[Node, str], object] = lambda node, text: None
        self.on_hello: Callable[[Node], object] = lambda node: None  # a machine nobody doubts has shown what it is

    # --- hello and waiting

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
            self._seated(session, ask.seats)
            session = self.sessions.find(ask.session)  # it may have turned out to be a declared node
        answer = self._answer(session, ask.session, "")
        if answer.do is Do.WAIT and ask.wait > 0:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(min(POLL, ask.wait)):
                    await session.wake.wait()
            session = self.sessions.find(ask.session)
            answer = self._answer(session, ask.session, "")
        return answer

    def _seated(self, session: Session, seats: tuple[Seat, ...]) -> None:
        """The switches a machine is on have said so."""
        node = self.roster.nodes[session.node_id]
        if node.facts is None or not (session.trusted or node.state is State.WAITING):
            return
        known = {seat.nic: _words(seat) for seat in seats[:MAX_NICS]}
        nics = tuple(
            replace(nic, switch=known[nic.name].switch, port=known[nic.name].port) if nic.name in known else nic
            for nic in node.facts.nics
        )
        for nic in set(nics) - set(node.facts.nics):
            self.roster.timeline.note(node.id, f"{nic.name} is on port {nic.port} of the switch {nic.switch}")
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

    # --- plan

    async def plan(self, ask: PlanAsk) -> InstallPlan:
        """Use the order up: the one step after which a disk is erased. It is on the head's disk before the plan
        leaves. The same agent may ask again for an answer that got lost; anybody else with a used token is refused
        and alarms. Raises SessionUnknown, Refused, Wrong, NoSpace."""
        session = self.sessions.find(ask.session)
        node, now = self.roster.nodes[session.node_id], self.roster.clock.steady()
        order = self.roster.orders.get(node.id)
        if not session.trusted:
            raise self._refuse(node, "a machine whose identity is in doubt asks for its plan")
        if order is None or order.closed or order.captures:
            raise self._refuse(node, "its installer asks for a plan without an open order")
        if repeats(order, ask.token, ask.session) and node.state is State.INSTALLING and not node.phase:
            self.roster.timeline.note(node.id, "asks for its plan again: the answer was lost")
            await self.roster.store.written(())  # behind the first one, wherever that is by now
            if self.roster.orders.get(node.id) is not order:
                raise self._refuse(node, "its order was taken back while it asked for its plan")
            return self._plan(node, order, session)
        if not accepts(order, ask.token, now):
            if order.used and hmac.compare_digest(order.used_token, hashed(ask.token)):
                raise self._refuse(node, "ALARM: the token of its order was used a second time")
            raise self._refuse(node, "its installer asks for a plan with a token that is not valid")
        plan_decision = decide(node, Asks.ORDERS, order, now, unknown=self.config.unknown)
        if not plan_decision.armed:
            raise self._refuse(node, "its installer asks for a plan, but its order has run out")
        plan = self._plan(node, order, session)
        # If the disk is full the agent gets no plan: nothing is erased without a record of it.
        async with self.roster.durable_soon(node):
            self.roster.set_order(take(order, ask.token, ask.session, session.mac, now))
            self.roster.apply(node, Event.PLAN_TAKEN, image=order.image)
        return plan

    def _plan(self, node: Node, order: Order, session: Session) -> InstallPlan:
        profile = self.roster.wanted(node).profile
        if not self.keys.ready(node.id, node.name):
            raise Wrong(f"the host keys of {node.label} are still being made", "ask again in a second")
        keys = self.keys.get(node.id)
        addresses = self.roster.addresses
        subnet, stands = addresses.place(node.address), addresses.place(self.roster.pool.address(session.mac) or "")
        if subnet is not stands:
            raise Wrong(
                f"{node.label} stands in the network {stands.name}, but its address {node.address} is of {subnet.name}",
                f"gild.pyz node set {node.label} --address ONE OF {stands.network}",
            )
        network = network_of(node, subnet, self.config.domain, session.mac)
        fitting = self.overlays.fitting(node, network)
        here = replace(self.config, address=subnet.head)
        return make_plan(node, order, profile, here, network, self.piece, keys, fitting)

    def file_piece(self, ask: FileAsk) -> bytes:
        """A piece of an overlay file that is too large for the plan it stands in. Raises SessionUnknown, Refused,
        OverlayInvalid."""
        session = self.sessions.find(ask.session)
        node, order = self.roster.nodes[session.node_id], self.roster.orders.get(session.node_id)
        mine = order is not None and hmac.compare_digest(order.session, hashed(ask.session))
        if order is None or not mine or order.closed or order.captures:
            raise self._refuse(node, "a machine that holds no plan asks for a file of its profile")
        return self.overlays.piece(node, ask.path, ask.stamp, ask.offset)

    def _refuse(self, node: Node, text: str) -> Refused:
        self.roster.timeline.note(node.id, f"{text}; refused", "bad")
        self.on_refused(node, text)
        return Refused(text)

    # --- reports

    def report(self, report: Report) -> Ack:
        """How an installation goes. Repeats and late ones are harmless. Raises SessionUnknown."""
        session = self.sessions.find(report.session)
        node = self.roster.nodes[session.node_id]
        if session.trusted or node.state is State.WAITING:
            self.roster.timeline.machine_log(node.id, tuple(line for line in report.lines if line.strip()))
        if report.seats:
            self._seated(session, report.seats)
            node = self.roster.nodes.get(session.node_id, node)
        order = self.roster.orders.get(node.id)
        if order is None or not hmac.compare_digest(order.session, hashed(report.session)):
            return self._not_begun(session, node, order, report)
        self.roster.touch(node.id)
        if order.closed:
            if order.outcome == "cancelled" and report.failed:
                self.roster.apply(node, Event.FAILED, reason="cancelled while it was being written")
            return Ack("the order was taken back" if order.outcome == "cancelled" else "")
        if report.phase is not None or report.disk:
            node = self._progress(node, report)
        if report.failed:
            self.roster.apply(node, Event.FAILED, reason=clean(report.failed))
            self.roster.save()
        elif report.finished and not order.captures:  # the end of a capture is the version, not the last report
            finish = report.finish if report.finish in (*FINISHES, OWN_LOADER) else order.finish
            known = {"image": order.image, "digest": order.digest, "finish": finish}
            self.roster.apply(node, Event.FINISHED, **known)
            self.roster.save()
        return Ack(every=len(self.sessions.table) / REPORTS)

    def _not_begun(self, session: Session, node: Node, order: Order | None, report: Report) -> Ack:
        """A report of an agent that has no order in use: its lines are welcome, and that it could not begin."""
        if session.trusted and report.failed and order is not None and not order.closed and not order.used:
            self.roster.apply(node, Event.FAILED, reason=clean(report.failed))
            # Whatever state the node is in: an order that cannot be carried out is not offered again and again.
            self.roster.set_order(close(order, "failed", self.roster.clock.steady()))
            self.roster.save()
        return Ack()

    def _progress(self, node: Node, report: Report) -> Node:
        phase = report.phase.value if report.phase is not None else node.phase
        known: dict[str, object] = {"done": max(0, report.done), "total": max(0, report.total)}
        known["fetched"] = max(node.fetched, report.fetched)
        if report.disk:
            known["disk"] = clean(report.disk)[:MAX_WORD]
        if phase != node.phase:
            shown = f"{phase} on {known['disk']}" if report.disk and report.disk != node.disk else phase
            return self.roster.apply(node, Event.PHASE, **{**known, "phase": phase, "shown": shown})
        return self.roster.apply(node, Event.PROGRESS, **known)

    # --- call home

    def home(self, node_ref: str, body: bytes, proof: str, address: str) -> None:
        """The installed system says that it is up. Raises Refused for a wrong proof; a repeat is harmless."""
        number = int(node_ref) if node_ref.isascii() and node_ref.isdigit() and len(node_ref) < 10 else 0
        node = self.roster.nodes.get(number)
        order = self.roster.orders.get(number)
        if node is None or order is None or not order.home_secret:
            raise Refused("no such call home is expected")
        good = hashlib.sha256(order.home_secret.encode() + body).hexdigest()
        if not hmac.compare_digest(good.encode(), proof.strip().lower().encode("utf-8", "replace")):
            self.roster.timeline.note(node.id, f"a call home from {address} with a wrong proof; refused", "warn")
            raise Refused("the proof of this call home is wrong")
        said = _lines(body)
        if node.up_at or node.state is State.WAITING:
            return
        self.roster.touch(node.id)
        system = f"{said.get('hostname', '?')}, kernel {said.get('kernel', '?')}, at {address}"
        # A system that calls home was written whole, even if the installer's last report got lost.
        node = self.roster.apply(
            node, Event.CALLED_HOME, system=system, image=order.image, digest=order.digest, home=said
        )
        short = said.get("hostname", "").partition(".")[0]
        if short and short != node.name:
            self.roster.timeline.add(node.id, f"its system calls itself {short}, not {node.name}", "warn")
        self.roster.save()
        self.on_up(node)


def new_home_secret() -> str:
    """The secret of one call home."""
    return secrets.token_hex(32)


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


def _lines(body: bytes) -> dict[str, str]:
    """The lines "key value" of a call home."""
    text = body[:4096].decode("utf-8", "replace")
    pairs = (line.partition(" ") for line in text.splitlines()[:20])
    return {key: clean(value)[:100] for key, _, value in pairs}
