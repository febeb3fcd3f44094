"""Disk rules: one answer or none, and words that show every disk that was seen."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from netboot.disks import DiskRuleFailed, choose, describe, refusal
from netboot.plan import DiskRule
from netboot.report import Disk

GB = 10**9
NVME = Disk("/dev/nvme0n1", 960 * GB, "SAMSUNG MZQL2960", "S64A", "eui.00253851b1000001", "nvme", content="empty")
SSD = Disk("/dev/sda", 480 * GB, "INTEL SSDSC2KB48", "PHYF1", "naa.55cd2e4150000001", "sata")
HDD_B = Disk("/dev/sdb", 4000 * GB, "ST4000NM", "ZC1", "naa.5000c500a0000001", "sas", rotational=True)
HDD_C = replace(HDD_B, path="/dev/sdc", serial="ZC2", wwn="naa.5000c500a0000002")
STICK = Disk("/dev/sdd", 16 * GB, "Cruzer", "AA01", bus="usb", removable=True)
USB_DISK = Disk("/dev/sde", 2000 * GB, "My Passport", "WX1", bus="usb")
ALL = (NVME, SSD, HDD_B, HDD_C, STICK, USB_DISK)


@pytest.mark.parametrize(
    ("rule", "path"),
    [
        (DiskRule(pick="smallest"), "/dev/sda"),
        (DiskRule(bus=("nvme",)), "/dev/nvme0n1"),
        (DiskRule(serial="ZC2"), "/dev/sdc"),
        (DiskRule(wwn="0x5000C500A0000001"), "/dev/sdb"),
        (DiskRule(model="intel ssd*"), "/dev/sda"),
        (DiskRule(rotational=False, pick="largest"), "/dev/nvme0n1"),
        (DiskRule(min_size=500 * GB, max_size=1000 * GB), "/dev/nvme0n1"),
        (DiskRule(bus=("usb",)), "/dev/sde"),
        (DiskRule(serial="WX1"), "/dev/sde"),
    ],
)
def test_rules_that_find_one(rule: DiskRule, path: str) -> None:
    assert choose(ALL, rule).path == path


@pytest.mark.parametrize(
    ("rule", "words"),
    [
        (DiskRule(), "4 disks equally fit"),
        (DiskRule(pick="largest"), "2 disks are the largest.*ZC1.*ZC2"),
        (DiskRule(serial="GONE"), "no disk fits the rule .serial GONE.*PHYF1.*another serial.*removable"),
        (DiskRule(serial="AA01"), "removable"),
        (DiskRule(min_size=9000 * GB), "too small"),
        (DiskRule(pick="first"), "picks 'first'"),
        (DiskRule(min_size=2, max_size=1), "below its minimum"),
    ],
)
def test_rules_that_stop_the_installation(rule: DiskRule, words: str) -> None:
    with pytest.raises(DiskRuleFailed, match=words):
        choose(ALL, rule)


def test_no_disk_at_all_and_very_many() -> None:
    with pytest.raises(DiskRuleFailed, match="no disk at all"):
        choose((), DiskRule())
    many = [replace(HDD_B, path=f"/dev/sd{n}", serial=f"S{n}") for n in range(400)]
    with pytest.raises(DiskRuleFailed, match="and 388 more") as told:
        choose(many, DiskRule())
    assert len(told.value.message) < 2500


def test_a_pinned_disk_that_is_gone_is_never_replaced_by_the_next() -> None:
    with pytest.raises(DiskRuleFailed):
        choose((SSD,), DiskRule(serial="S64A", pick="smallest"))


def test_describe_is_one_printable_line() -> None:
    assert describe(NVME) == "nvme0n1 960 GB nvme SAMSUNG MZQL2960 serial S64A (empty)"
    assert describe(HDD_B) == "sdb 4.0 TB sas disk ST4000NM serial ZC1"
    hostile = replace(SSD, model="\x1b[2Jevil\nline", serial="x" * 5000)
    assert describe(hostile).isprintable() and len(describe(hostile)) < 300


disk = st.builds(
    Disk,
    path=st.sampled_from(["/dev/sda", "/dev/sdb", "/dev/vda"]),
    size=st.integers(0, 3).map(lambda n: n * 100 * GB),
    serial=st.sampled_from(["", "A", "B"]),
    bus=st.sampled_from(["", "usb", "sata", "nvme"]),
    rotational=st.booleans(),
    removable=st.booleans(),
)
rule = st.builds(
    DiskRule,
    serial=st.sampled_from(["", "A", "C"]),
    bus=st.sampled_from([(), ("usb",), ("sata", "nvme")]),
    min_size=st.sampled_from([0, 150 * GB]),
    rotational=st.sampled_from([None, True, False]),
    pick=st.sampled_from(["only", "smallest", "largest"]),
)


@given(st.lists(disk, max_size=5), rule)
def test_the_chosen_disk_always_fits_and_is_never_removable(disks: list[Disk], rule: DiskRule) -> None:
    try:
        chosen = choose(disks, rule)
    except DiskRuleFailed:
        return
    assert not chosen.removable and chosen.size > 0 and refusal(chosen, rule) == ""
    fit = [disk for disk in disks if not refusal(disk, rule)]
    if rule.pick == "only":
        assert len(fit) == 1
    else:
        assert sum(disk.size == chosen.size for disk in fit) == 1
