"""Approval by rule, with machines made of packets."""

from __future__ import annotations

from dataclasses import replace

import pytest

from appliance.errors import Unknown, Wrong
from images.errors import GildError
from netboot.report import Disk, Hello, Nic
from tests.appliance.rack import Rack


def test_a_machine_is_approved_at_its_hello(rack: Rack) -> None:
    rack.head.profile_set("store", cmdline="quiet")
    rack.head.rule_add(["disks=2+"], profile="store", names="store{n}", groups=["rack1"])
    rack.head.rule_add([], profile="default")
    two = tuple(Disk(f"/dev/sd{c}", 20 << 30, "QEMU", f"S{c}", bus="sata") for c in "ab")
    big, small = rack.machine(1), rack.machine(2)
    big.disks = two
    for machine in (big, small):
        machine.boot()
        machine.hello()
    node = rack.head.node("store1")
    assert (node["state"], node["profile"], node["groups"]) == ("ready", "store", ["rack1"])
    assert any(event["text"] == "by rule 1: disks=2+" for event in node["timeline"])
    assert small.name == "node01" and rack.head.node("node01")["address"] == small.address


def test_a_rule_that_waits_counts_before_later_ones(rack: Rack) -> None:
    rack.head.rule_add([])
    rack.head.rule_add(["vendor=Vendor*"], wait=True, before=1)
    machine = rack.machine(1)
    machine.boot()
    machine.hello()
    assert rack.head.node(machine.mac)["state"] == "waiting"
    assert [(rule["id"], rule["takes"]) for rule in rack.head.rules()] == [(2, ["#1"]), (1, [])]
    rack.head.rule_remove(2)
    assert [rule["takes"] for rule in rack.head.rules()] == [["#1"]]


def test_those_that_wait_already_only_if_told(rack: Rack) -> None:
    machine = rack.machine(1)
    machine.boot()
    machine.hello()
    assert rack.head.rule_add(["vendor=Vendor*"])["approved"] == [] and machine.name == ""
    assert rack.head.rule_add([], now=True)["approved"] == ["node01"]


def test_rules_outlive_the_process(rack: Rack) -> None:
    rack.head.rule_add(["cores=4"], names="n{n}", groups=["b", "a", "b"])
    rack.head.rule_add([], wait=True, before=1)
    before = rack.head.rules()
    rack.stop()
    rack.start()
    assert rack.head.rules() == before and [rule["id"] for rule in before] == [2, 1]


def test_what_is_refused_changes_nothing(rack: Rack) -> None:
    for words, more in ((["colour=red"], {}), ([], {"profile": "none"}), ([], {"names": "all"}), ([], {"before": 7})):
        with pytest.raises(GildError):
            rack.head.rule_add(words, **more)
    with pytest.raises(Unknown, match="there is no rule 1"):
        rack.head.rule_remove(1)
    assert rack.head.rules() == []


def test_a_machine_in_doubt_is_approved_by_nobody(rack: Rack) -> None:
    """Another card in the machine that is node01 already."""
    first = rack.approved()
    first.hello()
    rack.head.rule_add([])
    other = rack.machine(2)
    other.boot()
    facts = replace(first.facts(), nics=(Nic("eth0", other.mac, boot=True),))
    rack.head.hello(Hello(other.mac, facts), other.address)
    assert rack.head.node(other.mac)["state"] == "waiting"


def swapped(rack: Rack) -> tuple[str, str]:
    """node01 is off; the same machine comes back with another card. Returns the old and the new MAC."""
    first = rack.approved()
    first.hello()
    other = rack.machine(2)
    other.boot()
    facts = replace(first.facts(), nics=(Nic("eth0", other.mac, boot=True),))
    rack.head.hello(Hello(other.mac, facts), other.address)
    return first.mac, other.mac


def test_a_changed_card_is_a_question(rack: Rack) -> None:
    _, mac = swapped(rack)
    stranger = rack.head.node(mac)
    assert stranger["conflict"] == "has the UUID or serial of node01 but none of its network cards"
    assert rack.head.approve(None) == [], "nobody is approved who is in doubt"
    with pytest.raises(Wrong, match="looks like node01") as raised:
        rack.head.approve([mac])
    assert "node same 2 node01, or node other 2" in raised.value.hint
    assert rack.head.node("node01")["conflict"] == ""


def test_it_is_that_node_with_another_card(rack: Rack) -> None:
    old, mac = swapped(rack)
    before = rack.head.node("node01")
    node = rack.head.same(mac, "node01")
    assert (node["id"], node["name"], node["address"], node["macs"]) == (1, "node01", before["address"], [mac])
    assert len(rack.head.nodes()) == 1
    back = rack.machine(2)
    assert back.lease().yiaddr == before["address"], "its address came along"
    assert "has another network card" in rack.timeline("node01") and "first seen" in rack.timeline("node01")
    rack.stop()
    rack.start()
    assert rack.head.node(mac)["name"] == "node01" and rack.head.roster.by_mac(old) is None


def test_it_is_another_machine(rack: Rack) -> None:
    _, mac = swapped(rack)
    rack.head.other(mac)
    assert rack.head.node(mac)["conflict"] == ""
    assert [row["name"] for row in rack.head.approve([mac])] == ["node02"]
    rack.stop()
    rack.start()
    assert rack.head.node("node02")["conflict"] == ""


def test_what_is_no_question(rack: Rack) -> None:
    rack.approved()
    rack.machine(2).boot()
    for ref in ("#2", "node01"):
        with pytest.raises(Wrong):
            rack.head.other(ref)
    with pytest.raises(Wrong):
        rack.head.same("node01", "#2")
