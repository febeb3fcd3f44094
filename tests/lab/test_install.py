"""Blank machines become nodes: from power-on to "up", with the head's own record as the verdict."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.lab.demo import IMAGE, debian
from tests.lab.lab import ROOT, Lab, Machine

pytestmark = [pytest.mark.lab, pytest.mark.timeout(1800)]
SECONDS = 420.0  # one machine from order to up takes 80 on a quiet machine with emulated processors


def lab_with_image() -> Lab:
    """A lab whose state keeps the image between runs: building it takes longer than installing it."""
    return Lab(state=ROOT / ".build" / "demo", keep_images=True)


def ordered(lab: Lab, machines: list[Machine], finish: str) -> None:
    """Switch machines on, approve them when they wait, and order them."""
    for machine in machines:
        machine.start()

    def waiting() -> bool:
        rows = lab.gild("node", "list", "--json")
        return len(rows) == len(machines) and all(row["state"] == "waiting" and row["machine"] for row in rows)

    lab.wait(waiting, SECONDS, "machines in the waiting room", every=1.0)
    lab.gild("node", "approve", "--all")
    lab.gild("node", "install", "--all", "--image", IMAGE, "--finish", finish, "--yes")


def row(lab: Lab, name: str) -> Any:
    return lab.gild("node", "show", name, "--json")


def all_up(lab: Lab, count: int) -> bool:
    states = [node["state"] for node in lab.gild("node", "list", "--json")]
    assert "failed" not in states and "lost" not in states, lab.story()
    return states.count("up") == count


def texts(lab: Lab, name: str) -> list[str]:
    return [event["text"] for event in lab.gild("node", "log", name, "--json")]


def is_a_node(lab: Lab, name: str) -> None:
    """The installed system itself said who it is, from its own disk."""
    node = row(lab, name)
    assert node["state"] == "up" and node["image"].startswith("debian:")
    assert node["home"]["hostname"] == name
    assert node["address"] in [address.partition("/")[0] for address in node["home"]["address"].split()]
    assert node["home"]["root"].startswith("/dev/")
    assert set(node["seconds_to"]) == {"hello", "written", "up"}


def test_two_bios_machines_at_once_by_kexec(pyz: Path) -> None:
    with lab_with_image() as lab:
        debian(lab)
        lab.head()
        ordered(lab, [lab.machine(f"k{n}", "bios", disk_size="4G") for n in (1, 2)], "kexec")
        lab.wait(lambda: all_up(lab, 2), 2 * SECONDS, "two nodes up", every=2.0)
        for name in ("node01", "node02"):
            is_a_node(lab, name)
        one, other = row(lab, "node01"), row(lab, "node02")
        assert one["address"] != other["address"]
        assert one["home"]["boot_id"] != other["home"]["boot_id"]


def test_bios_by_reboot_with_the_head_restarted_in_the_middle(pyz: Path) -> None:
    with lab_with_image() as lab:
        debian(lab)
        head = lab.head()
        ordered(lab, [lab.machine("b1", "bios", disk_size="5G", bus="ahci")], "reboot")
        lab.wait(lambda: row(lab, "node01")["done"] > 100 << 20, SECONDS, "100 MiB on the disk", every=0.5)
        head.kill()
        head.start()
        lab.wait(lambda: all_up(lab, 1), SECONDS, "the node up", every=2.0)
        is_a_node(lab, "node01")
        told = texts(lab, "node01")
        # The network stays first in its boot order, and sends it to its own disk.
        assert any(text.startswith("is sent to its own disk") for text in told)
        assert sum(text.startswith("takes the plan") for text in told) == 1
        # A machine that is up, switched off and on again, comes back from its disk without being touched.
        lab.machines[0].power_cycle()
        lab.wait(
            lambda: sum(text.startswith("is sent to its own disk") for text in texts(lab, "node01")) >= 2,
            SECONDS, "the node to be sent to its disk again", every=1.0,
        )  # fmt: skip
        assert row(lab, "node01")["state"] == "up"


def test_uefi_by_reboot_with_the_power_cut_in_the_middle(pyz: Path) -> None:
    with lab_with_image() as lab:
        debian(lab)
        lab.head()
        machine = lab.machine("u1", "uefi", disk_size="4G")
        ordered(lab, [machine], "reboot")
        lab.wait(lambda: row(lab, "node01")["done"] > 150 << 20, SECONDS, "150 MiB on the disk", every=0.5)
        machine.power_cycle()
        lab.wait(lambda: all_up(lab, 1), 2 * SECONDS, "the node up", every=2.0)
        is_a_node(lab, "node01")
        told = texts(lab, "node01")
        assert sum(text.startswith("takes the plan") for text in told) == 2
        # It went on from what was on the disk already.
        kept = next(text for text in reversed(told) if text.startswith("root: ") and " MB kept" in text)
        assert int(kept.split(" MB kept")[0].rpartition(" ")[2]) > 50
        assert any("UEFI" in text for text in told)
