"""The tools of the distributions: which one it is, what it is told, and what a person would type."""

from __future__ import annotations

from pathlib import Path

import pytest

from images.rebuild import TOOLS, by_hand, command, tool_of, widen
from images.tree import Tree
from tests.images import trees
from tests.images.systems import put

SYSTEMS = trees.load()


@pytest.mark.parametrize("name", [name for name, system in SYSTEMS.items() if system.all("is")])
def test_every_system_has_the_tool_it_is_said_to_have(tmp_path: Path, name: str) -> None:
    root = SYSTEMS[name].build(tmp_path / "root")
    wanted = " ".join(SYSTEMS[name].all("is")[0]).split()[-1].replace("-", "") or ""
    tool = tool_of(Tree(str(root)), by_dracut=wanted == "dracut")
    assert tool.replace("-", "") == wanted and (not tool or by_hand(tool))


def test_the_drivers_of_all_machines_are_configured_where_no_argument_does_it(tmp_path: Path) -> None:
    tree = Tree(str(tmp_path))
    conf = put(tmp_path, "etc/initramfs-tools/initramfs.conf", "# MODULES=dep\nMODULES=dep\nBUSYBOX=auto\n")
    policy = put(tmp_path, "etc/initramfs-tools/conf.d/driver-policy", "MODULES=dep\n")
    assert len(widen(tree, "update-initramfs", "ext4")) == 2 and not policy.exists()
    assert conf.read_text() == "# MODULES=dep\nMODULES=most\nBUSYBOX=auto\n"
    put(tmp_path, "etc/initramfs-tools/conf.d/driver-policy", "MODULES=most\n")
    assert widen(tree, "update-initramfs", "ext4") == [] and policy.exists()
    features = put(tmp_path, "etc/mkinitfs/mkinitfs.conf", 'features="ata base mine ext4"\nother=1\n')
    assert widen(tree, "mkinitfs", "xfs") == ["etc/mkinitfs/mkinitfs.conf"]
    assert features.read_text() == 'features="ata base mine ext4 nvme raid scsi usb virtio mmc xfs"\nother=1\n'
    assert widen(tree, "mkinitfs", "xfs") == [] == widen(tree, "dracut", "xfs") == widen(tree, "mkinitcpio", "xfs")


def test_commands_name_kernel_and_file() -> None:
    path = "boot/initrd.img-6.1"
    assert command("update-initramfs", "6.1", path, exists=True) == ["update-initramfs", "-u", "-k", "6.1"]
    assert command("update-initramfs", "6.1", path, exists=False)[1] == "-c"
    for tool in TOOLS[1:]:
        argv = command(tool, "6.1", path, exists=True)
        assert argv[0] == tool and "6.1" in argv and f"/{path}" in argv
    assert {"--no-hostonly", "--no-hostonly-cmdline"} < set(command("dracut", "6.1", path, exists=True))
