"""Blank machines of several kinds find the head by themselves and show what they are made of."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.lab.lab import Lab

pytestmark = pytest.mark.lab
SECONDS = 240.0  # 15 on a quiet machine; emulation on a busy one takes many times as long


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
        for kind, machine in machines.items():
            row = rows[machine.mac]
            assert (row["state"], row["firmware"]) == ("waiting", kind)
            shown = lab.gild("node", "show", machine.mac, "--json")
            (disk,) = shown["facts"]["disks"]
            assert disk["serial"] == f"{kind}-disk"
            assert disk["size"] == machine.disk.stat().st_size
            # Seen, and not touched.
            assert machine.disk.stat().st_blocks == 0
