"""From the plan to "up": the one use of an order, reports, and the call home."""

from __future__ import annotations

import hashlib
import hmac
import secrets
from collections.abc import Callable
from dataclasses import replace

from appliance.errors import Wrong
from appliance.head_hello import MAX_WORD, Hellos, Refused
from appliance.head_overlay import Overlays
from appliance.head_plan import BootPieceOf, make_plan, network_of
from appliance.host_keys import HostKeys
from appliance.roster import Roster
from appliance.sessions import Session
from appliance.timeline import clean
from netboot.node import Event, Node, State
from netboot.order import Order, accepts, close, hashed, repeats, take
from netboot.plan import InstallPlan
from netboot.policy import Asks, decide
from netboot.profile import FINISHES
from netboot.report import OWN_LOADER, Ack, FileAsk, PlanAsk, Report

REPORTS = 500  # reports of progress a second the head asks for at most, from all machines: a tenth of a core (measured)


class Installs:
    """The node API's use cases from the plan on."""

    def __init__(self, roster: Roster, keys: HostKeys, piece: BootPieceOf, overlays: Overlays, hellos: Hellos) -> None:
        self.roster, self.keys, self.piece, self.overlays, self.hellos = roster, keys, piece, overlays, hellos
        self.config, self.sessions = roster.config, hellos.sessions
        self.on_up: Callable[[Node], None] = lambda node: None
        self.on_refused: Callable[[Node, str], object] = lambda node, text: None

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
        taken = take(order, ask.token, ask.session, session.mac, now)
        async with self.roster.durable_soon(node):
            self.roster.set_order(taken)
            self.roster.apply(node, Event.PLAN_TAKEN, image=order.image)
        if self.roster.orders.get(node.id) is not taken:
            raise self._refuse(node, "its order was taken back while it asked for its plan")
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
            self.hellos.seated(session, report.seats)
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


def _lines(body: bytes) -> dict[str, str]:
    """The lines "key value" of a call home."""
    text = body[:4096].decode("utf-8", "replace")
    pairs = (line.partition(" ") for line in text.splitlines()[:20])
    return {key: clean(value)[:100] for key, _, value in pairs}
