"""The node: what is known of one machine, and the one table that says what every event means for it.

What a node *should* have (profile, image, order) is not here; `policy` compares the two. Packets repeat, reorder and
lie, so `step` is total: a pair of state and event has a row in TRANSITIONS, or the node stays where it is and the
event is recorded. Going through the same event twice is harmless.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Any

from netboot.report import OWN_LOADER, Facts


class State(StrEnum):
    """Where a node stands."""

    WAITING = "waiting"  # in the waiting room: seen, untouched, nobody has approved it
    READY = "ready"
    INSTALLING = "installing"
    INSTALLED = "installed"  # written and restarted; its system has not called yet
    UP = "up"
    FAILED = "failed"
    LOST = "lost"  # said nothing for too long in the middle of something
    CAPTURING = "capturing"  # a golden client whose disk is being read


class Boot(StrEnum):
    """How far the present boot has come: the last sign of life."""

    NONE = ""
    DHCP = "dhcp"
    LOADER = "loader"
    SCRIPT = "script"
    AGENT = "agent"
    DISK = "disk"  # told to boot from its own disk


class Event(StrEnum):
    """Everything that can happen to a node."""

    SEEN = "seen"  # asked by DHCP for something to boot
    LOADER_SENT = "loader sent"
    SCRIPT_SENT = "script sent"
    LOCAL_SENT = "local sent"  # told to boot from its own disk
    HELLO = "hello"
    APPROVED = "approved"
    ORDERED = "ordered"
    CANCELLED = "cancelled"
    EXPIRED = "expired"  # the order ran out unused
    PLAN_TAKEN = "plan taken"
    PHASE = "phase"
    PROGRESS = "progress"
    FINISHED = "finished"
    FAILED = "failed"
    CALLED_HOME = "called home"
    SILENT = "silent"
    CAPTURE = "capture"  # the agent begins to read its disk for a new image


@dataclass(frozen=True)
class Node:
    """One machine. Times are seconds since 1970; everything the machine said of itself is a claim."""

    id: int
    state: State = State.WAITING
    since: float = 0.0  # of `state`
    name: str = ""
    macs: tuple[str, ...] = ()  # the one it booted from first
    uuid: str = ""
    serial: str = ""
    apart: tuple[int, ...] = ()  # nodes it looks like and, as somebody has said, is not
    machine_id: str = ""  # of the systems installed on it, the same every time
    address: str = ""
    profile: str = "default"
    groups: tuple[str, ...] = ()  # what people call it together with others: @rack1
    own: dict[str, str] = field(default_factory=dict)  # values it has instead of its profile's (netboot.wanted)
    secure: bool = False  # Secure Boot: the signed loaders only
    image: str = ""  # name:version that stands on its disk, whole; empty while it is being written
    golden: str = ""  # the image its disk was read for: it has a system of its own, made by hand
    digest: str = ""  # of that version
    finish: str = ""  # how its last installation went on: kexec, reboot, poweroff or OWN_LOADER
    phase: str = ""
    done: int = 0  # bytes, within the phase
    total: int = 0
    fetched: int = 0  # bytes that came over the network
    disk: str = ""  # that was written, for people
    reason: str = ""  # why it is failed or lost, or what holds its boot up
    firmware: str = ""
    boot: Boot = Boot.NONE
    rung: int = 0  # loaders that did not bring it back
    tries: int = 0  # plans taken for the present order
    first_seen: float = 0.0
    last_seen: float = 0.0
    power_at: float = 0.0  # first packet of the present boot
    ordered_at: float = 0.0
    hello_at: float = 0.0
    taken_at: float = 0.0  # the plan
    started_at: float = 0.0  # first packet of the boot in which the plan was taken
    written_at: float = 0.0
    up_at: float = 0.0
    port: str = ""  # SWITCH:PORT it was declared to be on
    relay: str = ""  # the DHCP relay it was last heard through, and the port that names
    home: dict[str, str] = field(default_factory=dict)  # what its installed system said of itself when it called
    facts: Facts | None = None

    @property
    def ports(self) -> tuple[str, ...]:
        """The switch ports its cards are on, as SWITCH:PORT, as far as switches have said so."""
        nics = self.facts.nics if self.facts is not None else ()
        return tuple(f"{nic.switch}:{nic.port}" for nic in nics if nic.port)

    @property
    def label(self) -> str:
        """What people call it: its name, or its number in the waiting room."""
        return self.name or f"#{self.id}"

    @property
    def mac(self) -> str:
        """The card it booted from first, whose address is reserved; empty if none is known."""
        return self.macs[0] if self.macs else ""

    @property
    def holder(self) -> str:
        """What holds its address in the pool: its card, or its number while none is known."""
        return self.mac or f"#{self.id}"


@dataclass(frozen=True)
class Record:
    """Effect: a line on the node's timeline. `level` is info, good, warn, bad, log or progress."""

    text: str
    level: str = "info"


@dataclass(frozen=True)
class CloseOrder:
    """Effect: the node's order is over, and why."""

    outcome: str  # "finished", "failed", "cancelled", "expired"


Effect = Record | CloseOrder


@dataclass(frozen=True)
class Row:
    """What an event does: the state that follows and the line it leaves ({braces} are filled from node and details)."""

    to: State
    text: str
    level: str = "info"


W, R, I, D = State.WAITING, State.READY, State.INSTALLING, State.INSTALLED  # noqa: E741 (a table is read by columns)
U, F, L, C = State.UP, State.FAILED, State.LOST, State.CAPTURING

TRANSITIONS: dict[tuple[State, Event], Row] = {
    (W, Event.APPROVED): Row(R, "approved as {name}, profile {profile}, address {address}", "good"),
    # An order does not change what the machine is, but it wipes the slate of one that failed.
    (F, Event.ORDERED): Row(R, "order for {image}", "good"),
    (L, Event.ORDERED): Row(R, "order for {image}", "good"),
    # The only way to `installing`, and so to a written disk, is a plan taken with an order.
    **{(state, Event.PLAN_TAKEN): Row(I, "takes the plan for {image}, try {tries}") for state in (R, I, D, U, F, L)},
    # Reports of an installation that was given up too early: the network is back.
    (L, Event.PHASE): Row(I, "{shown}"),
    (L, Event.PROGRESS): Row(I, "{phase} {share}", "progress"),
    **{(state, Event.FINISHED): Row(D, "written in {seconds}; goes on by {finish}", "good") for state in (I, L)},
    **{(state, Event.FAILED): Row(F, "failed: {reason}", "bad") for state in (R, I, L)},
    (I, Event.SILENT): Row(L, "{reason}", "bad"),
    (D, Event.SILENT): Row(L, "{reason}", "bad"),
    # A lost machine that stands in the installer again is lost no more.
    (L, Event.HELLO): Row(R, "in the installer again: {machine}"),
    # A call home is proven by a secret only the written system has; it outweighs every earlier doubt.
    **{(state, Event.CALLED_HOME): Row(U, "up: {system}", "good") for state in (I, D, U, F, L)},
    # Reading changes nothing on the disk: however a capture ends, the machine is what it was (see _after_capture).
    **{(state, Event.CAPTURE): Row(C, "its disk is read for {image}") for state in (R, D, U, F, L, C)},
    (C, Event.FINISHED): Row(R, "captured as {image}", "good"),
    (C, Event.FAILED): Row(R, "not captured: {reason}", "bad"),
    (C, Event.CANCELLED): Row(R, "its capture was taken back", "warn"),
    (C, Event.SILENT): Row(R, "not captured: {reason}", "bad"),
}

# What is recorded of an event that changes no state.
STAY: dict[Event, tuple[str, str]] = {
    Event.SEEN: ("asks for something to boot: {firmware}, gets {what}", "info"),
    Event.LOADER_SENT: ("has loaded {what}", "info"),
    Event.SCRIPT_SENT: ("gets its script: {what}", "info"),
    Event.LOCAL_SENT: ("is sent to its own disk: {what}", "info"),
    Event.HELLO: ("in the installer: {machine}", "info"),
    Event.APPROVED: ("approved again", "info"),
    Event.ORDERED: ("order for {image}", "good"),
    Event.CANCELLED: ("order taken back", "warn"),
    Event.EXPIRED: ("its order expired unused", "warn"),
    Event.PLAN_TAKEN: ("asks for a plan while {state}", "warn"),
    Event.PHASE: ("{shown}", "info"),
    Event.PROGRESS: ("{phase} {share}", "progress"),
    Event.FINISHED: ("reports the end again", "info"),
    Event.FAILED: ("reports a failure while {state}: {reason}", "warn"),
    Event.CALLED_HOME: ("calls home while {state}", "warn"),
    Event.SILENT: ("{reason}", "warn"),
    Event.CAPTURE: ("cannot be captured while {state}", "warn"),
}


@dataclass(frozen=True)
class Timeout:
    """How long a state or a stage of the boot may be silent, in seconds, and what is said then."""

    seconds: float
    text: str


# Measured in virtual machines on two busy cores: loader to script 2 to 6 s, script to hello 20 to 50 s, finish to
# call home 30 to 100 s. Servers take minutes in their firmware, and switches up to 50 s for spanning tree.
TIMEOUTS: dict[State | Boot, Timeout] = {
    State.INSTALLING: Timeout(300, "no word from its installer for 5 minutes while {phase}"),
    State.CAPTURING: Timeout(300, "no word from its installer for 5 minutes"),
    State.INSTALLED: Timeout(1200, "its system has not called home for 20 minutes"),
    Boot.DHCP: Timeout(90, "was offered an address and a loader but has not fetched the loader: TFTP blocked?"),
    Boot.LOADER: Timeout(90, "has fetched its loader but the loader did not come back; the next one is tried"),
    Boot.SCRIPT: Timeout(300, "was given kernel and installer but the installer has not said hello"),
    Boot.AGENT: Timeout(120, "its installer has gone silent: switched off?"),
}


def overdue(node: Node, quiet: float) -> str:
    """The reason if the node has been silent too long, `quiet` being seconds since its last sign of life; else ""."""
    if node.state is State.INSTALLED and node.finish in ("poweroff", OWN_LOADER):
        return ""
    timeout = TIMEOUTS.get(node.state) or TIMEOUTS.get(node.boot)
    if timeout is None or quiet < timeout.seconds:
        return ""
    return timeout.text.format(phase=node.phase or "starting")


def step(node: Node, event: Event, now: float, **details: Any) -> tuple[Node, tuple[Effect, ...]]:
    """The node after `event` at `now` (seconds since 1970), and what has to be done about it. Total: never raises for
    any state and event.

    `details` are what the event brought: firmware and what (SEEN, LOADER_SENT, SCRIPT_SENT), facts, macs, uuid,
    serial, machine (HELLO), name, profile, address, groups (APPROVED), image (ORDERED, PLAN_TAKEN), phase, done, total,
    fetched, disk (PHASE, PROGRESS), image, digest, finish (FINISHED), reason (FAILED, SILENT), system (CALLED_HOME).
    """
    row = TRANSITIONS.get((node.state, event))
    to = _after_capture(node) if row and node.state is C and row.to is R else row.to if row else node.state
    changes = _learn(node, event, to, now, details)
    if to is not node.state or (row and event is Event.PLAN_TAKEN):
        changes.setdefault("since", now)
        changes.setdefault("reason", "")
    after = replace(node, state=to, **changes)
    text, level = (row.text, row.level) if row else STAY[event]
    effects: list[Effect] = []
    if event is not Event.PROGRESS or _tenth(after) != _tenth(node):
        effects.append(Record(_fill(text, node, after, details), level))
    ended = (Event.FINISHED, Event.FAILED, Event.CALLED_HOME)
    if row and (event in ended or (event is Event.SILENT and node.state is C)):
        effects.append(CloseOrder("failed" if event is Event.FAILED else "finished"))
    if event in (Event.CANCELLED, Event.EXPIRED):
        effects.append(CloseOrder(event.value))
    return after, tuple(effects)


def _after_capture(node: Node) -> State:
    """A machine whose disk was read is what it was: a node with its image, or one with a system of its own."""
    return State.UP if node.image else State.READY


def _learn(node: Node, event: Event, to: State, now: float, details: dict[str, Any]) -> dict[str, Any]:
    """The fields an event changes besides the state."""
    if event in (Event.SEEN, Event.LOADER_SENT, Event.SCRIPT_SENT, Event.LOCAL_SENT):
        return _booting(node, event, now, details)
    if event is Event.HELLO:
        known = {key: details[key] for key in ("facts", "macs", "uuid", "serial") if details.get(key)}
        reason = {} if node.state is State.FAILED else {"reason": ""}
        return {"boot": Boot.AGENT, "hello_at": now, "last_seen": now, **reason, **known}
    if event is Event.APPROVED and node.state is State.WAITING:
        return {key: details[key] for key in ("name", "profile", "address", "groups") if key in details}
    if event is Event.ORDERED:
        return {"ordered_at": now, "tries": 0}
    if event is Event.PLAN_TAKEN and to is State.INSTALLING:
        # From here on the disk holds neither the old system nor the new one.
        fresh = {"image": "", "digest": "", "phase": "", "done": 0, "total": 0, "fetched": 0, "disk": "", "golden": ""}
        return {
            **fresh,
            "tries": node.tries + 1,
            "taken_at": now,
            "started_at": node.power_at,
            "written_at": 0.0,
            "up_at": 0.0,
            "home": {},
            "last_seen": now,
        }
    if event is Event.CAPTURE and to is State.CAPTURING:
        fresh = {"phase": "", "done": 0, "total": 0, "fetched": 0, "taken_at": now, "last_seen": now}
        return {**fresh, "tries": node.tries + 1, "golden": str(details.get("image", ""))}
    if node.state is State.CAPTURING and to is not State.CAPTURING:
        return {"last_seen": now, "phase": "", "boot": Boot.DISK}
    if event in (Event.PHASE, Event.PROGRESS) and to in (State.INSTALLING, State.CAPTURING):
        known = {key: details[key] for key in ("phase", "done", "total", "fetched", "disk") if key in details}
        return {"last_seen": now, **known}
    if event is Event.FINISHED and to is State.INSTALLED and node.state is not to:
        known = {key: details[key] for key in ("image", "digest", "finish", "disk") if key in details}
        return {"written_at": now, "last_seen": now, "boot": Boot.DISK, "phase": "", **known}
    if event is Event.FAILED and to is State.FAILED:
        return {"last_seen": now, "reason": str(details.get("reason", "")), "phase": ""} if node.state is not to else {}
    if event is Event.CALLED_HOME and to is State.UP:
        if node.state is State.UP:
            return {"last_seen": now}
        # The last report of the installer may have been lost; the system itself is the better witness.
        whole: dict[str, Any] = {key: details[key] for key in ("image", "digest") if key in details and not node.image}
        whole["home"] = details.get("home", {})
        return {"last_seen": now, "boot": Boot.DISK, "up_at": now, "written_at": node.written_at or now, **whole}
    if event is Event.SILENT:
        failed_loader = node.boot is Boot.LOADER
        return {"boot": Boot.NONE, "reason": str(details.get("reason", "")), "rung": node.rung + failed_loader}
    return {}


def _booting(node: Node, event: Event, now: float, details: dict[str, Any]) -> dict[str, Any]:
    """A step of the boot chain. A machine whose firmware asks again after it was given a loader did not get on with
    that loader: the next rung of the ladder is its turn, and is remembered."""
    changes: dict[str, Any] = {"last_seen": now, "first_seen": node.first_seen or now}
    changes |= {key: details[key] for key in ("address",) if details.get(key)}
    if node.state in (State.WAITING, State.READY):
        changes["reason"] = ""
    if event is Event.LOADER_SENT:
        return {**changes, "boot": Boot.LOADER}
    if event is Event.SCRIPT_SENT:
        return {**changes, "boot": Boot.SCRIPT}
    if event is Event.LOCAL_SENT:
        return {**changes, "boot": Boot.DISK}
    if details.get("loader"):
        if node.boot is Boot.LOADER:  # the loader asks: it works, and the boot began earlier
            return changes
        # A network card whose own ROM is iPXE: nothing came before it.
        return changes if node.boot is Boot.DHCP else {**changes, "boot": Boot.DHCP, "power_at": now}
    changes["firmware"] = str(details.get("firmware", node.firmware))
    if node.boot is Boot.LOADER:
        changes["rung"] = node.rung + 1
    if node.boot is not Boot.DHCP:
        changes |= {"boot": Boot.DHCP, "power_at": now}
    return changes


def _tenth(node: Node) -> tuple[str, int]:
    return node.phase, node.done * 10 // node.total if node.total else 0


def _fill(text: str, before: Node, after: Node, details: dict[str, Any]) -> str:
    """The line with its {braces} filled; what an event did not bring reads as a question mark."""
    words = {
        "state": before.state, "name": after.name, "profile": after.profile, "address": after.address,
        "firmware": after.firmware, "phase": after.phase or "starting", "tries": after.tries, "finish": after.finish,
        "shown": after.phase, "share": f"{after.done * 100 // after.total} %" if after.total else "",
        "seconds": f"{max(0.0, after.written_at - after.taken_at):.0f} s",
    }  # fmt: skip
    words |= {key: value for key, value in details.items() if isinstance(value, str | int)}
    return text.format_map(_Words(words)).strip()


class _Words(dict[str, Any]):
    def __missing__(self, key: str) -> str:
        return "?"


def state_diagram() -> str:
    """TRANSITIONS as a Mermaid state diagram, for the README."""
    lines = ["stateDiagram-v2", f"    [*] --> {State.WAITING}"]
    arrows: dict[tuple[State, State], list[str]] = {}
    for (state, event), row in TRANSITIONS.items():
        for to in dict.fromkeys((row.to, State.UP) if state is C and row.to is R else (row.to,)):  # see _after_capture
            if to is not state:
                arrows.setdefault((state, to), []).append(event.value)
    for (state, to), events in arrows.items():
        lines.append(f"    {state} --> {to}: {', '.join(dict.fromkeys(events))}")
    return "\n".join(lines) + "\n"
