"""Several networks: a second interface, relays, what their machines are told, and a head that moves."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from ipaddress import IPv4Interface
from pathlib import Path
from typing import Any

import pytest

from appliance.errors import Environment, Unknown, Wrong
from images.edits import option
from images.errors import GildError
from netboot import dhcp
from netboot.lease import LeaseInvalid
from netboot.subnet import Subnet, SubnetInvalid
from tests.appliance.rack import HEAD_IP, Rack, token_in

FAR = {"network": "10.88.0.0/24", "router": "10.88.0.1"}


@pytest.fixture
def rack(tmp_path: Path) -> Iterator[Rack]:
    made = Rack(tmp_path)
    made.head.networks._address_of = second_card
    yield made
    made.stop()


def second_card(name: str) -> IPv4Interface:
    return IPv4Interface("10.78.0.1/24")


def add(rack: Rack, name: str, **given: Any) -> dict[str, Any]:
    return asyncio.run(rack.head.networks.add(name, given))


def test_a_machine_behind_a_relay_is_installed_like_any_other(rack: Rack) -> None:
    add(rack, "far", **FAR, dns=["10.88.0.2"], mtu=1400)
    machine = rack.machine(relay="10.88.0.1", extra={dhcp.PARAMS: bytes((dhcp.MTU, dhcp.DNS))})
    ack = machine.lease()
    assert machine.address.startswith("10.88.0.") and rack.sent[0][1] == ("10.88.0.1", 67)
    assert ack.relay_info == b"\x01\x04eth1", "the relay's option goes back unchanged"
    told = {number: ack.options[number] for number in (dhcp.SERVER_ID, dhcp.ROUTER, dhcp.DNS, dhcp.MTU)}
    assert told == {54: dhcp.ip(HEAD_IP), 3: dhcp.ip("10.88.0.1"), 6: dhcp.ip("10.88.0.2"), 26: b"\x05\x78"}
    machine.boot()
    node = rack.head.node(rack.head.approve([machine.mac])[0]["name"])
    assert (node["address"], node["relay"]) == (machine.address, "10.88.0.1 eth1")
    rack.await_keys(machine)
    rack.head.install([node["name"]])
    machine.hello(token_in(machine.boot()))
    plan = machine.plan()
    assert (plan.network.prefix, plan.network.gateway, plan.network.dns) == (24, "10.88.0.1", ("10.88.0.2",))
    assert plan.sources == (f"http://{HEAD_IP}",), "through its router the head is where it was"
    zone = rack.head.zone()
    assert zone.reverse[machine.address] == f"{node['name']}.cluster.internal"


def test_each_interface_is_a_network_with_the_head_in_it(rack: Rack) -> None:
    row = add(rack, "second", interface="eth2")
    assert (row["head"], row["first"], row["last"]) == ("10.78.0.1", "10.78.0.25", "10.78.0.254")
    near, other = rack.machine(1), rack.machine(2, interface="eth2")
    assert near.lease().options[dhcp.DNS] == dhcp.ip(HEAD_IP)
    ack = other.lease()
    assert ack.options[dhcp.DNS] == dhcp.ip("10.78.0.1") and ack.siaddr == "10.78.0.1"
    other.boot()
    assert "http://10.78.0.1" in other.script() and HEAD_IP not in other.script()
    assert rack.head.zone("10.78.0.1").head_ip == "10.78.0.1" and rack.head.zone().head_ip == HEAD_IP
    rack.stop()
    rack.start()
    rack.head.networks._address_of = second_card
    asyncio.run(rack.head.networks.begin())
    assert [(n["name"], n["trouble"], n["leases"]) for n in rack.head.networks.networks()] == [
        ("main", "", 1), ("second", "", 1),
    ]  # fmt: skip


def test_a_relay_nobody_described_is_not_answered(rack: Rack) -> None:
    machine = rack.machine()
    machine.boot()
    machine.relay = "10.99.0.1"
    assert machine.discover() == [] and rack.head.status()["dhcp"]["from no network of ours"] == 1
    assert "not described here (10.99.0.1)" in rack.timeline(machine.mac)


def test_a_node_that_was_carried_elsewhere_gets_no_plan_for_there(rack: Rack) -> None:
    add(rack, "far", **FAR)
    machine = rack.approved()
    before = rack.head.node("node01")["address"]
    rack.head.install(["node01"])
    machine.relay = "10.88.0.1"
    machine.hello(token_in(machine.boot()))
    with pytest.raises(Wrong, match=r"node01 stands in the network far, but its address .* is of main") as raised:
        machine.plan()
    assert "node set node01 --address" in raised.value.hint
    assert rack.state_of("node01") == "ready"
    rack.head.set(["node01"], address="10.88.0.200")
    machine.boot()
    assert machine.address == "10.88.0.200" != before


def test_site_options_go_to_those_that_ask(rack: Rack) -> None:
    rack.head.networks.set("main", {
        "options": ["150=ip:10.1.0.8,10.1.0.9", "43=hex:01:02", "224=text:hi"],
        "routes": ["10.0.0.0/8 via 10.1.0.2"], "mtu": 9000,
    })  # fmt: skip
    asks = bytes((150, 43, 224, dhcp.ROUTES, dhcp.MTU))
    (offer,) = rack.machine(1, extra={dhcp.PARAMS: asks}).discover(firmware=False)
    assert offer.options[150] == dhcp.ips(["10.1.0.8", "10.1.0.9"]) and offer.options[43] == b"\1\2"
    assert offer.options[224] == b"hi" and offer.options[dhcp.MTU] == b"\x23\x28"
    assert offer.options[dhcp.ROUTES] == b"\x08\x0a" + dhcp.ip("10.1.0.2")
    (rom,) = rack.machine(2, extra={dhcp.PARAMS: asks}).discover()
    assert rom.options.get(43) != b"\1\2", "a boot ROM would take it for PXE's own"
    (quiet,) = rack.machine(3).discover(firmware=False)
    assert not {150, 43, 224, dhcp.ROUTES, dhcp.MTU} & set(quiet.options)
    rack.stop()
    rack.start()
    assert rack.head.networks.networks()[0]["mtu"] == 9000


def test_mtu_and_routes_are_written_into_systems(rack: Rack) -> None:
    rack.head.networks.set("main", {"routes": ["10.0.0.0/8  via 10.1.0.2"], "mtu": 9000})
    machine = rack.approved()
    rack.head.install(["node01"])
    machine.hello()
    plan = machine.plan()
    edit = next(edit for edit in plan.edits if edit.edit == "network")
    assert edit.options["mtu"] == 9000 and option.routes(edit.options, "routes", "network") == (
        ("10.0.0.0/8", "10.1.0.2"),
    )
    with pytest.raises(Wrong, match="a list of at most 32 texts"):
        rack.head.networks.set("main", {"routes": [f"10.{n}.0.0/16 via 10.1.0.2" for n in range(33)]})


def test_a_smaller_range_keeps_what_still_fits(rack: Rack) -> None:
    add(rack, "far", **FAR)
    machine = rack.machine(relay="10.88.0.1")
    machine.lease()
    assert machine.address == "10.88.0.25"
    assert rack.head.networks.set("far", {"range": "10.88.0.20-10.88.0.30"})["lost"] == []
    assert rack.head.networks.set("far", {"range": "10.88.0.100-10.88.0.110"})["lost"] == [machine.mac]
    (answer,) = machine.request("10.88.0.25")
    assert answer.kind is dhcp.Kind.NAK
    machine.lease()
    assert machine.address == "10.88.0.100"


@pytest.mark.parametrize(
    ("name", "given", "error", "match"),
    [
        ("Far!", FAR, Wrong, "no name for a network"),
        ("far", {}, Wrong, "which one is it"),
        ("far", {"network": "10.88.0.1/24"}, Wrong, "which one is it"),
        ("far", {"network": "10.88.0.0/24"}, SubnetInvalid, "need a router"),
        ("far", {"network": "10.1.0.128/25", "router": "10.1.0.129"}, SubnetInvalid, "overlaps .* the network main"),
        ("far", {**FAR, "router": "10.89.0.1"}, SubnetInvalid, "router 10.89.0.1 is not in"),
        ("far", {**FAR, "range": "10.88.0.9"}, Wrong, "FIRST-LAST"),
        ("far", {**FAR, "range": "10.88.0.9-10.88.0.2"}, SubnetInvalid, "ends before it begins"),
        ("far", {**FAR, "range": "10.88.0.9-10.89.0.2"}, SubnetInvalid, "last address 10.89.0.2 is not in"),
        ("far", {**FAR, "range": "10.88.0.999-10.88.0.2"}, SubnetInvalid, "not in"),
        ("far", {**FAR, "mtu": 10}, SubnetInvalid, "MTU of 10"),
        ("far", {**FAR, "mtu": "9000"}, Wrong, "mtu should be a number"),
        ("far", {**FAR, "dns": ["x"]}, SubnetInvalid, "'x' is not an IPv4 address"),
        ("far", {**FAR, "options": ["54=ip:1.2.3.4"]}, SubnetInvalid, "not a site's to give"),
        ("far", {**FAR, "options": ["150=ip:nowhere"]}, SubnetInvalid, "IPv4 addresses"),
        ("far", {**FAR, "options": ["999=u8:1"]}, SubnetInvalid, "NUMBER=KIND:VALUE"),
        ("far", {**FAR, "options": ["150=u8:300"]}, SubnetInvalid, "8 bits"),
        ("far", {**FAR, "routes": ["10.0.0.0/8"]}, SubnetInvalid, "NETWORK via ROUTER"),
        ("far", {**FAR, "lease": 5}, SubnetInvalid, "lease of 5 s"),
        ("far", {**FAR, "colour": "red"}, Wrong, "has no 'colour'"),
        ("far", {**FAR, "network": "10.88.0.0/30", "router": ""}, SubnetInvalid, "too small"),
        ("far", {"network": "10.0.0.0/8", "router": "10.0.0.1"}, SubnetInvalid, "overlaps"),
        ("far", {"network": "11.0.0.0/8", "router": "11.0.0.1", "range": "11.0.0.0-11.9.0.0"}, LeaseInvalid, "65536"),
    ],
)  # fmt: skip
def test_what_is_refused_changes_nothing(
    rack: Rack, name: str, given: dict[str, Any], error: type[GildError], match: str
) -> None:
    with pytest.raises(error, match=match):
        add(rack, name, **given)
    assert len(rack.head.networks.networks()) == 1 and rack.store.read("SELECT count(*) FROM networks")[0][0] == 0


def test_a_network_that_cannot_be_opened_is_not_there(rack: Rack) -> None:
    async def fails(subnet: Subnet) -> None:
        raise Environment("UDP port 67 on eth2 is in use by dnsmasq (PID 7)", "stop dnsmasq first")

    rack.head.networks.attach = fails
    with pytest.raises(Environment, match="in use by dnsmasq"):
        add(rack, "second", interface="eth2")
    assert len(rack.head.networks.networks()) == 1


def test_removing(rack: Rack) -> None:
    add(rack, "far", **FAR)
    machine = rack.machine(relay="10.88.0.1")
    machine.boot()
    rack.head.approve([machine.mac])
    with pytest.raises(Wrong, match="1 nodes have their address in the network far: node01"):
        asyncio.run(rack.head.networks.remove("far"))
    rack.head.remove(["node01"])
    assert asyncio.run(rack.head.networks.remove("far")) == {"name": "far"}
    assert machine.discover() == []
    for name, match in (("main", "serve --interface"), ("far", "there is no network")):
        with pytest.raises((Wrong, Unknown), match=match):
            asyncio.run(rack.head.networks.remove(name))
    with pytest.raises(Wrong, match="is a setting"):
        rack.head.networks.set("main", {"router": "10.1.0.2"})


def test_a_head_that_moved_takes_its_nodes_along(tmp_path: Path) -> None:
    rack = Rack(tmp_path)
    add(rack, "far", **FAR)
    machine, far = rack.approved(1), rack.approved(2, relay="10.88.0.1")
    before, there = rack.head.node("node01")["address"], rack.head.node("node02")["address"]
    rack.stop()
    rack.network = IPv4Interface("10.50.0.1/24")
    rack.start()
    moved = rack.head.node("node01")["address"]
    assert moved == before.replace("10.1.0.", "10.50.0.") and rack.head.node("node02")["address"] == there
    assert f"{before} is not in 10.50.0.0/24" in rack.timeline("node01")
    assert machine.lease().yiaddr == moved
    ack = far.lease()
    assert ack.yiaddr == there and ack.server_id == "10.50.0.1"
    assert rack.head.zone().forward["node01.cluster.internal"] == moved
    rack.stop()


def test_a_network_that_no_longer_fits_is_set_aside(tmp_path: Path) -> None:
    rack = Rack(tmp_path)
    add(rack, "far", **FAR)
    far = rack.approved(1, relay="10.88.0.1")
    there = rack.head.node("node01")["address"]
    rack.stop()
    rack.network = IPv4Interface("10.88.0.7/24")
    rack.start()
    rows = {row["name"]: row["trouble"] for row in rack.head.networks.networks()}
    assert "overlaps 10.88.0.0/24, the network main" in rows["far"] and rows["main"] == ""
    assert rack.head.node("node01")["address"] == there, "it lies in the head's own network now"
    far.relay = ""
    assert far.lease().yiaddr == there
    assert asyncio.run(rack.head.networks.remove("far")) == {"name": "far"}
    rack.stop()
