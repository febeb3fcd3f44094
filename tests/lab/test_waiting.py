"""Blank machines of several kinds find the head by themselves and show what they are made of."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from scapy.contrib import lldp as oracle

from netboot import lldp
from tests.lab.lab import Lab, Machine
from tests.netboot.test_lldp import NAME, frame

pytestmark = pytest.mark.lab
SECONDS = 240.0  # 15 on a quiet machine; emulation on a busy one takes many times as long


def switch_says(lab: Lab, machine: Machine, port: str) -> None:
    """An LLDP frame on the machine's own cable, as a switch sends it there every half minute."""
    body = frame(NAME, port=oracle.LLDPDUPortID(subtype=5, id=port.encode()))
    to = (machine.tap, lldp.PROTOCOL, 0, 1, lldp.GROUP)
    send = f"import socket; s = socket.socket(17, 2, 0); s.sendto({body!r}, {to!r})"
    lab.inside(sys.executable, "-c", send)


def test_bios_and_uefi_machines_reach_the_waiting_room(pyz: Path) -> None:
    with Lab() as lab:
        lab.head()
        machines = {
            "bios": lab.machine("bios", "bios", disk_size="3G", bus="nvme", nic="e1000"),
            "uefi": lab.machine("uefi", "uefi", disk_size="4G", bus="ahci"),
        }
        for machine in machines.values():
            machine.start()

        def seen() -> dict[str, dict[str, object]]:
            rows = {row["mac"]: row for row in lab.gild("node", "list", "--json")}
            return rows if len(rows) == 2 and all(row["machine"] for row in rows.values()) else {}

        rows = lab.wait(seen, SECONDS, "two machines to show their hardware", every=1.0)

        def seated() -> bool:
            for number, machine in enumerate(machines.values(), 1):
                switch_says(lab, machine, f"Gi1/0/{number}")
            ports = {row["mac"]: row["ports"] for row in lab.gild("node", "list", "--json")}
            return all(ports.values())

        lab.wait(seated, SECONDS, "the machines to hear their switch", every=3.0)
        for kind, machine in machines.items():
            row = rows[machine.mac]
            assert (row["state"], row["firmware"]) == ("waiting", kind)
            number = list(machines).index(kind) + 1
            assert lab.gild("node", "show", machine.mac, "--json")["ports"] == [f"sw1.example:Gi1/0/{number}"]
            shown = lab.gild("node", "show", machine.mac, "--json")
            (disk,) = shown["facts"]["disks"]
            assert disk["serial"] == f"{kind}-disk"
            assert disk["size"] == machine.disk.stat().st_size
            # Seen, and not touched.
            assert machine.disk.stat().st_blocks == 0
