"""Switching nodes on and off, and never believing that it worked: what boots asks for an address, and is awaited."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from ipaddress import AddressValueError, IPv4Address
from typing import Any

from appliance.errors import Unknown, Wrong
from appliance.head_bmcs import Bmcs
from appliance.power.command import Outcome, carry_out
from appliance.power.crew import Crew
from appliance.power.wake import wake
from appliance.roster import Roster
from appliance.timeline import clean
from images.errors import GildError
from netboot.bmc import BOOTING, TOLD, Act, Power
from netboot.node import Node, State

WAKE, TEST = "wake", "test"  # verbs beside those of BMCs
MAX_ROUNDS = 64  # kept for those who ask what came of them; the oldest finished ones go
MAX_BROADCASTS = 16
DONE = {Act.ON: "switched on", Act.CYCLE: "switched off and on", Act.RESET: "reset"}
OFTEN = "look at its screen; often: network boot is not first, or the switch port waits (spanning tree)"


@dataclass
class Round:
    """One command for several nodes. `rows` are those that have answered."""

    id: int
    act: str
    pending: dict[int, Future[Any]] = field(default_factory=dict)  # by node
    rows: list[dict[str, Any]] = field(default_factory=list)
    news: asyncio.Event = field(default_factory=asyncio.Event)


@dataclass
class Standing:
    """What became of the last command after which a node should boot. `phase`: told (it is on its way), awaited,
    heard, silent, failed; `text` says why of the last two."""

    how: str
    since: float
    phase: str = "told"
    text: str = ""
    elsewhere: bool = False  # its own system has asked for an address, which its firmware has not


class Powers:
    """The operator's use cases around power, and the table of those who should be booting."""

    def __init__(self, roster: Roster, bmcs: Bmcs) -> None:
        self.roster, self.bmcs = roster, bmcs
        self.standings: dict[int, Standing] = {}
        self._rounds: dict[int, Round] = {}
        self._last = 0
        self._crew = Crew()

    # --- people

    def begin(self, act: str, refs: Sequence[str], broadcasts: Sequence[str] = ()) -> dict[str, Any]:
        """Begin a command for nodes: an Act, "wake" or "test"; gives the number to ask `outcome` for, and how many
        nodes it is for. `broadcasts` are addresses a wake goes to as well. A node with an open order is told to boot
        from the network, once. Raises Unknown, Wrong, NoderangeInvalid; nobody is told anything then."""
        if act not in (*Act, WAKE, TEST):
            raise Wrong(f"{clean(act)[:40]!r} is nothing a machine can be told", f"one of {', '.join(Act)}, {WAKE}")
        self._check_broadcasts(broadcasts)
        chosen = self.roster.select(refs)
        if act in (Act.OFF, Act.SOFT, Act.CYCLE, Act.RESET):
            for node in chosen:
                if node.state in (State.INSTALLING, State.CAPTURING):
                    raise Wrong(f"{node.label} is {node.state.value}", f"first: gild.pyz node cancel {node.label}")
        if len(chosen) == 1 and act not in (Act.ON, WAKE):
            self.bmcs.target(chosen[0])
        self._make_room()
        self._last += 1
        made = self._rounds[self._last] = Round(self._last, act)
        for node in chosen:
            self._tell(made, node, act, broadcasts)
        return {"id": made.id, "nodes": len(chosen)}

    async def outcome(self, number: int, have: int, wait: float) -> dict[str, Any]:
        """What has come of a command since `have` rows: waits up to `wait` seconds for more. Raises Unknown."""
        made = self._rounds.get(number)
        if made is None:
            raise Unknown(f"there is no command {number} (any more)", "ask again: gild.pyz node power status NODES")
        if len(made.rows) <= have and made.pending and wait > 0:
            made.news.clear()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(wait):
                    await made.news.wait()
        return {"rows": made.rows[have:], "done": not made.pending}

    # --- the head

    def way(self, node: Node) -> bool:
        """Whether the node can be restarted from here."""
        return self.bmcs.of(node) is not None

    def restart(self, nodes: Sequence[Node]) -> None:
        """Switch nodes off and on for an installation. Never raises: what fails is the standing of the node."""
        good: list[Node] = []
        for node in nodes:
            if node.state in (State.INSTALLING, State.CAPTURING) or not self.way(node):
                why = node.state.value if self.way(node) else "without a BMC"
                self._refused(node, f"cannot be restarted: it is {why}")
            else:
                good.append(node)
        try:
            self.begin(Act.CYCLE, [node.label for node in good])
        except GildError as error:
            for node in good:
                self._refused(node, f"cannot be restarted: {error.message}")

    def heard(self, node_id: int, boots: bool) -> None:
        """A node asks for an address: its firmware does (`boots`), or a system on it."""
        standing = self.standings.get(node_id)
        if standing is None or standing.phase not in ("told", "awaited"):
            return
        if boots:
            standing.phase = "heard"
        else:
            standing.elsewhere = True

    def tick(self) -> None:
        """Take what has come, and say who was to boot and did not."""
        self.collect()
        now, wait = self.roster.clock.steady(), float(self.roster.config.power_wait)
        for node_id, standing in list(self.standings.items()):
            if node_id not in self.roster.nodes:
                del self.standings[node_id]
            elif standing.phase == "awaited" and now - standing.since >= wait:
                self._give_up(self.roster.nodes[node_id], standing, now - standing.since)

    def collect(self) -> None:
        """Take what has come of all commands."""
        for made in self._rounds.values():
            for node_id, future in list(made.pending.items()):
                if future.done():
                    del made.pending[node_id]
                    self._take(made, node_id, future)
                    made.news.set()

    def close(self) -> None:
        """The head stops: nobody else is told anything; who waits for an outcome gets what there is."""
        for made in self._rounds.values():
            for future in made.pending.values():
                future.cancel()
            made.pending.clear()
            made.news.set()

    # --- inside

    def _tell(self, made: Round, node: Node, act: str, broadcasts: Sequence[str]) -> None:
        bmc = self.bmcs.of(node)
        if act == WAKE or (act == Act.ON and bmc is None):
            if not node.macs:
                made.rows.append(_row(node, "", error=f"{node.label} has shown no network card that could be woken"))
                return
            networks = [subnet.net for subnet in self.roster.addresses.subnets.values() if subnet.interface]
            macs, address = node.macs, node.address
            self._submit(made, node, lambda: wake(macs, address, networks, broadcasts))
            self._await(node, "woken")
            return
        if bmc is None:
            made.rows.append(_row(node, "", error=f"{node.label} has no BMC here: press its button"))
            return
        target = self.bmcs.target(node)
        if act == TEST:
            self._submit(made, node, lambda: carry_out(target, Act.STATUS, look=True))
            return
        order = self.roster.orders.get(node.id)
        network = act in BOOTING and order is not None and not order.closed
        self._submit(made, node, lambda: carry_out(target, Act(act), network))
        if act != Act.STATUS:
            self.roster.timeline.add(node.id, f"its BMC is told to {TOLD[Act(act)]}")
        if act in BOOTING:
            self._await(node, DONE[Act(act)])
        elif act != Act.STATUS:
            self.standings.pop(node.id, None)  # switched off on purpose: nobody waits for it

    def _submit(self, made: Round, node: Node, work: Any) -> None:
        future = made.pending[node.id] = self._crew.submit(work)
        with contextlib.suppress(RuntimeError):
            loop = asyncio.get_running_loop()

            def arrived(_: object) -> None:
                with contextlib.suppress(RuntimeError):  # the loop may have ended meanwhile
                    loop.call_soon_threadsafe(self.collect)

            future.add_done_callback(arrived)

    def _refused(self, node: Node, text: str) -> None:
        self.standings[node.id] = Standing(DONE[Act.CYCLE], self.roster.clock.steady(), "failed", text)
        self.roster.timeline.add(node.id, text, "warn")

    def _await(self, node: Node, how: str) -> None:
        self.standings[node.id] = Standing(how, self.roster.clock.steady())

    def _take(self, made: Round, node_id: int, future: Future[Any]) -> None:
        node = self.roster.nodes.get(node_id)
        if node is None or future.cancelled():
            return
        error = future.exception()
        if error is not None:
            made.rows.append(_row(node, "", error=f"the head stumbled: {type(error).__name__}"))
            self._failed(node, f"the head stumbled: {type(error).__name__}")
        elif isinstance(found := future.result(), Outcome):
            self._answered(made, node, found)
        else:
            self._woken(made, node, found)

    def _answered(self, made: Round, node: Node, outcome: Outcome) -> None:
        self.bmcs.learn(outcome.bmc)
        remarks = [clean(remark)[:300] for remark in outcome.remarks]
        made.rows.append(_row(
            node, outcome.bmc.kind.value, outcome.power, clean(outcome.error), outcome.hint, remarks, outcome.about,
        ))  # fmt: skip
        if made.act in (Act.STATUS, TEST):
            return
        for remark in remarks:
            self.roster.timeline.add(node.id, f"its BMC {remark}", "warn")
        if outcome.error:
            self.roster.timeline.add(node.id, f"could not be told by its BMC: {outcome.error}", "bad")
            self._failed(node, outcome.error)
        elif made.act == Act.ON and "was on already" in remarks:
            self.standings.pop(node.id, None)  # a machine that runs has no reason to ask
        else:
            self._sent(node)

    def _woken(self, made: Round, node: Node, places: list[str]) -> None:
        if not places:
            self._failed(node, "no interface could send anything to wake it")
            made.rows.append(_row(node, "wake", error=f"no interface could send anything to wake {node.label}"))
            return
        self.roster.timeline.add(node.id, f"sent what wakes it, on {', '.join(places)}")
        made.rows.append(_row(node, "wake", remarks=[f"sent on {', '.join(places)}"]))
        self._sent(node)

    def _sent(self, node: Node) -> None:
        standing = self.standings.get(node.id)
        if standing is not None and standing.phase == "told":
            standing.phase = "awaited"

    def _failed(self, node: Node, text: str) -> None:
        standing = self.standings.get(node.id)
        if standing is not None and standing.phase == "told":
            standing.phase, standing.text = "failed", text

    def _give_up(self, node: Node, standing: Standing, seconds: float) -> None:
        order = self.roster.orders.get(node.id)
        if standing.elsewhere and (order is None or order.closed):
            standing.phase = "heard"  # it has nothing to do here, and came up
            return
        span = f"{seconds / 60:.0f} min" if seconds >= 120 else f"{seconds:.0f} s"
        if standing.elsewhere:
            text = f"was {standing.how} {span} ago and came up from its own disk: network boot is not first"
        else:
            text = f"was {standing.how} {span} ago and has not asked for an address: {OFTEN}"
        standing.phase, standing.text = "silent", text
        self.roster.timeline.add(node.id, text, "warn")

    def _check_broadcasts(self, broadcasts: Sequence[str]) -> None:
        if len(broadcasts) > MAX_BROADCASTS:
            raise Wrong(f"{len(broadcasts)} broadcast addresses are too many", f"at most {MAX_BROADCASTS}")
        for text in broadcasts:
            try:
                IPv4Address(text)
            except AddressValueError:
                raise Wrong(f"{clean(text)[:40]!r} is no address to broadcast to", "write it as 10.2.255.255") from None

    def _make_room(self) -> None:
        for number in [number for number, made in self._rounds.items() if not made.pending]:
            if len(self._rounds) >= MAX_ROUNDS:
                del self._rounds[number]
        if len(self._rounds) >= MAX_ROUNDS:
            raise Wrong(f"{MAX_ROUNDS} commands are still being carried out", "wait for some of them")


def _row(
    node: Node, by: str, power: Power = Power.UNKNOWN, error: str = "", hint: str = "", remarks: Sequence[str] = (),
    about: str = "",
) -> dict[str, Any]:  # fmt: skip
    return {
        "node": node.label, "by": by, "power": power.value, "error": error, "hint": hint, "remarks": list(remarks),
        "about": about,
    }  # fmt: skip
