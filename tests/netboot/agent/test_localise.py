"""netboot.agent.localise on a fixture tree, with partitions that are files."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from images.errors import GildError
from netboot.agent import localise
from netboot.plan import DiskRule, Edit, InstallPlan, LayoutPart, Network
from netboot.report import Disk, Facts
from tests.images import systems

LAYOUT = (
    LayoutPart("bios", "bios", "1MiB"),
    LayoutPart("esp", "esp", "64MiB", fs="vfat", mount="/boot/efi"),
    LayoutPart("swap", "swap", "256MiB", fs="swap", mount="swap"),
    LayoutPart("root", "linux", "rest", fs="ext4", mount="/", role="root"),
)
UUID = "95fd9a78-4a9f-561d-aead-869354627bb8"


def plan(*edits: Edit) -> InstallPlan:
    return InstallPlan(
        order="1", node="n01", image="debian:1", manifest="", sources=(), disk=DiskRule(), layout=LAYOUT,
        network=Network("52:54:00:00:00:01", "10.7.0.11", 24), edits=edits, boot=(),
    )  # fmt: skip


def disk_of_files(tmp_path: Path) -> Facts:
    """A disk whose partitions are the files disk2, disk3 and disk4 beside it."""
    for number, size in ((2, 40), (3, 1), (4, 2)):
        with (tmp_path / f"disk{number}").open("wb") as file:
            file.truncate(size << 20)
    for command in (
        ["mkfs.vfat", "-F", "32", "-i", "ABCD1234", "disk2"],
        ["mkswap", "-q", "-U", UUID.replace("9", "8"), "disk3"],
        ["mke2fs", "-q", "-F", "-t", "ext4", "-U", UUID, "disk4"],
    ):
        subprocess.run(command, cwd=tmp_path, check=True, capture_output=True)
    return Facts(disks=(Disk(str(tmp_path / "disk"), 1 << 30, driver="ahci"),))


def test_the_plans_edits_are_applied_with_the_uuids_of_this_disk(tmp_path: Path) -> None:
    facts, root = disk_of_files(tmp_path), systems.debian(tmp_path / "root")
    lines: list[str] = []
    localise.fit(str(root), plan(Edit("hostname", {"name": "n01"}), Edit("fstab", {})), facts, lines.append)
    assert (root / "etc/hostname").read_text() == "n01\n"
    assert (root / "etc/fstab").read_text().splitlines() == [
        f"UUID={UUID} / ext4 defaults,errors=remount-ro 0 1",
        "UUID=ABCD-1234 /boot/efi vfat umask=0077,nofail 0 2",
        f"UUID={UUID.replace('9', '8')} none swap sw,nofail 0 0",
    ]
    assert lines[0] == "the tree is debian 12 (debian), init systemd, network networkd"
    assert "fstab: /, /boot/efi, swap by UUID" in lines


def test_a_tree_that_starts_nothing_is_refused_and_a_missing_link_is_told(tmp_path: Path) -> None:
    facts, root = disk_of_files(tmp_path), systems.debian(tmp_path / "root")
    lines: list[str] = []
    (root / "usr/sbin/init").unlink()
    localise.fit(str(root), plan(Edit("hostname", {"name": "n01"})), facts, lines.append)
    assert any("no /sbin/init" in line for line in lines)
    (root / "usr/lib/systemd/systemd").unlink()
    with pytest.raises(GildError, match="debian:1 cannot be fitted to a machine: nothing in it starts a machine"):
        localise.fit(str(root), plan(Edit("hostname", {"name": "n02"})), facts, print)
    assert (root / "etc/hostname").read_text() == "n01\n"


def test_a_partition_without_a_filesystem_and_an_unknown_edit_stop_it(tmp_path: Path) -> None:
    facts, root = disk_of_files(tmp_path), systems.debian(tmp_path / "root")
    with pytest.raises(GildError, match="no edit 'polish'"):
        localise.fit(str(root), plan(Edit("polish", {})), facts, print)
    (tmp_path / "disk3").write_bytes(bytes(1 << 20))
    with pytest.raises(GildError, match=r"partition swap of .* no filesystem"):
        localise.fit(str(root), plan(Edit("fstab", {})), facts, print)
