"""Power as the head has it: what is told, what is awaited, and what is said of those who do not come."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from concurrent.futures import wait
from pathlib import Path
from typing import Any

import pytest

from appliance import head_power
from appliance.errors import Unknown, Wrong
from appliance.power.command import Outcome, Target
from images.errors import GildError
from netboot.bmc import Act, BmcInvalid, Kind, Power, learned
from tests.appliance.power.bmcs import PASSWORD, USER, Simulated, ipmi_sim, needs_ipmi
from tests.appliance.rack import Rack


class Answers:
    """Stands in for the BMCs: what each is told, and what it answers."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.told: list[tuple[str, Act, bool]] = []
        self.error = ""
        self.remarks: tuple[str, ...] = ()
        self.sent = ["eth1"]
        self.woken: list[Any] = []
        monkeypatch.setattr(head_power, "carry_out", self._carry_out)
        monkeypatch.setattr(head_power, "wake", self._wake)

    def _carry_out(self, target: Target, act: Act, network: bool = False, look: bool = False) -> Outcome:
        self.told.append((target.bmc.address, act, network))
        return Outcome(learned(target.bmc, cipher=3), Power.ON, self.error, "", self.remarks, "It" if look else "")

    def _wake(self, macs: Any, address: str, networks: Any, more: Any) -> list[str]:
        self.woken.append((macs, address, list(map(str, networks)), list(more)))
        return self.sent


@pytest.fixture
def bmcs(monkeypatch: pytest.MonkeyPatch) -> Answers:
    return Answers(monkeypatch)


def say(rack: Rack, act: str, *refs: str, **more: Any) -> list[dict[str, Any]]:
    """A command to its end."""
    begun = rack.head.power(act, refs, **more)
    made = rack.head._powers._rounds[begun["id"]]
    wait(made.pending.values(), 60)
    rack.head._powers.collect()
    answer = asyncio.run(rack.head.power_outcome(begun["id"], 0, 0))
    assert answer["done"] and len(answer["rows"]) == begun["nodes"]
    rows: list[dict[str, Any]] = answer["rows"]
    return rows


def entered(rack: Rack, *refs: str, address: str = "10.9.0.{n}") -> None:
    rack.head.bmc_set(refs, "ipmi", address, USER, PASSWORD)


def test_who_was_switched_on_and_asks_is_heard(rack: Rack, bmcs: Answers) -> None:
    machine = rack.approved()
    entered(rack, "node01")
    (row,) = say(rack, "on", "node01")
    assert (row["node"], row["by"], row["power"], row["error"]) == ("node01", "ipmi", "on", "")
    assert bmcs.told == [("10.9.0.1", Act.ON, False)]
    rack.tick(60)
    machine.boot()
    rack.tick(600)
    story = rack.timeline("node01")
    assert "its BMC is told to switch on" in story and "has not asked" not in story


def test_who_was_switched_on_and_does_not_ask_is_named(rack: Rack, bmcs: Answers) -> None:
    rack.approved()
    entered(rack, "node01")
    say(rack, "cycle", "node01")
    rack.tick(179)
    assert "has not asked" not in rack.timeline("node01")
    rack.tick(2)
    story = rack.timeline("node01")
    assert "was switched off and on 3 min ago and has not asked for an address: look at its screen" in story
    rack.tick(1000)
    assert rack.timeline("node01").count("has not asked") == 1


def test_how_long_is_a_setting(tmp_path: Path, bmcs: Answers) -> None:
    rack = Rack(tmp_path, power_wait=20)
    rack.approved()
    entered(rack, "node01")
    say(rack, "reset", "node01")
    rack.tick(21)
    assert "was reset 21 s ago and has not asked" in rack.timeline("node01")
    rack.crash()


def test_a_packet_of_its_own_system_is_not_the_one_that_was_ordered(rack: Rack, bmcs: Answers) -> None:
    machine = rack.approved()
    entered(rack, "node01")
    say(rack, "cycle", "node01")
    machine.lease(firmware=False)
    rack.tick(181)
    assert "own disk" not in rack.timeline("node01")  # it had nothing to do, and came up
    rack.head.install(["node01"])
    say(rack, "cycle", "node01")
    assert bmcs.told[-1] == ("10.9.0.1", Act.CYCLE, True)
    machine.lease(firmware=False)
    rack.tick(181)
    assert "came up from its own disk: network boot is not first" in rack.timeline("node01")


def test_off_is_not_awaited(rack: Rack, bmcs: Answers) -> None:
    rack.approved()
    entered(rack, "node01")
    say(rack, "on", "node01")
    say(rack, "off", "node01")
    rack.tick(500)
    assert "has not asked" not in rack.timeline("node01")
    assert "its BMC is told to switch off" in rack.timeline("node01")


def test_a_bmc_that_fails_is_on_the_timeline_and_nobody_waits(rack: Rack, bmcs: Answers) -> None:
    rack.approved()
    entered(rack, "node01")
    bmcs.error = "the BMC 10.9.0.1: the password is\x1b[31m wrong"
    (row,) = say(rack, "on", "node01")
    assert row["error"].isprintable() and "password" in row["error"]
    rack.tick(500)
    story = rack.timeline("node01")
    assert "could not be told by its BMC: the BMC 10.9.0.1" in story and "has not asked" not in story
    bmcs.error, bmcs.remarks = "", ("was on already",)
    say(rack, "on", "node01")
    rack.tick(500)
    assert "has not asked" not in rack.timeline("node01")


def test_status_and_test_leave_no_trace(rack: Rack, bmcs: Answers) -> None:
    rack.approved()
    entered(rack, "node01")
    before = rack.timeline("node01")
    assert say(rack, "status", "node01")[0]["power"] == "on"
    assert say(rack, "test", "node01")[0]["about"] == "It"
    rack.tick(1)
    assert rack.timeline("node01") == before


def test_a_node_without_a_bmc_is_woken(rack: Rack, bmcs: Answers) -> None:
    machine = rack.approved()
    (row,) = say(rack, "on", "node01")
    assert row["by"] == "wake" and row["remarks"] == ["sent on eth1"]
    assert bmcs.woken == [((machine.mac,), machine.address, ["10.1.0.0/24"], [])]
    rack.tick(181)
    assert "was woken 3 min ago and has not asked" in rack.timeline("node01")
    say(rack, "wake", "node01", broadcasts=["10.2.255.255"])
    assert bmcs.woken[-1][3] == ["10.2.255.255"]
    bmcs.sent = []
    assert "no interface could send" in say(rack, "wake", "node01")[0]["error"]
    with pytest.raises(Wrong, match="press its button"):
        rack.head.power("cycle", ["node01"])


def test_what_nobody_can_be_told(rack: Rack, bmcs: Answers) -> None:
    machine = rack.approved()
    entered(rack, "node01")
    for act, refs, more in (
        ("explode\x1b", ["node01"], {}), ("on", ["nobody"], {}), ("on", [], {}),
        ("wake", ["node01"], {"broadcasts": ["10.2"]}), ("wake", ["node01"], {"broadcasts": ["10.2.255.255"] * 17}),
    ):  # fmt: skip
        with pytest.raises(GildError) as error:
            rack.head.power(act, refs, **more)
        assert str(error.value).isprintable()
    with pytest.raises(Unknown):
        asyncio.run(rack.head.power_outcome(99, 0, 0))
    rack.head.install(["node01"])
    machine.boot()
    machine.hello()
    machine.plan()
    with pytest.raises(Wrong, match="node01 is installing"):
        rack.head.power("off", ["node01"])
    assert bmcs.told == []


def test_many_at_once_with_some_that_have_no_bmc(rack: Rack, bmcs: Answers) -> None:
    for number in (1, 2, 3):
        rack.approved(number)
    entered(rack, "node[01-02]")
    rows = {row["node"]: row["error"] for row in say(rack, "cycle", "node[01-03]")}
    assert rows["node01"] == rows["node02"] == "" and "press its button" in rows["node03"]
    assert sorted(bmcs.told) == [("10.9.0.1", Act.CYCLE, False), ("10.9.0.2", Act.CYCLE, False)]


def test_commands_are_kept_for_a_while_and_bounded(rack: Rack, bmcs: Answers, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(head_power, "MAX_ROUNDS", 3)
    rack.approved()
    entered(rack, "node01")
    for _ in range(10):
        say(rack, "status", "node01")
    assert len(rack.head._powers._rounds) == 3


def test_bmcs_survive_a_restart_with_what_was_learned_and_go_with_their_node(rack: Rack, bmcs: Answers) -> None:
    rack.approved(1)
    rack.approved(2)
    entered(rack, "node[01-02]")
    say(rack, "status", "node01")
    rows = rack.head.bmcs()
    assert [(row["node"], row["address"], row["cipher"]) for row in rows] == [
        ("node01", "10.9.0.1", 3), ("node02", "10.9.0.2", 0),
    ]  # fmt: skip
    assert PASSWORD not in repr(rows)
    rack.stop()
    rack.start()
    bmc = rack.head._bmcs.of(rack.head.roster.find("node01"))
    assert rack.head.bmcs() == rows and bmc is not None and bmc.password == PASSWORD
    rack.head.remove(["node02"])
    assert rack.head.bmc_remove(["node01"]) == ["node01"] and rack.head.bmcs() == []
    rack.stop()
    rack.start()
    assert rack.head.bmcs() == []
    with pytest.raises(Unknown, match="no BMC"):
        rack.head.bmc_remove(["node01"])


def test_entries_that_cannot_be(rack: Rack) -> None:
    rack.approved(1)
    rack.approved(2)
    rack.machine(3).boot()
    for refs, kind, address, error in (
        (["node[01-02]"], "ipmi", "10.9.0.1", "cannot have one BMC"),
        (["node01"], "ipmi", "a b", "node01: 'a b' is no address"),
        (["3"], "ipmi", "10.9.0.3", "not approved"),
        (["node[01-02]"], "ipmi", "10.9.0.{n:02}9999", "no address"),
    ):
        with pytest.raises(GildError, match=error):
            rack.head.bmc_set(refs, kind, address, USER, PASSWORD)
    with pytest.raises(BmcInvalid, match="password"):
        rack.head.bmc_set(["node01"], "ipmi", "10.9.0.1", USER, "x" * 21)
    assert rack.head.bmcs() == []
    entered(rack, "node01")
    with pytest.raises(Wrong, match="node01 and node02 cannot both have the BMC"):
        rack.head.bmc_set(["node02"], "ipmi", "10.9.0.1", USER, PASSWORD)
    entered(rack, "node01")  # again, the same


def test_a_certificate_can_be_trusted_anew(rack: Rack) -> None:
    rack.approved(1)
    rack.head.bmc_set(["node01"], "redfish", "bmc1", USER, PASSWORD)
    node = rack.head.roster.find("node01")
    bmc = rack.head._bmcs.of(node)
    assert bmc is not None and bmc.kind is Kind.REDFISH
    rack.head._bmcs.learn(learned(bmc, pin="a" * 64, system="/redfish/v1/Systems/1"))
    assert "known from now on by its certificate, sha256 aaaa" in rack.timeline("node01")
    rack.head._bmcs.learn(learned(bmc, pin="b" * 64))
    assert rack.head.bmcs()[0]["fingerprint"] == "a" * 64
    assert rack.head.bmc_trust(["node01"])[0]["fingerprint"] == ""
    assert rack.head.bmc_trust(["node01"], "C" * 64)[0]["fingerprint"] == "c" * 64
    # What an older conversation found out is not put over what a person has entered since.
    rack.head.bmc_set(["node01"], "redfish", "bmc2", USER, PASSWORD)
    rack.head._bmcs.learn(learned(bmc, pin="a" * 64))
    assert rack.head.bmcs()[0]["fingerprint"] == ""


@pytest.fixture
def real(tmp_path: Path) -> Iterator[Simulated]:
    with ipmi_sim(tmp_path / "bmc") as bmc:
        yield bmc


@needs_ipmi
def test_a_machine_behind_a_real_bmc_boots_when_told(rack: Rack, real: Simulated) -> None:
    machine = rack.approved()
    rack.head.bmc_set(["node01"], "ipmi", real.address, USER, PASSWORD)
    rack.head.install(["node01"])
    assert say(rack, "on", "node01")[0]["power"] == "on"
    assert real.told == ["set boot pxe", "set power 1"]
    if real.power == "on":  # the stand-in: a machine that boots when it has power
        machine.boot()
    assert machine.hello().token
    rack.tick(500)
    assert "has not asked" not in rack.timeline("node01") and PASSWORD not in rack.timeline("node01")


@needs_ipmi
def test_the_loop_is_not_held_up(rack: Rack, real: Simulated) -> None:
    rack.approved()
    rack.head.bmc_set(["node01"], "ipmi", real.address, USER, PASSWORD)

    async def ask() -> list[Any]:
        begun = rack.head.power("on", ["node01"])
        first = await rack.head.power_outcome(begun["id"], 0, 0)
        assert first == {"rows": [], "done": False}
        return [await rack.head.power_outcome(begun["id"], 0, 30) for _ in range(2)]

    for answer in asyncio.run(ask()):
        assert answer["done"] and answer["rows"][0]["power"] == "on"
