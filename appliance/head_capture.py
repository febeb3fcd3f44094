"""Golden clients read over the network: the order, the chunks as they come, and the version at the end.

Disk work runs in threads; what a node is, and its timeline, change on the event loop alone.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from appliance import rights
from appliance.errors import Environment, Wrong
from appliance.head_hello import Refused
from appliance.head_install import new_home_secret
from appliance.roster import Roster
from appliance.sessions import Session, Sessions
from appliance.timeline import clean
from images.errors import GildError
from netboot import disks
from netboot.capture import Ask, CapturePlan, Choice, End, Lacking, Offer, decode_frames
from netboot.node import Event, Node, State
from netboot.order import LIFETIME, READ, Order, accepts, close, hashed, repeats, take
from netboot.plan import DiskRule
from netboot.profile import parse_rule
from netboot.report import Ack, PlanAsk

if TYPE_CHECKING:
    from images.incoming import Incoming, Offered
    from images.store import Store as Images

log = logging.getLogger("gild.capture")

MADE_THERE = ("esp", "bios", "swap", "prep", "reserved", "recovery")  # what a node makes itself, or has no use for


@dataclass
class Capture:
    """One that runs. `incoming` is there once the disk was offered."""

    order: Order
    incoming: Incoming | None = None
    offer: Offer | None = None
    choice: Choice | None = None
    publishing: bool = False
    busy: asyncio.Lock = field(default_factory=asyncio.Lock)


class Captures:
    """The use cases of captures: the operator's order, and the agent's calls."""

    def __init__(self, roster: Roster, images: Images, sessions: Sessions) -> None:
        self.roster, self.images, self.sessions = roster, images, sessions
        self.running: dict[int, Capture] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    # --- the operator

    def order(
        self, ref: str, image: str, message: str = "", disk: str | None = None, preview: bool = False
    ) -> dict[str, Any]:
        """Order that a node's disk is read for the next version of `image`, or with `preview` only tell what that
        would be. Raises Unknown, Wrong, ProfileInvalid, NotFound for an impossible name, NoSpace, and Environment where
        this process could not publish what comes."""
        if not rights.root_may_mount():
            raise Environment(
                "this head serves with few rights, and a capture is published by mounts",
                "give it more: gild.pyz service install --captures, with the flags it has",
            )
        node = self.roster.find(ref)
        if node.state is State.WAITING:
            raise Wrong(f"{node.label} is not approved", f"gild.pyz node approve {node.id}")
        if node.state is State.INSTALLING or node.id in self.running:
            raise Wrong(f"{node.label} is {node.state.value}", f"first: gild.pyz node cancel {node.label}")
        if ":" in image:
            raise Wrong(f"{image!r} names a version, and a capture makes a new one", f"say {image.partition(':')[0]}")
        number = self.images.next_version(image)
        rule = parse_rule(disk) if disk else self._rule(node)
        found = None
        if node.facts is not None:
            try:
                found = disks.choose(node.facts.disks, rule)
            except GildError as error:
                raise Wrong(f"{node.label}: {error.message}", error.hint) from None
        if not preview:
            self._arm(node, image, message, rule)
        told = disks.describe(found) if found else f"not seen yet; the rule: {disks.tell(rule)}"
        content = (found.content if found else "") or "unknown"
        return {"node": node.label, "image": f"{image}:{number}", "disk": told, "content": content}

    def _rule(self, node: Node) -> DiskRule:
        return self.roster.wanted(node).profile.disk

    def _arm(self, node: Node, image: str, message: str, rule: DiskRule) -> None:
        roster, now = self.roster, self.roster.clock.steady()
        with roster.durable([node]):
            roster.last_order += 1
            roster.set_order(Order(
                roster.last_order, node.id, image, "", now, now + LIFETIME, disk=rule, finish="reboot",
                home_secret=new_home_secret(), message=clean(message)[:1000],
            ))  # fmt: skip
            roster.timeline.add(node.id, f"order to capture it as {image}", "good")
        self.sessions.wake(node.id)

    # --- the agent

    def plan(self, ask: PlanAsk) -> CapturePlan:
        """Use the order up. The same agent may ask again; an interrupted capture begins anew. Raises SessionUnknown,
        Refused, NoSpace."""
        session = self.sessions.find(ask.session)
        node, now = self.roster.nodes[session.node_id], self.roster.clock.steady()
        order = self.roster.orders.get(node.id)
        if not session.trusted or order is None or order.closed or not order.captures:
            raise self._refuse(node, "its installer asks to be captured without an open order")
        if repeats(order, ask.token, ask.session) and node.id in self.running:
            return self._plan(node, order)
        if not accepts(order, ask.token, now):
            raise self._refuse(node, "its installer asks to be captured with a token that is not valid")
        self._end(node.id)
        with self.roster.durable([node]):
            order = take(order, ask.token, ask.session, session.mac, now)
            self.roster.set_order(order)
            self.roster.apply(node, Event.CAPTURE, image=order.image)
        self.running[node.id] = Capture(order)
        return self._plan(node, order)

    async def offer(self, offer: Offer) -> Choice:
        """What stands on the disk; gives what is wanted of it. Raises Refused with the way out if it cannot be read,
        Busy if somebody else works on the image, NoSpace."""
        from images.incoming import Incoming, Offered

        session, capture = self._running(offer.session)
        async with capture.busy:
            if capture.choice is not None:
                return capture.choice
            wanted = _wanted(offer)
            node = self.roster.nodes[session.node_id]
            self.roster.apply(node, Event.PHASE, phase="reading", shown=f"reading {clean(offer.disk)[:200]}")
            parts: list[Offered] = [
                Offered(p.number, p.size, p.fs, p.used, clean(p.uuid)[:64], clean(p.label)[:64]) for p in wanted
            ]
            try:
                capture.incoming = await asyncio.to_thread(Incoming, self.images, capture.order.image, parts)
            except GildError as error:
                raise Refused(error.message, error.hint) from None
            if self.running.get(session.node_id) is not capture:  # taken back meanwhile
                self._spawn(asyncio.to_thread(capture.incoming.abort))
                raise Refused("the capture was taken back or given up")
            capture.offer = offer
            capture.choice = Choice(tuple(part.number for part in wanted))
            return capture.choice

    async def ask(self, ask: Ask) -> Lacking:
        """Which chunks the head lacks. Raises Refused."""
        _, capture = self._running(ask.session)
        incoming = _begun(capture)
        named = []
        for chunk in ask.chunks:
            if len(chunk.sha256) not in (0, 64) or chunk.sha256.strip("0123456789abcdef"):
                raise Refused(f"{clean(chunk.sha256)[:64]!r} is not a sha256")
            named.append((chunk.index, bytes.fromhex(chunk.sha256)))
        return Lacking(tuple(await self._work(lambda: incoming.lacking(ask.part, named))))

    async def chunks(self, session: str, body: bytes) -> Ack:
        """Chunks that were lacking. Raises Refused, WireInvalid."""
        _, capture = self._running(session)
        incoming = _begun(capture)
        part, frames = decode_frames(body)

        def take_all() -> None:
            for index, frame in frames:
                incoming.take(part, index, frame)

        await self._work(take_all)
        return Ack()

    async def end(self, end: End) -> Ack:
        """Everything was sent: the version is published while the machine restarts. Raises Refused."""
        session, capture = self._running(end.session)
        _begun(capture)
        if not capture.publishing:
            capture.publishing = True
            # The machine restarts while its version is made, and must not be told to begin anew.
            capture.order = close(capture.order, READ, self.roster.clock.steady())
            self.roster.set_order(capture.order)
            self._spawn(self._publish(session, capture))
        return Ack()

    # --- the end

    def tick(self) -> None:
        """Let go of captures whose node is not being captured any more: cancelled, silent, given up."""
        for node_id, capture in list(self.running.items()):
            node = self.roster.nodes.get(node_id)
            if not capture.publishing and (node is None or node.state is not State.CAPTURING):
                self._end(node_id)

    async def close(self) -> None:
        """The head stops: captures that run are given up, versions that are being published are waited for."""
        for node_id, capture in list(self.running.items()):
            if not capture.publishing:
                self._end(node_id)
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=30)

    def _end(self, node_id: int) -> None:
        capture = self.running.pop(node_id, None)
        if capture is not None and capture.incoming is not None:
            incoming = capture.incoming
            self._spawn(asyncio.to_thread(incoming.abort))

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _publish(self, session: Session, capture: Capture) -> None:
        node_id, order, incoming, offer = session.node_id, capture.order, capture.incoming, capture.offer
        assert incoming is not None and offer is not None
        loop = asyncio.get_running_loop()

        def tell(phase: str, done: int, total: int) -> None:
            loop.call_soon_threadsafe(self._progress, node_id, phase, done, total)

        try:
            ref = await asyncio.to_thread(_published, incoming, order, offer, self.roster.nodes[node_id].label, tell)
        except GildError as error:
            self._finish(node_id, Event.FAILED, reason=str(error))
        except Exception as error:
            log.exception("publishing the capture of node %s failed", node_id)
            self._finish(node_id, Event.FAILED, reason=f"the head stumbled: {type(error).__name__}; its log says more")
        else:
            self._finish(node_id, Event.FINISHED, image=ref)
        finally:
            self.running.pop(node_id, None)

    def _progress(self, node_id: int, phase: str, done: int, total: int) -> None:
        node = self.roster.nodes.get(node_id)
        if node is None or node.state is not State.CAPTURING:
            return
        self.roster.touch(node_id)
        named = f"publishing: {phase}"
        event = Event.PROGRESS if node.phase == named else Event.PHASE
        self.roster.apply(node, event, phase=named, shown=named, done=done, total=total)

    def _finish(self, node_id: int, event: Event, **details: Any) -> None:
        node = self.roster.nodes.get(node_id)
        if node is not None:
            self.roster.touch(node_id)
            self.roster.apply(node, event, **details)
            self.roster.save()

    # --- inside

    def _plan(self, node: Node, order: Order) -> CapturePlan:
        return CapturePlan(str(order.id), node.label, order.image, order.disk)

    def _running(self, secret: str) -> tuple[Session, Capture]:
        session = self.sessions.find(secret)
        capture = self.running.get(session.node_id)
        node = self.roster.nodes.get(session.node_id)
        if capture is None or node is None or not session.trusted or not _same(capture.order, secret):
            raise Refused("nothing is being captured from this machine", "order it: gild.pyz node capture")
        if node.state is not State.CAPTURING:
            raise Refused("the capture was taken back or given up")
        self.roster.touch(node.id)
        return session, capture

    async def _work(self, work: Callable[[], Any]) -> Any:
        try:
            return await asyncio.to_thread(work)
        except GildError as error:
            raise Refused(error.message, error.hint) from None

    def _refuse(self, node: Node, text: str) -> Refused:
        self.roster.timeline.note(node.id, f"{text}; refused", "bad")
        return Refused(text)


def _same(order: Order, secret: str) -> bool:
    return order.session == hashed(secret)


def _begun(capture: Capture) -> Incoming:
    if capture.incoming is None:
        raise Refused("the disk was not offered yet")
    return capture.incoming


def _wanted(offer: Offer) -> list[Any]:
    """The partitions to read: those with a filesystem, but for what each node makes itself. Raises Refused."""
    from images.superblock import CONTAINERS

    for part in offer.parts:
        if part.fs in CONTAINERS:
            raise Refused(
                f"partition {part.number} is {CONTAINERS[part.fs]}, which cannot be read into",
                "capture the running machine: gild.pyz image capture NAME --from ssh:root@HOST",
            )
    wanted = [
        part for part in offer.parts if part.fs and part.kind not in MADE_THERE and part.fs not in ("swap", "vfat")
    ]
    if not wanted:
        found = ", ".join(part.fs or part.kind or "unknown" for part in offer.parts) or "nothing"
        raise Refused(f"there is no filesystem of a system on {clean(offer.disk)[:200]}: {found}")
    return wanted


def _published(
    incoming: Incoming, order: Order, offer: Offer, client: str, tell: Callable[[str, int, int], None]
) -> str:
    from images.options import Options
    from images.sources.roles import with_roles

    partuuids = {part.number: part.partuuid for part in offer.parts}
    source = {
        "kind": "capture",
        "client": client,
        "disk": clean(offer.disk)[:200],
        "table": offer.table[:10],
        "partitions": [
            {"number": p.number, "size": p.size, "kind": p.kind[:20], "fs": p.fs[:20], "note": clean(p.note)[:200]}
            for p in offer.parts
        ],
        "sent": incoming.came,
        "known": incoming.known,
    }
    options = Options(message=order.message or f"captured from {client}", progress=tell)
    return incoming.finish(lambda parts: with_roles(parts, partuuids), options, source).ref
