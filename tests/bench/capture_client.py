"""A golden client: the agent's whole story on one disk, in a process of its own. FOLDER DISK MAC."""

from __future__ import annotations

import os
import sys
from dataclasses import replace
from pathlib import Path

from netboot.agent import facts
from netboot.agent.__main__ import story
from netboot.report import Disk
from tests.netboot.agent.lightnode import LightMachine


def main(folder: str, disk: str, mac: str) -> int:
    """0 once the head has taken everything."""
    at = Path(folder)

    def disks() -> tuple[Disk, ...]:
        return (replace(facts.read_disk(os.path.basename(disk)), serial="BENCH"),)

    machine = LightMachine(etc=str(at / "etc"), run=str(at / "run"), mnt=str(at / "mnt"))
    machine.disks = disks
    machine.command = {"BOOTIF": "01-" + mac.replace(":", "-")}
    code = story(machine)
    if machine.left != "reboot":
        print("\n".join(machine.screen))
        return 1
    return code


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
