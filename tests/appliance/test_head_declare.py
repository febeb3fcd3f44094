"""Nodes that are declared before their machines are seen, and machines in the order in which they are switched on."""

from __future__ import annotations

from collections.abc import Iterator
from ipaddress import IPv4Interface
from pathlib import Path
from typing import Any

import pytest

from appliance.errors import Unknown, Wrong
from images.errors import GildError
from netboot.nodelist import NodelistInvalid, one
from tests.appliance.rack import Rack, token_in

CSV = "name,mac,address,groups,serial,uuid\n"


@pytest.fixture
def rack(tmp_path: Path) -> Iterator[Rack]:
    made = Rack(tmp_path)
    yield made
    made.stop()


def load(rack: Rack, *lines: str, preview: bool = False) -> list[dict[str, Any]]:
    return rack.head.declared.load((CSV + "\n".join(lines)).encode(), preview)


@pytest.mark.parametrize("known", ["mac", "serial", "uuid"])
def test_a_machine_finds_itself_declared(rack: Rack, known: str) -> None:
    machine = rack.machine(7)
    what = {"mac": machine.mac, "serial": "SER7", "uuid": machine.uuid}
    rack.head.declared.add(one({"name": "big", "address": "10.1.0.200", known: what[known], "groups": "fat"}))
    assert rack.state_of("big") == "ready"
    rack.head.install(["big"])
    rack.stop()
    rack.start()
    token = token_in(machine.boot())
    machine.hello(token)
    node = rack.head.node("big")
    assert (node["mac"], node["address"], node["groups"], len(rack.head.nodes())) == (
        machine.mac, "10.1.0.200", ["fat"], 1,
    )  # fmt: skip
    assert machine.lease().yiaddr == "10.1.0.200"
    # By its serial it is known only when it says hello: the order comes with the next boot.
    rack.await_keys(machine)
    machine.hello(token_in(machine.boot()))
    assert machine.plan().network.address == "10.1.0.200"


def test_a_list_loaded_before_and_after(rack: Rack) -> None:
    here = rack.machine(1)
    here.boot()
    here.hello()
    lines = [f"node01,{here.mac},,rack1,,", "node02,52:54:00:00:00:02,10.1.0.222,,,", "node03,,,,SER3,", "node04,,,,,"]
    shown = load(rack, *lines, preview=True)
    assert [row["is"] for row in shown] == ["here already", "new", "new", "new"] and shown[3]["place"]
    assert len(rack.head.nodes()) == 1 and rack.state_of(here.mac) == "waiting", "a preview does nothing"
    rows = load(rack, *lines)
    assert rows[0]["address"] == here.address and rows[1]["address"] == "10.1.0.222"
    assert len({row["address"] for row in rows}) == 4
    assert rack.state_of("node01") == "ready" and rack.head.node("node01")["groups"] == ["rack1"]
    assert [row["is"] for row in load(rack, *lines)] == ["same"] * 4
    changed = load(rack, "node02,52:54:00:00:00:02,10.1.0.223,,,", "node03,,,gpu,,")
    assert [row["is"] for row in changed] == ["changed", "changed"]
    assert rack.head.node("node02")["address"] == "10.1.0.223" and rack.head.node("node03")["serial"] == "SER3"
    assert rack.machine(2).lease().yiaddr == "10.1.0.223"


def test_addresses_change_places(rack: Rack) -> None:
    load(rack, "node01,52:54:00:00:00:01,10.1.0.201,,,", "node02,52:54:00:00:00:02,10.1.0.202,,,")
    load(rack, "node01,52:54:00:00:00:01,10.1.0.202,,,", "node02,52:54:00:00:00:02,10.1.0.201,,,")
    assert rack.machine(1).lease().yiaddr == "10.1.0.202" and rack.machine(2).lease().yiaddr == "10.1.0.201"


def test_what_is_written_can_be_loaded(rack: Rack) -> None:
    load(rack, "node01,52:54:00:00:00:01,10.1.0.201,a b,,", "node02,,,,SER2,")
    assert {row["is"] for row in rack.head.declared.load(rack.head.declared.listed().encode())} == {"same"}


def test_a_bad_line_is_named_and_nothing_is_applied(rack: Rack) -> None:
    rack.approved(9)
    with pytest.raises(NodelistInvalid) as raised:
        load(
            rack, "node02,,,,,", "node03,,10.9.0.4,,,", "node04,,10.1.0.1,,,", f"node05,{rack.machine(9).mac},,,,",
            f"node06,,{rack.head.node('node01')['address']},,,", "node07,52:54:00:00:00:77,,,,",
        )  # fmt: skip
    assert raised.value.message.splitlines() == [
        "line 3: address 10.9.0.4 is not one for a node in 10.1.0.0/24",
        "line 4: address 10.1.0.1 is not one for a node in 10.1.0.0/24",
        "line 5: the network card is that of node01",
        f"line 6: address {rack.head.node('node01')['address']} is that of node01",
    ]
    assert [row["name"] for row in rack.head.nodes()] == ["node01"]
    with pytest.raises(NodelistInvalid, match="there is no profile 'none'"):
        rack.head.declared.load(b"name,profile\nnode08,none\n")
    with pytest.raises(Wrong, match="there is a node01 already"):
        rack.head.declared.add(one({"name": "node01"}))


def test_a_range_that_is_used_up_takes_everything_back(tmp_path: Path) -> None:
    rack = Rack(tmp_path, range="10.1.0.10-10.1.0.19")
    load(rack, *(f"n{n},,,,," for n in range(9)))
    with pytest.raises(Wrong, match="no address is left"):
        load(rack, "n9,,,,,", "n10,,,,,")
    rack.tick(61)  # an address that was only offered goes back by itself
    assert len(rack.head.nodes()) == 9 and rack.head.roster.pool.free() == 1
    rack.stop()


def test_five_thousand_lines(rack: Rack) -> None:
    rack.stop()
    rack.network = IPv4Interface("10.1.0.1/16")
    rack.start()
    rows = load(rack, *(f"n{n:04},02:00:00:00:{n >> 8:02x}:{n & 255:02x},,,," for n in range(5000)))
    assert len({row["address"] for row in rows}) == 5000 and len(rack.head.nodes()) == 5000


# --- the order of power-on


def switch_on(rack: Rack, number: int) -> Any:
    machine = rack.machine(number)
    rack.clock.pass_(1)
    machine.lease()
    return machine


def test_named_in_the_order_of_the_first_packet(rack: Rack) -> None:
    early = rack.machine(9)
    early.boot()
    early.hello()
    rack.clock.pass_(10)
    shown = rack.head.poweron.begin(names="rack{r}-{n:02}", rack=3, groups=("gpu",))
    assert (shown["next"], shown["running"]) == ("rack3-01", True)
    first, second = switch_on(rack, 1), switch_on(rack, 2)
    second.boot()
    second.hello()
    assert rack.state_of(second.mac) == "waiting", "the first one was switched on before it"
    first.boot()
    first.hello()
    assert (first.name, second.name) == ("rack3-01", "rack3-02")
    assert rack.head.node("rack3-02")["groups"] == ["gpu", "rack3"]
    assert rack.state_of(early.mac) == "waiting", "it was on before"
    assert rack.head.poweron.end()["named"] == ["rack3-01", "rack3-02"]
    third = switch_on(rack, 3)
    third.boot()
    third.hello()
    assert rack.state_of(third.mac) == "waiting"


def test_one_that_never_shows_itself_is_overtaken(rack: Rack) -> None:
    rack.head.poweron.begin(count=1)
    switch_on(rack, 1)
    second = switch_on(rack, 2)
    second.boot()
    second.hello()
    rack.tick(60)
    assert rack.state_of(second.mac) == "waiting"
    rack.tick(90)
    assert second.name == "node01" and rack.head.poweron.shown()["running"] is False, "one was enough"


def test_places_are_filled_first(rack: Rack) -> None:
    load(rack, "n10,,,,,", "n2,,10.1.0.210,,,")
    rack.head.poweron.begin()
    names = []
    for number in (1, 2, 3):
        machine = switch_on(rack, number)
        machine.boot()
        machine.hello()
        names.append(machine.name)
    assert names == ["n2", "n10", "node01"]
    assert rack.machine(1).lease().yiaddr == "10.1.0.210"


@pytest.mark.parametrize(
    ("given", "error", "match"),
    [
        ({"profile": "none"}, Unknown, "no profile"), ({"names": "x"}, Wrong, "no place for a number"),
        ({"names": "rack{r}-{n}"}, GildError, "number of a rack"), ({"count": 0}, Wrong, "cannot be negative"),
        ({"names": "_{n}"}, GildError, "cannot be the name"), ({"groups": ("a b",)}, GildError, "a b"),
        ({"names": "r{r}-{n}", "rack": -1}, GildError, "rack has a number"),
    ],
)  # fmt: skip
def test_what_cannot_begin(rack: Rack, given: dict[str, Any], error: type[GildError], match: str) -> None:
    with pytest.raises(error, match=match):
        rack.head.poweron.begin(**given)
    assert not rack.head.poweron.shown()["running"]
    with pytest.raises(Wrong, match="no order of power-on"):
        rack.head.poweron.end()
