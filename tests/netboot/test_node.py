from __future__ import annotations

from dataclasses import fields, replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from netboot.node import (
    STAY,
    TIMEOUTS,
    TRANSITIONS,
    Boot,
    CloseOrder,
    Event,
    Node,
    Record,
    State,
    overdue,
    state_diagram,
    step,
)
from netboot.report import Facts

S, E = State, Event


def node(state: State = S.READY, **given: object) -> Node:
    return replace(Node(7, state, 100.0, "node07", ("52:54:00:00:00:07",)), **given)  # type: ignore[arg-type]


def texts(effects: tuple[object, ...]) -> list[str]:
    return [effect.text for effect in effects if isinstance(effect, Record)]


@pytest.mark.parametrize("state", list(State))
@pytest.mark.parametrize("event", list(Event))
def test_every_pair_has_an_answer(state: State, event: Event) -> None:
    after, effects = step(node(state), event, 200.0)
    row = TRANSITIONS.get((state, event))
    assert after.state is (row.to if row else state)
    assert after.id == 7 and after.name == "node07"
    assert any(isinstance(effect, Record) for effect in effects) or event is E.PROGRESS
    assert after.since == (200.0 if after.state is not state or (row and event is E.PLAN_TAKEN) else 100.0)


@given(
    st.lists(
        st.tuples(
            st.sampled_from(list(Event)),
            st.fixed_dictionaries(
                {},
                optional={
                    "phase": st.text(max_size=5),
                    "done": st.integers(0, 1 << 40),
                    "total": st.integers(0, 1 << 40),
                    "reason": st.text(max_size=20),
                    "what": st.text(max_size=20),
                    "image": st.text(max_size=10),
                    "firmware": st.text(max_size=5),
                    "loader": st.booleans(),
                },
            ),
        ),
        max_size=30,
    )
)
def test_no_order_of_events_breaks_a_node(events: list[tuple[Event, dict[str, object]]]) -> None:
    it, now = Node(1), 0.0
    for event, details in events:
        now += 1
        before = it
        it, effects = step(it, event, now, **details)
        # The one way to a written disk.
        if it.state is S.INSTALLING and before.state not in (S.INSTALLING, S.LOST):
            assert event is E.PLAN_TAKEN
        if before.state is S.WAITING and it.state is not S.WAITING:
            assert event in (E.APPROVED, E.CAPTURE)
        assert all(isinstance(effect, Record | CloseOrder) for effect in effects)


STEPS = [
    # state, event, details, next state, part of what is recorded
    (S.WAITING, E.APPROVED, {"name": "n1", "profile": "p", "address": "10.0.0.7"}, S.READY, "approved as n1"),
    (S.WAITING, E.PLAN_TAKEN, {"image": "c:1"}, S.WAITING, "asks for a plan while waiting"),
    (S.WAITING, E.FINISHED, {}, S.WAITING, "again"),
    (S.READY, E.PLAN_TAKEN, {"image": "c:1"}, S.INSTALLING, "takes the plan for c:1, try 1"),
    (S.UP, E.PLAN_TAKEN, {"image": "c:2"}, S.INSTALLING, "c:2"),
    (S.INSTALLING, E.PHASE, {"phase": "writing"}, S.INSTALLING, "writing"),
    (S.INSTALLING, E.FINISHED, {"image": "c:1", "finish": "reboot"}, S.INSTALLED, "goes on by reboot"),
    (S.INSTALLING, E.FAILED, {"reason": "no disk fits"}, S.FAILED, "failed: no disk fits"),
    (S.INSTALLING, E.SILENT, {"reason": "gone"}, S.LOST, "gone"),
    (S.INSTALLING, E.CANCELLED, {}, S.INSTALLING, "taken back"),
    (S.INSTALLED, E.CALLED_HOME, {"system": "node07"}, S.UP, "up: node07"),
    (S.INSTALLED, E.SEEN, {"firmware": "bios", "what": "x"}, S.INSTALLED, "asks for something to boot: bios"),
    (S.UP, E.SEEN, {"firmware": "uefi", "what": "x"}, S.UP, "asks"),
    (S.UP, E.FAILED, {"reason": "late"}, S.UP, "while up: late"),
    (S.LOST, E.PROGRESS, {"phase": "writing", "done": 5, "total": 10}, S.INSTALLING, "writing 50 %"),
    (S.LOST, E.CALLED_HOME, {}, S.UP, "up"),
    (S.FAILED, E.ORDERED, {"image": "c:1"}, S.READY, "order for c:1"),
    (S.FAILED, E.HELLO, {"machine": "m"}, S.FAILED, "in the installer: m"),
    (S.FAILED, E.PROGRESS, {"done": 1, "total": 2}, S.FAILED, ""),
]


@pytest.mark.parametrize(("state", "event", "details", "to", "said"), STEPS)
def test_the_steps(state: State, event: Event, details: dict[str, object], to: State, said: str) -> None:
    after, effects = step(node(state), event, 200.0, **details)
    assert after.state is to
    assert said in " ".join(texts(effects))


def test_repeats_are_harmless() -> None:
    it, _ = step(node(S.INSTALLING, taken_at=150.0), E.FINISHED, 200.0, image="c:1", digest="d", finish="kexec")
    again, effects = step(it, E.FINISHED, 300.0, image="c:9", digest="x", finish="reboot")
    assert (again.written_at, again.image, again.since) == (200.0, "c:1", 200.0)
    assert not [effect for effect in effects if isinstance(effect, CloseOrder)]
    up, _ = step(again, E.CALLED_HOME, 400.0)
    assert step(up, E.CALLED_HOME, 500.0)[0].up_at == 400.0


def test_a_plan_means_that_the_old_system_is_gone() -> None:
    after, _ = step(node(S.UP, image="c:1", digest="d", up_at=50.0), E.PLAN_TAKEN, 200.0, image="c:2")
    assert (after.image, after.digest, after.up_at, after.tries) == ("", "", 0.0, 1)


def test_a_call_home_makes_up_for_a_lost_report() -> None:
    after, effects = step(node(S.LOST), E.CALLED_HOME, 200.0, image="c:2", digest="d")
    assert (after.state, after.image, after.digest, after.written_at) == (S.UP, "c:2", "d", 200.0)
    assert CloseOrder("finished") in effects


def test_a_failed_node_keeps_its_reason_until_the_next_order() -> None:
    failed, _ = step(node(S.INSTALLING), E.FAILED, 200.0, reason="disk full of holes")
    assert step(failed, E.HELLO, 210.0)[0].reason == "disk full of holes"
    assert step(failed, E.FAILED, 220.0, reason="another")[0].reason == "disk full of holes"
    assert step(failed, E.ORDERED, 230.0, image="c:1")[0].reason == ""


def test_a_loader_that_does_not_come_back_costs_a_rung_and_is_remembered() -> None:
    it = node()
    for event, details in [
        (E.SEEN, {"firmware": "uefi", "what": "a"}),
        (E.SEEN, {"firmware": "uefi", "what": "a"}),
        (E.LOADER_SENT, {"what": "a"}),
    ]:
        it, _ = step(it, event, 1.0, **details)
        assert it.rung == 0
    it, _ = step(it, E.SEEN, 30.0, firmware="uefi", what="b")
    assert (it.rung, it.boot) == (1, Boot.DHCP)
    it, _ = step(it, E.LOADER_SENT, 31.0, what="b")
    it, _ = step(it, E.SEEN, 32.0, firmware="ipxe", loader=True, what="script")
    it, _ = step(it, E.SCRIPT_SENT, 33.0, what="wait")
    it, _ = step(it, E.SEEN, 99.0, firmware="uefi", what="b")
    assert it.rung == 1


def test_a_loader_that_falls_silent_costs_a_rung_once() -> None:
    it = node(boot=Boot.LOADER)
    reason = overdue(it, TIMEOUTS[Boot.LOADER].seconds)
    it, _ = step(it, E.SILENT, 200.0, reason=reason)
    assert (it.rung, it.boot, overdue(it, 1e9)) == (1, Boot.NONE, "")


@pytest.mark.parametrize(
    ("state", "boot", "quiet", "late"),
    [
        (S.INSTALLING, Boot.AGENT, 299, False),
        (S.INSTALLING, Boot.AGENT, 300, True),
        (S.INSTALLED, Boot.DISK, 1199, False),
        (S.INSTALLED, Boot.DHCP, 1200, True),
        (S.UP, Boot.DISK, 1e9, False),
        (S.READY, Boot.DHCP, 90, True),
        (S.WAITING, Boot.SCRIPT, 300, True),
        (S.WAITING, Boot.NONE, 1e9, False),
        (S.READY, Boot.AGENT, 119, False),
        (S.LOST, Boot.NONE, 1e9, False),
    ],
)
def test_who_is_overdue(state: State, boot: Boot, quiet: float, late: bool) -> None:
    assert bool(overdue(node(state, boot=boot, phase="writing"), quiet)) is late


def test_a_machine_switched_off_after_writing_is_not_missed() -> None:
    assert overdue(node(S.INSTALLED, finish="poweroff"), 1e9) == ""


def test_progress_leaves_a_line_a_tenth() -> None:
    it, lines = node(S.INSTALLING, phase="writing"), []
    for done in range(1001):
        it, effects = step(it, E.PROGRESS, 1.0, done=done, total=1000)
        lines += texts(effects)
    assert len(lines) == 10 and lines[-1] == "writing 100 %"


def test_facts_are_learnt_and_doubt_is_not() -> None:
    facts = Facts(vendor="V", uuid="u")
    after, _ = step(node(uuid="u", reason="quiet"), E.HELLO, 5.0, facts=facts, uuid="", macs=())
    assert (after.facts, after.uuid, after.macs, after.reason) == (facts, "u", ("52:54:00:00:00:07",), "")


def test_the_diagram_shows_every_change_of_state() -> None:
    lines = state_diagram().splitlines()
    assert lines[0] == "stateDiagram-v2"
    for (state, event), row in TRANSITIONS.items():
        if row.to is not state:
            (line,) = [line for line in lines if line.strip().startswith(f"{state} --> {row.to}:")]
            assert event in line
    assert not any(line.strip().startswith("waiting --> installing") for line in lines)


def test_the_tables_know_every_event_and_no_other_field() -> None:
    assert set(STAY) == set(Event)
    names = {entry.name for entry in fields(Node)}
    assert {"phase", "image", "rung"} <= names


def test_the_readme_shows_the_table_as_it_is() -> None:
    readme = Path(__file__).resolve().parents[2] / "README.md"
    assert state_diagram() in readme.read_text()
