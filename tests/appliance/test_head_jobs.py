"""Rolling reinstalls on a head: shown, agreed to, drained, carried on after a restart."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest

from appliance.errors import Unknown, Wrong
from images.errors import CommandFailed, GildError
from netboot.moment import MomentInvalid
from tests.appliance.rack import Machine, Rack, token_in


class Controller:
    """A scheduler that remembers what it was asked."""

    def __init__(self) -> None:
        self.drained: set[str] = set()
        self.working: set[str] = set()
        self.refuses: set[str] = set()

    def drain(self, names: Iterable[str]) -> None:
        if self.refuses & set(names):
            raise CommandFailed(f"no node {min(self.refuses)}")
        self.drained |= set(names)

    def resume(self, names: Iterable[str]) -> None:
        self.drained -= set(names)

    def busy(self, names: Iterable[str]) -> set[str]:
        return self.working & set(names)


@pytest.fixture
def rack(tmp_path: Path) -> Iterator[Rack]:
    made = Rack(tmp_path)
    yield made
    made.stop()


def make(rack: Rack, *refs: str, **given: Any) -> dict[str, Any]:
    shown = rack.head.jobs.make(refs, **given)
    return rack.head.jobs.make(refs, **given, expect=shown["digest"])


def phases(rack: Rack, number: int = 1) -> list[str]:
    return [member["phase"] for member in rack.head.jobs.job(number)["members"]]


def pass_on(rack: Rack, until: str, seconds: float = 6.0) -> None:
    """Ticks until some member is in that phase; schedulers are asked in threads, which take a moment."""
    end = time.monotonic() + 20
    while until not in phases(rack):
        assert time.monotonic() < end, phases(rack)
        rack.tick(seconds)
        time.sleep(0.01)


def install(machine: Machine) -> None:
    """From power-on to the call of the new system."""
    machine.hello(token_in(machine.boot()))
    plan = machine.write()
    machine.home(plan)


def test_two_at_a_time_until_all_are_up(rack: Rack) -> None:
    machines = [rack.approved(n) for n in (1, 2, 3)]
    shown = rack.head.jobs.make(["node[01-03]"], batch=2)
    assert [row["node"] for row in shown["nodes"]] == ["node01", "node02", "node03"] and "job" not in shown
    assert rack.head.jobs.jobs() == [], "a preview makes nothing"
    assert make(rack, "node[01-03]", batch=2)["job"] == 1
    rack.tick()
    assert phases(rack) == ["ordered", "ordered", "planned"]
    assert not rack.head.node("node03")["ordered"]
    install(machines[0])
    rack.tick()
    rack.tick()
    assert phases(rack) == ["done", "ordered", "ordered"] and rack.state_of("node01") == "up"
    rack.stop()
    rack.start()
    for machine in machines[1:]:
        install(machine)
        rack.tick()
    rack.tick()
    assert phases(rack) == ["done"] * 3 and rack.head.jobs.jobs()[0]["word"] == "done"
    assert "its turn in job 1" in rack.timeline("node03")


def test_at_night(rack: Rack) -> None:
    rack.approved(1)
    made = make(rack, "node01", at="+2h")
    assert made["at"] - rack.clock.wall() == pytest.approx(7200)
    rack.tick(7100)
    assert phases(rack) == ["planned"] and rack.head.jobs.jobs()[0]["word"] == "waiting"
    rack.stop()
    rack.start()
    rack.tick(200)
    assert phases(rack) == ["ordered"]


def test_drained_first_and_given_back(rack: Rack) -> None:
    slurm = Controller()
    rack.head._rolling.drainer.scheduler = slurm
    machines = [rack.approved(1), rack.approved(2)]
    slurm.working = {"node02"}
    make(rack, "node[01-02]", drain=True)
    pass_on(rack, "ordered")
    assert slurm.drained == {"node01", "node02"} and phases(rack) == ["ordered", "draining"]
    assert rack.head.jobs.job(1)["members"][1]["why"] == "finishes its work"
    install(machines[0])
    pass_on(rack, "done")
    end = time.monotonic() + 20
    while "node01" in slurm.drained:
        assert time.monotonic() < end
        rack.tick()
        time.sleep(0.01)
    rack.tick(5 * 3600)
    assert "still has work after 4 h" in rack.head.jobs.job(1)["members"][1]["why"]
    assert not rack.head.node("node02")["ordered"], "work is never killed"


def test_one_that_cannot_be_drained_costs_only_itself(rack: Rack) -> None:
    slurm = Controller()
    rack.head._rolling.drainer.scheduler = slurm
    rack.approved(1), rack.approved(2)
    slurm.refuses = {"node02"}
    make(rack, "node[01-02]", drain=True)
    pass_on(rack, "left out")
    pass_on(rack, "ordered")
    assert "cannot be drained: no node node02" in rack.timeline("node02")


def test_what_is_not_what_was_shown_is_left_out(rack: Rack) -> None:
    rack.approved(1), rack.approved(2)
    make(rack, "node[01-02]", at="+1h")
    rack.head.set(["node02"], own={"disk": "serial=OTHER"})
    rack.tick(3700)
    assert phases(rack) == ["ordered", "left out"]
    assert not rack.head.node("node02")["ordered"] and "left out of job 1" in rack.timeline("node02")


def test_stopped_and_tried_again(rack: Rack) -> None:
    machines = [rack.approved(1), rack.approved(2)]
    make(rack, "node[01-02]", batch=1)
    rack.tick()
    machines[0].hello(token_in(machines[0].boot()))
    machines[0].plan()
    rack.tick()
    rack.head.jobs.stop(1)
    assert phases(rack) == ["installing", "stopped"] and rack.state_of("node01") == "installing"
    machines[0].report(failed="the disk is gone")
    rack.tick()
    rack.tick()
    assert phases(rack) == ["failed", "stopped"] and rack.head.jobs.jobs()[0]["why"] == "stopped by hand"
    shown = rack.head.jobs.retry(1)
    assert [row["node"] for row in shown["nodes"]] == ["node01", "node02"]
    assert rack.head.jobs.retry(1, shown["digest"])["job"] == 2


@pytest.mark.parametrize(
    ("refs", "given", "error", "match"),
    [
        (["node09"], {}, Unknown, "no node 'node09'"), (["node01"], {"at": "noon"}, MomentInvalid, "'noon' is no time"),
        (["node01"], {"batch": 0}, Wrong, "a batch has 1 to"), (["node01"], {"drain": True}, Wrong, "no scheduler"),
        (["node01"], {"image": "none"}, GildError, "none"), (["node01"], {"expect": "x"}, Wrong, "has changed since"),
        (["node01"], {"failures": -1}, Wrong, "may fail"),
    ],
)  # fmt: skip
def test_what_is_refused_makes_no_job(
    rack: Rack, refs: list[str], given: dict[str, Any], error: type[GildError], match: str
) -> None:
    rack.head._rolling.drainer.scheduler = None
    rack.approved(1)
    with pytest.raises(error, match=match):
        rack.head.jobs.make(refs, **given)
    assert rack.head.jobs.jobs() == []


def test_a_node_is_in_one_job_at_a_time(rack: Rack) -> None:
    rack.approved(1)
    make(rack, "node01", at="+1h")
    with pytest.raises(Wrong, match="node01 is in job 1 already") as raised:
        make(rack, "node01")
    assert "job stop 1" in raised.value.hint
    rack.head.jobs.stop(1)
    rack.tick()
    assert make(rack, "node01")["job"] == 2
    with pytest.raises(Unknown, match="no job 9"):
        rack.head.jobs.job(9)
