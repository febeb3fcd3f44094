"""Machines known by the port of the switch they are on."""

from __future__ import annotations

import asyncio

import pytest

from appliance.sessions import SessionUnknown
from netboot.nodelist import NodelistInvalid, one
from netboot.report import Do, Hello, Next, Seat
from tests.appliance.rack import Rack


def test_the_waiting_room_shows_it(rack: Rack) -> None:
    machine = rack.machine()
    machine.boot()
    machine.hello()
    assert rack.head.node(machine.mac)["ports"] == []
    assert machine.seated("Gi1/0/7").do is Do.WAIT
    assert rack.head.node(machine.mac)["ports"] == ["sw1:Gi1/0/7"]
    machine.seated("\x1b[2J\r\nevil\u202e" + "x" * 500)
    (port,) = rack.head.node(machine.mac)["ports"]
    assert port.isprintable() and len(port) < 300
    machine.hello()
    assert rack.head.node(machine.mac)["ports"] == [], "it may have been carried somewhere else"


def test_an_installed_node_keeps_what_is_known(rack: Rack) -> None:
    machine = rack.approved()
    rack.head.install(["node01"])
    machine.hello()
    machine.plan()
    machine.report(lines=("x",), seats=(Seat("eth0", "sw2", "7"), Seat("eth9", "sw2", "8")))
    assert rack.head.node("node01")["ports"] == ["sw2:7"]
    machine.hello()
    assert rack.head.node("node01")["ports"] == ["sw2:7"]
    rack.stop()
    rack.start()
    assert rack.head.node("node01")["ports"] == ["sw2:7"]


def test_a_rule_about_ports_keeps_later_ones_waiting(rack: Rack) -> None:
    rack.head.rule_add(["port=SW1:gi1/0/*"], names="a{n}", groups=["rack1"])
    rack.head.rule_add([], names="b{n}")
    first, second = rack.machine(1), rack.machine(2)
    for machine in (first, second):
        machine.boot()
        machine.hello()
        assert rack.state_of(machine.mac) == "waiting"
    first.seated("Gi1/0/1")
    second.seated("Gi2/0/1")
    assert rack.head.node(first.mac)["name"] == "a1" and rack.head.node(first.mac)["groups"] == ["rack1"]
    assert rack.head.node(second.mac)["name"] == "b1"


def test_a_rule_that_cannot_fit_keeps_nobody_waiting(rack: Rack) -> None:
    rack.head.rule_add(["port=sw1:*", "vendor=Other*"], names="a{n}")
    rack.head.rule_add([], names="b{n}")
    machine = rack.machine()
    machine.boot()
    machine.hello()
    assert rack.head.node(machine.mac)["name"] == "b1"


def test_declared_by_its_port(rack: Rack) -> None:
    listed = "name,port,groups\nnode05,sw1:Gi1/0/5,rack1\nnode06,sw1:Gi1/0/6,\n"
    rack.head.declared.load(listed.encode())
    assert rack.head.declared.places() == [], "they are no places: it is known where they stand"
    machine = rack.machine(6)
    machine.boot()
    machine.hello()
    with pytest.raises(SessionUnknown):  # it is asked to say hello again, as the node it is
        machine.seated("gi1/0/6")
    node = rack.head.node("node06")
    assert node["mac"] == machine.mac and node["state"] == "ready" and len(rack.head.nodes()) == 2
    assert machine.hello().node == "node06"
    other = rack.machine(7)
    other.boot()
    other.hello()
    other.seated("Gi1/0/6")
    assert rack.state_of(other.mac) == "waiting", "node06 has its machine"
    shown = rack.head.declared.load(rack.head.declared.listed().encode(), preview=True)
    assert {row["is"] for row in shown} == {"same"} and "sw1:Gi1/0/5" in rack.head.declared.listed()


def test_ports_of_lists() -> None:
    assert one({"name": "n1", "port": "sw1:7"}).port == "sw1:7"
    for bad in ("sw1", ":7", "x" * 140 + ":1", "a:\x1b"):
        with pytest.raises(NodelistInvalid, match="is no port of a switch"):
            one({"name": "n1", "port": bad})


def test_a_machine_in_doubt_says_nothing_of_a_node(rack: Rack) -> None:
    machine = rack.approved()
    machine.hello()
    answer = rack.head.hello(Hello(machine.mac, machine.facts(), "", agent="1"), "10.1.0.99")
    asyncio.run(rack.head.next(Next(answer.session, 0, (Seat("eth0", "evil", "1"),))))
    assert rack.head.node("node01")["ports"] == []
