"""What a machine may do now: the only place where what is wanted of a node meets what is known of it."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from netboot.node import Node, State
from netboot.order import MAX_TRIES, READ, Order, is_open


class Asks(StrEnum):
    """What the machine asks for."""

    LOADER = "loader"  # firmware or iPXE, by DHCP
    SCRIPT = "script"  # a loader
    ORDERS = "orders"  # the agent


class Act(StrEnum):
    """What it is given."""

    IGNORE = "ignore"  # no answer at all
    LOADER = "loader"
    AGENT = "agent"  # the installer; with an order's token if `armed`
    LOCAL = "local"  # its own disk


@dataclass(frozen=True)
class Decision:
    """`armed`: an order goes with it. `fail`: the node is to be marked failed, for that reason. `why`: one line."""

    act: Act
    why: str
    armed: bool = False
    fail: str = ""


def decide(
    node: Node | None, asks: Asks, order: Order | None, now: float, *, unknown: str = "wait", trusted: bool = True
) -> Decision:
    """The answer to `asks`. `unknown` ("wait", "local" or "ignore") is the site's word on machines nobody approved;
    `trusted` is False if the machine's identity or address is in doubt, and then no order is handed out.

    A machine without an order is never told to do anything that writes: it boots its own disk if gild has installed
    it, and waits in the installer otherwise.
    """
    stranger = node is None or node.state is State.WAITING
    if stranger and unknown == "ignore":
        return Decision(Act.IGNORE, "nobody has approved it")
    if asks is Asks.LOADER:
        return Decision(Act.LOADER, "asks for something to boot")
    if node is None or stranger:
        act = Act.LOCAL if unknown == "local" else Act.AGENT
        return Decision(act, "nobody has approved it yet")
    if not trusted:
        act = Act.LOCAL if _has_system(node) else Act.AGENT
        return Decision(act, "who it is, is in doubt: no order is handed out")
    if order is not None and is_open(order, now):
        again = f", try {order.tries + 1} of {MAX_TRIES}" if order.tries else ""
        what = "order to capture" if order.captures else "order for"
        return Decision(Act.AGENT, f"{what} {order.image}{again}", armed=True)
    if node.state is State.CAPTURING and order is not None and order.outcome == READ:
        return Decision(Act.LOCAL, "its disk was read, and the version is being made")
    if node.state in (State.INSTALLING, State.CAPTURING) or (order is not None and order.used and not order.closed):
        return Decision(Act.AGENT, "its installation was interrupted", fail=_gave_up(order))
    if node.state is State.FAILED:
        return Decision(Act.AGENT, f"failed: {node.reason}")
    if _has_system(node):
        return Decision(Act.LOCAL, f"{node.image or 'a system of its own'} is on its disk")
    return Decision(Act.AGENT, "waits for an order")


def _has_system(node: Node) -> bool:
    known = node.golden or (node.image and node.state in (State.INSTALLED, State.UP, State.LOST))
    return bool(known) and node.state is not State.CAPTURING


def _gave_up(order: Order | None) -> str:
    if order is not None and order.tries >= MAX_TRIES and not order.closed:
        return f"interrupted {order.tries} times; it is not tried again by itself"
    return "interrupted, and its order is not open any more"
