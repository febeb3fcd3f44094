"""Addresses that somebody has already: found by asking the wire, before a machine gets them."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

import pytest

from netboot import dhcp
from tests.appliance.process import PATIENCE, Served, rack_of_one, wait_for
from tests.appliance.rack import Rack


def test_an_address_on_offer_is_set_aside(rack: Rack) -> None:
    asked: list[str] = []
    rack.head.probes["eth1"] = asked.append
    machine = rack.machine()
    (offer,) = machine.discover()
    assert asked == [offer.yiaddr]
    rack.head.claimed(offer.yiaddr, machine.mac)  # it is the machine's own, from its last boot
    rack.head.claimed(offer.yiaddr, "52:54:00:ee:ee:ee")
    (answer,) = machine.request(offer.yiaddr)
    assert answer.kind is dhcp.Kind.NAK
    assert f"{offer.yiaddr}, which it was offered, is in use by 52:54:00:ee:ee:ee" in rack.timeline(machine.mac)
    other = machine.lease().yiaddr
    assert other != offer.yiaddr and asked == [offer.yiaddr, other]
    machine.lease()
    assert asked == [offer.yiaddr, other], "one that it has taken up is not asked for again"
    rack.clock.pass_(601)
    assert rack.machine(2).lease().yiaddr != other


def test_an_address_of_a_node_stays_and_that_is_said(rack: Rack) -> None:
    asked: list[str] = []
    rack.head.probes["eth1"] = asked.append
    machine, second = rack.approved(1), rack.approved(2)
    rack.clock.pass_(4000)  # their leases are over, their reservations are not
    machine.discover()
    assert asked[-1] == machine.address
    rack.head.claimed(machine.address, second.mac)
    rack.head.claimed(machine.address, "52:54:00:ee:ee:ee")
    assert f"its address {machine.address} is in use by {second.mac} (node02) too" in rack.timeline("node01")
    assert "ee:ee:ee" not in rack.timeline("node01"), "one answer is enough"
    assert machine.lease().yiaddr == rack.head.node("node01")["address"]


def test_only_who_was_asked_is_heard(rack: Rack) -> None:
    asked: list[str] = []
    rack.head.probes["eth1"] = asked.append
    machine = rack.machine()
    (offer,) = machine.discover()
    rack.clock.pass_(4)
    rack.head.claimed(offer.yiaddr, "52:54:00:ee:ee:ee")
    for address in ("10.1.0.250", "8.8.8.8", "nonsense"):
        rack.head.claimed(address, "52:54:00:ee:ee:ee")
    assert machine.request(offer.yiaddr)[0].kind is dhcp.Kind.ACK
    assert "in use" not in rack.timeline(machine.mac)


def test_a_router_that_answers_for_everybody_is_not_believed(rack: Rack) -> None:
    rack.head.probes["eth1"] = lambda address: None
    router, got = "52:54:00:ee:ee:ee", []
    for number in range(1, 13):
        machine = rack.machine(number)
        (offer,) = machine.discover()
        rack.head.claimed(offer.yiaddr, router)
        got.append(machine.request(offer.yiaddr)[0].kind)
    assert got == [dhcp.Kind.NAK] * 8 + [dhcp.Kind.ACK] * 4
    assert rack.head.status()["dhcp"]["claims of one for many"] == 4


def test_a_node_with_two_cards_is_no_conflict(rack: Rack) -> None:
    rack.head.probes["eth1"] = lambda address: None
    machine = rack.approved()
    node = rack.head.roster.find("node01")
    rack.head.roster.replace(replace(node, macs=(*node.macs, "52:54:00:00:ff:01")))
    rack.clock.pass_(4000)
    machine.discover()
    rack.head.claimed(machine.address, "52:54:00:00:ff:01")
    assert "in use" not in rack.timeline("node01")


# --- on a real wire


@contextmanager
def squatter(served: Served, address: str) -> Iterator[None]:
    """Somebody with that address, in a namespace of its own beside the machine's."""
    lan, name = served.lan, served.lan.node[:-1] + "s"
    lan.ip("-n", lan.node, "address", "flush", "dev", "node0")
    lan.ip("-n", lan.node, "link", "add", "br0", "type", "bridge")
    lan.ip("-n", lan.node, "link", "set", "br0", "up")
    lan.ip("-n", lan.node, "link", "set", "node0", "master", "br0")
    lan.ip("netns", "add", name)
    try:
        lan.ip("-n", name, "link", "add", "c0", "type", "veth", "peer", "name", "p0", "netns", lan.node)
        lan.ip("-n", lan.node, "link", "set", "p0", "master", "br0", "up")
        lan.ip("-n", name, "address", "add", f"{address}/24", "dev", "c0")
        lan.ip("-n", name, "link", "set", "c0", "up")
        yield
    finally:
        subprocess.run(["ip", "netns", "delete", name], check=False, capture_output=True)


@pytest.mark.root
def test_udhcpc_does_not_get_an_address_that_answers() -> None:
    with rack_of_one() as served:
        served.start("--range", "10.77.0.100-10.77.0.110")
        with squatter(served, "10.77.0.100"):
            time.sleep(0.2)  # the bridge has only just come up
            script = served.state / "udhcpc.sh"
            script.write_text('#!/bin/sh\n[ "$1" = bound ] && echo got $ip\nexit 0\n')
            script.chmod(0o755)
            said = subprocess.run(
                ["ip", "netns", "exec", served.lan.node, "busybox", "udhcpc", "-i", "br0", "-n", "-q", "-f",
                 "-t", "5", "-T", "1", "-s", str(script)],
                capture_output=True, text=True, timeout=PATIENCE,
            )  # fmt: skip
            assert "got 10.77.0.101" in said.stdout, said.stdout + said.stderr
            wait_for(lambda: served.client.get("status")["dhcp"].get("in use") == 1)
