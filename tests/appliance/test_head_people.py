"""What people do to nodes, and what a full disk does to them."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from appliance.errors import Unknown, Wrong
from appliance.head_hello import Refused
from appliance.store import Store
from images.errors import GildError, NoSpace, NotFound
from netboot.naming import NameInvalid
from netboot.order import close
from netboot.report import Do, PlanAsk
from tests.appliance.rack import HEAD_IP, Rack


def test_nodes_are_found_by_everything(rack: Rack) -> None:
    machine = rack.approved()
    for ref in ("node01", "1", "#1", machine.mac, machine.mac.upper(), machine.address):
        assert rack.head.node(ref)["name"] == "node01"
    for ref in ("node02", "2", "", "9" * 40, "²", "\x1b[2J"):
        with pytest.raises(Unknown) as unknown:
            rack.head.node(ref)
        assert "\x1b" not in str(unknown.value)


def test_approving(rack: Rack) -> None:
    for number in range(1, 6):
        rack.machine(number).boot()
    assert [row["name"] for row in rack.head.approve(["5", "3"], names="rack{n}")] == ["rack1", "rack2"]
    (row,) = rack.head.approve(["2"], names="login")
    assert row["name"] == "login"
    with pytest.raises(Wrong, match="pattern"):
        rack.head.approve(["1", "4"], names="same")
    with pytest.raises(Wrong, match="already"):
        rack.head.approve(["login"])
    with pytest.raises(Wrong, match="already"):
        rack.head.approve(["1"], names="login")
    with pytest.raises(NameInvalid):
        rack.head.approve(["1"], names="a b")
    with pytest.raises(Unknown):
        rack.head.approve(["1"], profile="none")
    assert [row["name"] for row in rack.head.approve(None)] == ["node01", "node02"]
    assert rack.head.approve(None) == []
    assert set(rack.head.zone().names) == {"rack1", "rack2", "login", "node01", "node02"}


def test_setting_and_removing(rack: Rack) -> None:
    machine, other = rack.approved(1), rack.approved(2)
    before = rack.head.zone()
    assert rack.head.zone() is before
    assert rack.head.set(["node01"], name="login", address="10.1.0.200")[0]["name"] == "login"
    assert rack.head.zone().names["login"] == "10.1.0.200" and rack.head.zone().serial > before.serial
    machine.lease()
    assert machine.address == "10.1.0.200"
    impossible: list[dict[str, Any]] = [
        {"address": other.address}, {"address": "10.9.0.1"}, {"address": HEAD_IP}, {"name": "node02"},
        {"address": "x"}, {"loader": "x"},
    ]  # fmt: skip
    for wrong in impossible:
        with pytest.raises(Wrong):
            rack.head.set(["login"], **wrong)
    with pytest.raises(Unknown):
        rack.head.set(["login"], profile="nope")
    rack.head.remove(["login"])
    rack.store.flush()
    assert rack.store.read("SELECT count(*) FROM nodes WHERE id = 1") == [(0,)]
    assert rack.store.read("SELECT count(*) FROM events WHERE node_id = 1") == [(0,)]
    assert list(rack.head.zone().names) == ["node02"]
    machine.boot()
    assert rack.head.node(machine.mac)["state"] == "waiting" and rack.head.node(machine.mac)["id"] == 3


def test_installing_is_all_or_nothing(rack: Rack) -> None:
    good, bad = rack.approved(1), rack.approved(2)
    good.hello()
    bad.disks = (good.disks[0], replace(good.disks[0], path="/dev/vdb", serial="S2"))
    bad.hello()
    with pytest.raises(Wrong, match="node02: 2 disks equally fit"):
        rack.head.install(None)
    assert not rack.head.node("node01")["ordered"]
    rack.head.install(["node02"], disk="serial=S2")
    with pytest.raises(NotFound):
        rack.head.install(["node01"], image="nothing")
    bad.disks = (replace(good.disks[0], size=1 << 29),)
    bad.hello()
    with pytest.raises(Wrong, match="node02: the layout needs"):
        rack.head.install(["node02"])
    rack.machine(3).boot()
    with pytest.raises(Wrong, match="not approved"):
        rack.head.install(["3"])


def test_all_means_those_without_a_system(rack: Rack) -> None:
    done, _ = rack.approved(1), rack.approved(2)
    rack.head.install(["node01"])
    done.hello()
    done.home(done.write())
    assert [row["node"] for row in rack.head.install(None, preview=True)] == ["node02"]
    done.hello()
    assert [row["node"] for row in rack.head.install(["node01"], preview=True)] == ["node01"]
    rack.head.install(["node01"])
    done.boot()
    done.hello()
    done.plan()
    with pytest.raises(Wrong, match="is installing"):
        rack.head.install(["node01"])
    with pytest.raises(Wrong, match="is installing"):
        rack.head.remove(["node01"])


@pytest.mark.parametrize(("images", "said"), [((), "no image"), (("a", "b"), "there are 2: a, b")])
def test_an_image_must_be_there_and_clear(tmp_path: Path, images: tuple[str, ...], said: str) -> None:
    rack = Rack(tmp_path, images)
    rack.approved()
    with pytest.raises(Wrong, match=said):
        rack.head.install(["node01"])
    rack.crash()


def test_profiles(rack: Rack) -> None:
    assert [row["name"] for row in rack.head.profiles()] == ["default"]
    made = rack.head.profile_set("compute", image="compute", disk="pick=smallest", finish="reboot")
    assert made["disk"] == "pick=smallest" and made["layout"][0]["kind"] == "bios"
    assert rack.head.profile_set("copy", **{key: value for key, value in made.items() if key != "name"}) == {
        **made, "name": "copy",
    }  # fmt: skip
    for wrong in ({"colour": "x"}, {"image": 7}, {"finish": "x"}, {"layout": "x"}, {"disk": "sda"}, {"image": "none"},
                  {"disk": {"min": 1}}, {"layout": [{**made["layout"][0], "sise": "1MiB"}]}):  # fmt: skip
        with pytest.raises(GildError):
            rack.head.profile_set("compute", **wrong)
    with pytest.raises(Unknown):
        rack.head.profile("nope")
    rack.stop()
    rack.start()
    assert rack.head.profile("compute") == made


def test_a_pinned_disk_that_is_missing_stops_the_order(rack: Rack) -> None:
    machine = rack.approved()
    rack.head.profile_set("default", disk="serial=GONE")
    machine.hello()
    with pytest.raises(Wrong, match="no disk fits"):
        rack.head.install(["node01"])
    assert rack.head.node("node01")["predicted_disk"].startswith("none: no disk fits")


def test_changes_are_told_as_they_happen(rack: Rack) -> None:
    cursor = rack.head.events_since(0)["cursor"]

    async def story() -> dict[str, Any]:
        waiting = asyncio.create_task(rack.head.changes(cursor, 20.0))
        await asyncio.sleep(0)
        rack.machine().discover()
        return await asyncio.wait_for(waiting, 5)

    news = asyncio.run(story())
    assert news["cursor"] > cursor and news["events"][0]["text"].startswith("first seen")
    assert news["events"][0]["node"] == "#1"
    assert asyncio.run(rack.head.changes(news["cursor"], 0))["events"] == []


def test_repeated_lines_are_counted(rack: Rack) -> None:
    machine = rack.machine()
    for _ in range(10):
        machine.discover()
    assert rack.timeline("1").count("asks for something to boot") == 1
    rack.clock.pass_(61)
    machine.discover()
    assert "(and 9 times before)" in rack.timeline("1")


def test_status(rack: Rack) -> None:
    rack.approved()
    status = rack.head.status()
    assert status["nodes"] == {"ready": 1} and status["leases"] == 1 and status["problem"] == ""
    assert (status["address"], status["network"], status["range"]) == (HEAD_IP, "10.1.0.0/24", "10.1.0.25-10.1.0.254")


def test_approved_as_a_rack(rack: Rack) -> None:
    for number in (1, 2):
        rack.machine(number).boot()
    with pytest.raises(NameInvalid, match="wants the number of a rack"):
        rack.head.approve(None, names="rack{r}-{n:02}")
    rows = rack.head.approve(None, names="rack{r}-{n:02}", rack=3, groups=["gpu"])
    assert [(row["name"], row["groups"]) for row in rows] == [
        ("rack3-01", ["gpu", "rack3"]), ("rack3-02", ["gpu", "rack3"]),
    ]  # fmt: skip


# --- trouble with the disk


def full(rack: Rack, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(self: Store, statements: list[Any]) -> GildError | None:
        self.problem = "the disk is full"
        return NoSpace(self.problem) if statements else None

    monkeypatch.setattr(Store, "_transaction", refuse)


def test_an_agent_that_asks_twice_at_once_gets_one_plan_or_none(rack: Rack, monkeypatch: pytest.MonkeyPatch) -> None:
    machine = rack.approved()
    rack.head.install(["node01"])
    answer = machine.hello()
    ask = PlanAsk(answer.session, answer.token)

    async def twice() -> list[Any]:
        return list(await asyncio.gather(rack.head.plan(ask), rack.head.plan(ask), return_exceptions=True))

    with monkeypatch.context() as patch:
        full(rack, patch)
        first, second = asyncio.run(twice())
        assert isinstance(first, NoSpace) and isinstance(second, Refused)
        assert rack.state_of("node01") == "ready"
    first, second = asyncio.run(twice())
    assert first == second and first.image == "compute:3"
    assert rack.timeline("node01").count("takes the plan") == 2, "the first was taken back, as its next line says"


@pytest.mark.parametrize("disk", ["takes it", "is full"])
def test_an_order_taken_back_while_its_plan_is_written_erases_nothing(
    rack: Rack, monkeypatch: pytest.MonkeyPatch, disk: str
) -> None:
    machine = rack.approved()
    rack.head.install(["node01"])
    answer = machine.hello()

    async def meanwhile() -> tuple[Any]:
        asked = asyncio.create_task(rack.head.plan(PlanAsk(answer.session, answer.token)))
        await asyncio.sleep(0)  # the plan is on its way to the disk
        if disk == "is full":
            order = rack.head.roster.orders[rack.head.roster.find("node01").id]
            rack.head.roster.set_order(close(order, "cancelled", 1.0))
        else:
            rack.head.cancel(["node01"])
        return await asyncio.gather(asked, return_exceptions=True)

    with monkeypatch.context() as patch:
        if disk == "is full":
            full(rack, patch)
        (refused,) = asyncio.run(meanwhile())
    assert isinstance(refused, NoSpace if disk == "is full" else Refused)
    assert rack.head.roster.orders[rack.head.roster.find("node01").id].outcome == "cancelled"
    with pytest.raises(Refused):
        machine.plan()


def test_with_a_full_disk_machines_are_answered_and_nothing_is_promised(
    rack: Rack, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine, second, stranger = rack.approved(1), rack.approved(2), rack.machine(3)
    rack.head.install(["node01"])
    machine.hello()
    with monkeypatch.context() as patch:
        full(rack, patch)
        stranger.boot()
        assert stranger.hello().do is Do.WAIT
        with pytest.raises(NoSpace):
            rack.head.install(["node02"])
        assert not rack.head.node("node02")["ordered"]
        with pytest.raises(NoSpace):
            rack.head.approve(None)
        assert rack.head.node(stranger.mac)["state"] == "waiting"
        with pytest.raises(NoSpace):
            machine.plan()
        assert rack.state_of("node01") == "ready"
        with pytest.raises(NoSpace):
            machine.plan()
        with pytest.raises(NoSpace):
            rack.head.set(["node02"], address="10.1.0.99")
        assert rack.head.node("node02")["address"] == second.address
        rack.tick()
        assert rack.head.status()["problem"] == "the disk is full"
    rack.tick()
    rack.tick()
    assert rack.head.status()["problem"] == ""
    assert machine.plan().image == "compute:3"
    rack.crash()
    rack.start()
    assert rack.head.node(stranger.mac)["state"] == "waiting"
    assert len(rack.store.read("SELECT * FROM leases")) == 3
    assert "first seen" in rack.timeline(stranger.mac)
