"""The steps of a rolling reinstall against a world that does what it likes."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from netboot import rolling
from netboot.job import (
    ACTIVE,
    ENDED,
    Act,
    Arming,
    Draining,
    Job,
    JobInvalid,
    Member,
    Phase,
    Restarting,
    Resuming,
    Seen,
    Withdrawing,
)
from netboot.node import State


def job(count: int, batch: int, **given: object) -> Job:
    members = tuple(Member(n, f"n{n}", "i:1", "vda", "empty", "d") for n in range(1, count + 1))
    return replace(Job(1, 0.0, 0.0, batch, members), **given)  # type: ignore[arg-type]


class World:
    """Nodes, a scheduler and BMCs, as far as a job can see them; `carry` is what the head does."""

    def __init__(self, made: Job) -> None:
        self.job, self.now, self.orders = made, 0.0, 0
        self.seen = {member.node_id: Seen(State.UP) for member in made.members}
        self.armed_ever: list[int] = []
        self.drained: set[int] = set()

    def step(self, seconds: float = 10.0) -> tuple[Act, ...]:
        self.now += seconds
        self.job, acts = rolling.step(self.job, self.seen, self.now)
        for act in acts:
            self.carry(act)
        return acts

    def carry(self, act: Act) -> None:
        if isinstance(act, Arming):
            self.orders += 1
            self.armed_ever.append(act.node_id)
            self.seen[act.node_id] = replace(
                self.seen[act.node_id], order=self.orders, created=self.now, used=False, outcome=""
            )
            self.job = rolling.armed(self.job, act.node_id, self.orders, self.now)
        elif isinstance(act, Draining):
            for number in act.node_ids:
                self.drained.add(number)
                self.seen[number] = replace(self.seen[number], drain="busy")
        elif isinstance(act, Resuming):
            self.drained -= set(act.node_ids)
            self.job = rolling.resumed(self.job, act.node_ids)
        elif isinstance(act, Restarting):
            self.job = rolling.restarted(self.job, act.node_id, self.now)
        elif isinstance(act, Withdrawing):
            self.seen[act.node_id] = replace(self.seen[act.node_id], outcome="cancelled")

    def phases(self) -> list[Phase]:
        return [member.phase for member in self.job.members]


def test_one_after_the_other() -> None:
    world = World(job(3, 1, at=30.0))
    world.step()
    assert world.phases() == [Phase.PLANNED] * 3, "not before its time"
    for number in (1, 2, 3):
        for _ in range(5):
            world.step()
        assert [member.node_id for member in world.job.members if member.phase in ACTIVE] == [number]
        world.seen[number] = replace(world.seen[number], used=True, state=State.INSTALLING)
        world.step()
        world.seen[number] = replace(world.seen[number], outcome="finished", state=State.UP)
        world.step()
    world.step()
    assert world.job.word == "done" and world.armed_ever == [1, 2, 3]


def test_work_is_waited_for_and_given_back() -> None:
    world = World(job(2, 2, drain=True, drain_seconds=100.0))
    world.step()
    world.step()
    assert world.drained == {1, 2} and not world.armed_ever
    world.seen[1] = replace(world.seen[1], drain="idle")
    world.step()
    assert world.armed_ever == [1]
    world.step(200)
    assert world.phases() == [Phase.ORDERED, Phase.LEFT_OUT] and world.job.members[1].why.startswith("still has work")
    assert world.drained == {1}, "the one left out has its work again"
    world.seen[1] = replace(world.seen[1], used=True, outcome="finished", state=State.UP)
    world.step()
    world.step()
    assert not world.drained and world.job.word == "done"


def test_too_many_failures_stop_it_and_leave_no_order_behind() -> None:
    world = World(job(4, 2, failures=0))
    world.step()
    world.step()
    world.seen[1] = replace(world.seen[1], used=True, outcome="failed", state=State.FAILED, reason="no disk")
    for _ in range(3):
        world.step()
    assert world.phases() == [Phase.FAILED, Phase.STOPPED, Phase.STOPPED, Phase.STOPPED]
    assert world.seen[2].outcome == "cancelled" and world.job.stopping == "1 nodes failed, and 0 may"
    assert rolling.again(world.job) == ["n1", "n2", "n3", "n4"]


def test_stopping_lets_what_is_written_go_on() -> None:
    world = World(job(2, 1))
    world.step()
    world.step()
    world.seen[1] = replace(world.seen[1], used=True, state=State.INSTALLING)
    world.step()
    world.job = rolling.stop(world.job, "by hand")
    world.step()
    assert world.phases() == [Phase.INSTALLING, Phase.STOPPED] and not world.job.closed
    world.seen[1] = replace(world.seen[1], outcome="finished", state=State.UP)
    world.step()
    world.step()
    assert world.job.word == "stopped"
    with pytest.raises(JobInvalid, match="is over"):
        rolling.stop(world.job, "again")


ANYTHING: st.SearchStrategy[dict[str, object]] = st.builds(
    dict,
    state=st.sampled_from([None, *State]),
    used=st.booleans(),
    outcome=st.sampled_from(["", "finished", "failed", "cancelled", "expired"]),
    drain=st.sampled_from(["", "asked", "busy", "idle", "failed"]),
    power=st.sampled_from(["", "told", "awaited", "heard", "silent", "failed"]),
    way=st.booleans(),
)


@settings(max_examples=60, deadline=None)
@given(
    count=st.integers(1, 6), batch=st.integers(1, 4), drain=st.booleans(), power=st.booleans(),
    failures=st.integers(0, 3), changes=st.lists(st.tuples(st.integers(1, 6), ANYTHING), max_size=60),
)  # fmt: skip
def test_never_more_at_a_time_and_each_once(
    count: int, batch: int, drain: bool, power: bool, failures: int, changes: list[tuple[int, dict[str, object]]]
) -> None:
    world = World(job(count, batch, drain=drain, power=power, failures=failures))
    for number, change in changes:
        if number <= count:
            world.seen[number] = replace(world.seen[number], **change)  # type: ignore[arg-type]
        before = world.job
        world.step(30.0)
        assert sum(member.phase in ACTIVE for member in world.job.members) <= batch
        for old, new in zip(before.members, world.job.members, strict=True):
            assert old.phase not in ENDED or new.phase is old.phase, "what has ended stays so"
    assert all(world.armed_ever.count(number) <= 1 for number in range(1, count + 1)), "nobody is erased twice"
    # Whatever the world did, time ends every job once it stands still.
    for _ in range(40 * count):
        world.step(3600.0)
    assert all(phase in ENDED for phase in world.phases()) or any(
        member.phase is Phase.ORDERED for member in world.job.members
    ), "only an order that is still good keeps it open"
