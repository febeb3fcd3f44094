from __future__ import annotations

from dataclasses import replace

import pytest

from netboot.node import Node, State
from netboot.order import LIFETIME, MAX_TRIES, Order, close, give, take
from netboot.policy import Act, Asks, decide

NOW = 1000.0
S = State


def order(**given: object) -> Order:
    return replace(Order(1, 7, "c:1", "d", NOW - 10, NOW - 10 + LIFETIME), **given)  # type: ignore[arg-type]


def node(state: State, image: str = "") -> Node:
    return Node(7, state, name="node07", image=image)


OPEN = order()
TAKEN = take(give(OPEN, "t", NOW), "t", "s", "mac", NOW)
OLD = order(expires=NOW - 1)
SPENT = replace(TAKEN, tries=MAX_TRIES)
DONE = close(TAKEN, "finished", NOW)

TABLE = [
    # state, image, order, asks for: act, armed, to be failed
    (S.READY, "", None, Asks.LOADER, Act.LOADER, False, False),
    (S.READY, "", None, Asks.SCRIPT, Act.AGENT, False, False),
    (S.READY, "", OPEN, Asks.LOADER, Act.LOADER, False, False),
    (S.READY, "", OPEN, Asks.SCRIPT, Act.AGENT, True, False),
    (S.READY, "", OPEN, Asks.ORDERS, Act.AGENT, True, False),
    (S.READY, "", OLD, Asks.SCRIPT, Act.AGENT, False, False),
    (S.READY, "", close(OPEN, "cancelled", NOW), Asks.ORDERS, Act.AGENT, False, False),
    (S.INSTALLED, "c:1", DONE, Asks.SCRIPT, Act.LOCAL, False, False),
    (S.INSTALLED, "c:1", DONE, Asks.ORDERS, Act.LOCAL, False, False),
    (S.UP, "c:1", DONE, Asks.SCRIPT, Act.LOCAL, False, False),
    (S.UP, "c:1", None, Asks.SCRIPT, Act.LOCAL, False, False),
    (S.UP, "c:1", OPEN, Asks.SCRIPT, Act.AGENT, True, False),
    (S.LOST, "c:1", DONE, Asks.SCRIPT, Act.LOCAL, False, False),
    (S.LOST, "", TAKEN, Asks.SCRIPT, Act.AGENT, True, False),
    (S.INSTALLING, "", TAKEN, Asks.SCRIPT, Act.AGENT, True, False),  # resume
    (S.INSTALLING, "", TAKEN, Asks.ORDERS, Act.AGENT, True, False),
    (S.INSTALLING, "", SPENT, Asks.SCRIPT, Act.AGENT, False, True),  # three tries: hold and tell
    (S.INSTALLING, "", replace(TAKEN, expires=NOW - 1), Asks.ORDERS, Act.AGENT, False, True),
    (S.INSTALLING, "", close(TAKEN, "cancelled", NOW), Asks.ORDERS, Act.AGENT, False, True),
    (S.READY, "", SPENT, Asks.ORDERS, Act.AGENT, False, True),
    (S.FAILED, "", None, Asks.SCRIPT, Act.AGENT, False, False),
    (S.FAILED, "", OPEN, Asks.SCRIPT, Act.AGENT, True, False),
    (S.CAPTURING, "", None, Asks.SCRIPT, Act.AGENT, False, True),
]


@pytest.mark.parametrize(("state", "image", "given", "asks", "act", "armed", "fail"), TABLE)
def test_what_an_approved_node_may_do(
    state: State, image: str, given: Order | None, asks: Asks, act: Act, armed: bool, fail: bool
) -> None:
    decision = decide(node(state, image), asks, given, NOW)
    assert (decision.act, decision.armed, bool(decision.fail)) == (act, armed, fail)
    assert decision.why


@pytest.mark.parametrize("stranger", [None, Node(1)])
@pytest.mark.parametrize(
    ("unknown", "asks", "act"),
    [
        ("wait", Asks.LOADER, Act.LOADER),
        ("wait", Asks.SCRIPT, Act.AGENT),
        ("wait", Asks.ORDERS, Act.AGENT),
        ("local", Asks.LOADER, Act.LOADER),
        ("local", Asks.SCRIPT, Act.LOCAL),
        ("local", Asks.ORDERS, Act.LOCAL),
        ("ignore", Asks.LOADER, Act.IGNORE),
        ("ignore", Asks.SCRIPT, Act.IGNORE),
        ("ignore", Asks.ORDERS, Act.IGNORE),
    ],
)
def test_what_a_machine_nobody_approved_may_do(stranger: Node | None, unknown: str, asks: Asks, act: Act) -> None:
    decision = decide(stranger, asks, OPEN, NOW, unknown=unknown)
    assert decision.act is act and not decision.armed


@pytest.mark.parametrize("state", list(State))
@pytest.mark.parametrize("image", ["", "c:1"])
@pytest.mark.parametrize("given", [None, OPEN, TAKEN, OLD, SPENT, DONE])
@pytest.mark.parametrize("asks", list(Asks))
def test_in_doubt_nobody_gets_an_order(state: State, image: str, given: Order | None, asks: Asks) -> None:
    decision = decide(node(state, image), asks, given, NOW, trusted=False)
    assert not decision.armed and not decision.fail


@pytest.mark.parametrize("state", list(State))
@pytest.mark.parametrize("given", [None, OPEN, TAKEN, OLD, SPENT, DONE])
@pytest.mark.parametrize("asks", list(Asks))
def test_nothing_is_armed_without_an_open_order(state: State, given: Order | None, asks: Asks) -> None:
    if decide(node(state), asks, given, NOW).armed:
        assert given in (OPEN, TAKEN) and state is not State.WAITING
