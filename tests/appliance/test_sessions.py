from __future__ import annotations

import asyncio

import pytest

from appliance.sessions import IDLE, MAX_PER_NODE, SessionUnknown
from netboot.order import hashed
from netboot.report import Phase
from tests.appliance.rack import Machine, Rack


def installing(rack: Rack, number: int = 1) -> Machine:
    """A machine that has its plan."""
    machine = rack.approved(number)
    rack.head.install([machine.name])
    machine.boot()
    machine.hello()
    machine.plan()
    return machine


def test_the_longest_unseen_makes_room(rack: Rack, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("appliance.sessions.MAX_SESSIONS", 3)
    sessions = rack.head._installs.sessions
    machines = [rack.machine(number) for number in range(1, 5)]
    for machine in machines[:3]:
        machine.boot()
        machine.hello()
        rack.clock.pass_(1)
    sessions.find(machines[0].session)  # the first is heard of again, so the second is the one to go
    machines[3].boot()
    machines[3].hello()
    assert len(sessions.table) == 3
    with pytest.raises(SessionUnknown):
        sessions.find(machines[1].session)
    for machine in (machines[0], machines[2], machines[3]):
        assert sessions.find(machine.session).mac == machine.mac


def test_one_node_has_few_and_the_one_that_installs_is_not_pushed_out(rack: Rack) -> None:
    machine = installing(rack)
    first, sessions = machine.session, rack.head._installs.sessions
    for _ in range(3 * MAX_PER_NODE):
        machine.hello()
    assert len(sessions.table) == MAX_PER_NODE + 1
    assert sessions.find(first).trusted


def test_only_the_silent_are_forgotten(rack: Rack) -> None:
    sessions = rack.head._installs.sessions
    quiet, busy = rack.machine(1), rack.machine(2)
    for machine in (quiet, busy):
        machine.boot()
        machine.hello()
    rack.clock.pass_(IDLE / 2)
    sessions.find(busy.session)
    rack.clock.pass_(IDLE / 2 + 1)
    sessions.tick()
    assert list(sessions.table) == [hashed(busy.session)]


@pytest.mark.parametrize("how", ["restart", "silence", "room"])
def test_an_installation_goes_on_in_its_session(rack: Rack, how: str, monkeypatch: pytest.MonkeyPatch) -> None:
    machine = installing(rack)
    if how == "restart":
        rack.stop()
        rack.start()
    elif how == "silence":
        rack.clock.pass_(IDLE + 1)
        rack.head._installs.sessions.tick()
    else:
        monkeypatch.setattr("appliance.sessions.MAX_SESSIONS", 1)
        rack.machine(2).boot()
        rack.machine(2).hello()
    sessions = rack.head._installs.sessions
    assert hashed(machine.session) not in sessions.table
    machine.report(phase=Phase.WRITE, done=1, total=2)
    assert rack.head.node(machine.mac)["phase"] == Phase.WRITE.value
    assert list(sessions.table) == [hashed(machine.session)] and not sessions._asleep


def test_a_session_whose_order_was_replaced_or_whose_node_is_gone_does_not_wake(rack: Rack) -> None:
    replaced, gone = installing(rack, 1), installing(rack, 2)
    for machine in (replaced, gone):
        machine.report(failed="no disk")
    rack.stop()
    rack.start()
    rack.head.install([replaced.name])
    rack.head.remove([gone.name])
    for machine in (replaced, gone):
        with pytest.raises(SessionUnknown):
            rack.head._installs.sessions.find(machine.session)


def test_no_question_looks_at_every_order(rack: Rack, monkeypatch: pytest.MonkeyPatch) -> None:
    installing(rack)
    sessions = rack.head._installs.sessions

    class Unread(dict):  # type: ignore[type-arg]
        def __iter__(self) -> None:  # type: ignore[override]
            raise AssertionError("all of them are looked at")

        values = items = __iter__  # type: ignore[assignment]

    monkeypatch.setattr(rack.head.roster, "orders", Unread(rack.head.roster.orders))
    for secret in ("", "x", "f" * 32):
        with pytest.raises(SessionUnknown):
            sessions.find(secret)


def test_who_is_pushed_out_is_told_at_once(rack: Rack) -> None:
    machine = rack.machine()
    machine.boot()
    machine.hello()
    sessions = rack.head._installs.sessions

    async def wait() -> None:
        session = sessions.find(machine.session)
        sessions.forget(session.node_id)
        await asyncio.wait_for(session.wake.wait(), 5)

    asyncio.run(wait())
    assert not sessions.table and not sessions._of_node
