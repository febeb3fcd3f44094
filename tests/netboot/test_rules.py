"""Rules of approval: conditions read and refused, and the first that fits."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from images.errors import GildError
from netboot.node import Node
from netboot.report import Disk, Facts
from netboot.rules import MAX_CONDITIONS, WAIT, Rule, RuleInvalid, check_rule, first, fits, parse_conditions

GIB = 1 << 30
FACTS = Facts(
    "uefi", vendor="Dell Inc.", product="PowerEdge R640", cores=32, arch="x86_64", memory=62 * GIB,
    disks=(Disk("/dev/sda", 480_000_000_000, "S", "1", bus="sata"),
           Disk("/dev/sdb", 2_000_000_000_000, "S", "2", bus="sata"),
           Disk("/dev/sdc", 64_000_000_000, "Stick", "3", bus="usb", removable=True)),
)  # fmt: skip
NODE = Node(3, macs=("ac:1f:6b:00:00:01", "ac:1f:6b:00:00:02"), serial="7GK3T53", address="10.2.0.30", facts=FACTS)


def rule(*words: str, **more: object) -> Rule:
    return check_rule(Rule(1, parse_conditions(words), **more))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("word", "so"),
    [
        ("vendor=dell*", True), ("vendor=*R640", True), ("vendor=HP*", False), ("serial=7GK*", True),
        ("serial=8*", False), ("mac=ac:1f:6b", True), ("mac=AC-1F-6B", True), ("mac=ac:1f:6b:00:00:02", True),
        ("mac=52:54", False),
        ("mac=ac:1", None), ("memory=48GiB+", True), ("memory=64GiB+", False), ("memory=32GiB-64GiB", True),
        ("memory=64GiB", None), ("cores=32", True), ("cores=16", False), ("cores=16+", True), ("cores=8-16", False),
        ("disks=2", True), ("disks=3+", False), ("disks=1-4", True), ("disk=1TB+", True), ("disk=3TB+", False),
        ("disk=100GB-500GB", False), ("firmware=uefi", True), ("firmware=bios", False), ("arch=x86_64", True),
        ("subnet=10.2.0.0/16", True), ("subnet=10.3.0.0/16", False), ("subnet=10.2.0.99/24", True),
    ],
)  # fmt: skip
def test_conditions(word: str, so: bool | None) -> None:
    if so is None:
        with pytest.raises(RuleInvalid):
            rule(word)
    else:
        assert fits(rule(word), NODE) is so


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["colour=red"], "known are vendor"), (["vendor"], "not a condition"), (["vendor="], "1 to 64"),
        (["vendor=\x1b[2J"], "plain characters"), (["memory=lots+"], "64GiB\\+"), (["memory=64GiB-8GiB"], "64GiB\\+"),
        (["cores=-1"], "cores"), (["cores=4-+"], "cores"), (["subnet=10.2"], "10.2.0.0/16"),
        (["firmware=efi"], "bios or uefi"),
        (["cores=4", "cores=5"], "twice"),
    ],
)  # fmt: skip
def test_what_cannot_be_a_condition(words: list[str], says: str) -> None:
    with pytest.raises(RuleInvalid) as raised:
        parse_conditions(words)
    assert re.search(says, f"{raised.value.message} {raised.value.hint}")
    assert "\x1b" not in raised.value.message


def test_what_a_rule_cannot_do() -> None:
    for more in ({"names": "node"}, {"names": "No{n}"}, {"act": "erase"}, {"groups": ("A B",)}):
        with pytest.raises(GildError):
            rule("cores=4", **more)
    with pytest.raises(RuleInvalid):
        check_rule(Rule(1, (("vendor", "x"),) * (MAX_CONDITIONS + 1)))


def test_the_first_that_fits_decides() -> None:
    rules = [rule("vendor=HP*"), rule("cores=16+", "vendor=Dell*", act=WAIT), rule()]
    assert first(rules, NODE) is rules[1]
    assert first(rules, replace(NODE, facts=replace(FACTS, vendor="Acme"))) is rules[2]
    assert first(rules[:2], replace(NODE, facts=replace(FACTS, vendor="Acme"))) is None


def test_nobody_fits_before_its_hardware_is_known() -> None:
    assert not fits(rule(), replace(NODE, facts=None))


@given(st.lists(st.text(max_size=20), max_size=4))
def test_any_words_are_a_rule_or_refused(words: list[str]) -> None:
    try:
        conditions = parse_conditions(words)
    except RuleInvalid:
        return
    fits(Rule(1, conditions), NODE)
