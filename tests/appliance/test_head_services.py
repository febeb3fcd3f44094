from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from appliance import head_services
from appliance.cluster.change import Change
from appliance.cluster.inventory import Inventory
from appliance.cluster.services import SERVICES
from appliance.config import parse
from appliance.errors import ConfigInvalid
from appliance.head_services import Services
from images.errors import CommandFailed
from netboot.node import Event, Node, State
from tests.appliance.cluster.test_inventory import CLUSTER
from tests.appliance.rack import Rack

Tell = Callable[[str, Inventory], str]


def services(rack: Rack, tell: Tell, *names: str) -> Services:
    made = Services(rack.head.roster, names or ("hosts",), rack.head._cluster.snapshot, tell)
    made.quiet, made.again = 0.05, (0.02, 0.02)
    return made


async def until(happened: Callable[[], bool]) -> None:
    async with asyncio.timeout(30):
        while not happened():
            await asyncio.sleep(0.01)


def test_many_changes_are_one_run(rack: Rack) -> None:
    told: list[tuple[str, ...]] = []

    def tell(name: str, inventory: Inventory) -> str:
        told.append(tuple(machine.name for machine in inventory.machines))
        return "ok"

    async def all_of_it() -> None:
        made = services(rack, tell)
        work = asyncio.create_task(made.work())
        await until(lambda: told == [()])  # at the start: the machine may have been restored, or changed by hand
        for number in (1, 2, 3):
            rack.approved(number)
        await until(lambda: len(told) == 2)
        rack.machine(9).boot()  # a stranger is nobody's affair
        rack.head.roster.replace(rack.head.roster.find("node01"))
        assert told[1] == ("node01", "node02", "node03")
        rack.head.set(["node01"], group=["rack1"], ungroup=[])
        rack.head.remove(["node02"])
        await until(lambda: len(told) == 3)
        assert told[2] == ("node01", "node03") and made.rows()[0]["text"] == "ok"
        work.cancel()

    asyncio.run(all_of_it())


def test_a_storm_is_few_runs(rack: Rack) -> None:
    told: list[int] = []

    def tell(name: str, inventory: Inventory) -> str:
        told.append(1)
        return "ok"

    async def all_of_it() -> None:
        made = services(rack, tell)
        work = asyncio.create_task(made.work())
        await until(lambda: len(told) == 1)
        for number in range(5000):
            node = Node(number, State.READY, name=f"n{number}", address="10.1.0.9")
            made.heard(Node(number), node, Event.APPROVED)
            if number % 500 == 0:
                await asyncio.sleep(0)
        await until(lambda: len(told) == 2)
        await asyncio.sleep(0.1)
        assert len(told) == 2
        work.cancel()

    asyncio.run(all_of_it())


def test_what_nobody_thought_of_does_not_end_the_head(rack: Rack) -> None:
    def tell(name: str, inventory: Inventory) -> str:
        raise ValueError("\x1b[31mnobody thought of this")

    async def all_of_it() -> None:
        made = services(rack, tell)
        work = asyncio.create_task(made.work())
        await until(lambda: bool(made.rows()[0]["at"]))
        assert made.rows()[0]["text"] == "ValueError: ?[31mnobody thought of this" and not made.rows()[0]["ok"]
        assert not work.done()
        work.cancel()

    asyncio.run(all_of_it())


def test_what_fails_is_tried_again_and_shown(rack: Rack) -> None:
    tried: list[str] = []

    def tell(name: str, inventory: Inventory) -> str:
        tried.append(name)
        if name == "slurm":
            raise CommandFailed("slurm: systemctl failed")
        return "told"

    async def all_of_it() -> None:
        made = services(rack, tell, "slurm", "hosts")
        assert [row["text"] for row in made.rows()] == ["not told yet", "not told yet"]
        work = asyncio.create_task(made.work())
        await until(lambda: len(tried) == 3)
        assert tried == ["slurm", "hosts", "slurm"]
        await asyncio.sleep(0.05)
        assert [(row["name"], row["ok"], row["text"]) for row in made.rows()] == [
            ("slurm", False, "slurm: systemctl failed"), ("hosts", True, "told"),
        ]  # fmt: skip
        work.cancel()

    asyncio.run(all_of_it())


def test_one_service_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    done: list[Change] = []
    monkeypatch.setitem(SERVICES, "hosts", lambda inventory, here, wanted: Change("hosts", commands=needed))
    monkeypatch.setattr(head_services, "apply", lambda change, here: done.append(change))
    needed: tuple[Any, ...] = ()
    assert head_services.tell("hosts", CLUSTER) == "nothing to do" and not done
    needed = (object(),)
    assert head_services.tell("hosts", CLUSTER) == "told of 3 nodes" and done


def test_the_setting(tmp_path: Path) -> None:
    assert parse("", {}, {"services": " hosts, slurm,hosts,"}).services == "hosts,slurm"
    assert parse("", {}, {"services": ",".join(SERVICES)}).services == ",".join(SERVICES)
    with pytest.raises(ConfigInvalid, match="some of hosts, slurm"):
        parse("", {}, {"services": "host"})
    made = Rack(tmp_path, services="hosts")
    assert made.head.status()["services"] == [{"name": "hosts", "at": 0.0, "ok": True, "text": "not told yet"}]
    made.crash()
