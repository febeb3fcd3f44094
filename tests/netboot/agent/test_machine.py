"""The real machine, as far as it may be touched: command line, mounts, the kernel's log."""

from __future__ import annotations

from pathlib import Path

import pytest

from images.errors import TargetFailed
from netboot.agent.machine import KERNEL_LINES, Machine
from tests.netboot.agent.loopdisk import needs_root


def test_words_of_the_command_line(tmp_path: Path) -> None:
    (tmp_path / "cmdline").write_text("quiet BOOTIF=01-aa console=tty0 console=ttyS0,115200 gild.ip=10.0.0.1/24\n")
    words = Machine(proc=str(tmp_path)).words()
    assert words["quiet"] == "" and words["console"] == "ttyS0,115200" and words["gild.ip"] == "10.0.0.1/24"


def test_the_last_words_of_the_kernel(tmp_path: Path) -> None:
    (tmp_path / "kmsg").write_text("6,339,5140900,-;NET: Registered\n DEVICE=+pci:0000:00:05.0\n")
    assert Machine(dev=str(tmp_path)).kernel_lines() == ["kernel: NET: Registered"]
    (tmp_path / "kmsg").write_text("5,1,0,-;Command line: quiet gild.token=5ec7e7 BOOTIF=x\n")
    assert Machine(dev=str(tmp_path)).kernel_lines() == ["kernel: Command line: quiet gild.token=... BOOTIF=x"]
    assert Machine(dev=str(tmp_path / "gone")).kernel_lines() == []
    assert len(Machine().kernel_lines()) <= KERNEL_LINES


@pytest.mark.root
@needs_root[1]
def test_mounts_are_undone_in_order_and_failures_named(tmp_path: Path) -> None:
    machine = Machine()
    machine.mount("tmpfs", str(tmp_path / "a"), "tmpfs")
    machine.mount("tmpfs", str(tmp_path / "a/b"), "tmpfs")
    with pytest.raises(TargetFailed, match=r"mounting /dev/nothing .ext4. at .* failed"):
        machine.mount("/dev/nothing", str(tmp_path / "c"), "ext4")
    (tmp_path / "a/held").write_text("x")
    with (tmp_path / "a/held").open(), pytest.raises(TargetFailed, match="busy"):
        machine.unmount_all()
    machine.unmount_all()
    assert str(tmp_path) not in Path("/proc/mounts").read_text()
    machine.unmount_all()  # nothing left: nothing to do
