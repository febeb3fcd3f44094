"""netboot.agent.drivers on fixture trees with real, small initramfs archives."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from images.tree import Tree
from netboot.agent import drivers
from netboot.report import Disk, Facts
from tests.images.systems import link, put
from tests.images.tinytree import newc

KERNEL = "6.1.0-9-amd64"
DRACUT = (
    f"dracut --force --no-hostonly --no-hostonly-cmdline --add-drivers ahci --kver {KERNEL} /boot/initrd.img-{KERNEL}"
)
BASE = f"usr/lib/modules/{KERNEL}"


def tree(root: Path, inside: tuple[str, ...], there: tuple[str, ...] = (), builtin: tuple[str, ...] = ()) -> Path:
    put(root, f"boot/vmlinuz-{KERNEL}", "MZ")
    put(root, f"boot/initrd.img-{KERNEL}", newc([f"{BASE}/kernel/drivers/{name}.ko" for name in inside]))
    put(root, f"{BASE}/modules.builtin", "".join(f"kernel/drivers/{name}.ko\n" for name in builtin))
    for name in (*inside, *there):
        put(root, f"{BASE}/kernel/drivers/{name}.ko.xz", "")
    return root


@pytest.mark.parametrize("driver, inside, builtin", [
    ("nvme", ("nvme",), ()), ("nvme", (), ("nvme",)), ("ahci", ("ahci", "sd_mod"), ()),
    ("ahci", ("ahci",), ("sd_mod",)),
    ("megaraid_sas", ("megaraid_sas", "sd_mod"), ()), ("virtio_blk", ("virtio-blk", "virtio_pci"), ()),
])  # fmt: skip
def test_a_driver_in_the_initramfs_or_the_kernel_is_enough(
    tmp_path: Path, driver: str, inside: tuple[str, ...], builtin: tuple[str, ...]
) -> None:
    lines: list[str] = []
    drivers.check_drivers(
        str(tree(tmp_path, inside, builtin=builtin)), Disk("/dev/none0", 1, driver=driver), Facts(), lines.append
    )
    assert lines and lines[0].startswith(f"kernel {KERNEL} has {driver}")


def test_a_kernel_that_has_no_such_driver_is_refused_with_both_named(tmp_path: Path) -> None:
    root = tree(tmp_path, ("virtio_blk", "virtio_pci"))
    with pytest.raises(drivers.DriverMissing) as caught:
        drivers.check_drivers(str(root), Disk("/dev/none0", 1, driver="ahci"), Facts(), print)
    assert f"the initramfs of kernel {KERNEL} lacks the driver ahci, sd_mod for disk /dev/none0" in caught.value.message
    assert "linux-image-amd64" in caught.value.hint


def test_without_a_tool_or_with_a_damaged_initramfs_it_is_refused(tmp_path: Path) -> None:
    root = tree(tmp_path, ("sd_mod",), ("ahci",))
    with pytest.raises(drivers.DriverMissing, match=r"lacks the driver ahci .*making it anew failed: the image has no"):
        drivers.check_drivers(str(root), Disk("/dev/none0", 1, driver="ahci"), Facts(), print)
    put(root, f"boot/initrd.img-{KERNEL}", b"070701 damaged")
    with pytest.raises(drivers.DriverMissing, match=f"/boot/initrd.img-{KERNEL} of the image cannot be checked"):
        drivers.check_drivers(str(root), Disk("/dev/none0", 1, driver="ahci"), Facts(), print)


def sysfs(root: Path, *levels: tuple[str, str]) -> str:
    """A /sys with the disk none0 at the end of devices, each (name, module of its driver or "")."""
    at = root / "sys/devices"
    for name, module in levels:
        at /= name
        at.mkdir(parents=True)
        if module:
            driver = root / "sys/bus/x/drivers" / module
            driver.mkdir(parents=True, exist_ok=True)
            link(root, f"sys/bus/x/drivers/{module}/module", str(root / "sys/module" / module))
            link(at, "driver", str(driver))
    (at / "block/none0").mkdir(parents=True)
    link(root, "sys/class/block/none0", str(at / "block/none0"))
    return str(root / "sys")


def test_what_the_disk_hangs_on_is_wanted_too(tmp_path: Path) -> None:
    sys = sysfs(tmp_path, ("pci0000:00", ""), ("0000:00:0e.0", "vmd"), ("10000:01:00.0", "nvme"), ("nvme0", ""))
    assert drivers.chain("/dev/none0", sys) == ["nvme", "vmd"]
    assert drivers.chain("/dev/none1", sys) == []
    root = tree(tmp_path / "root", ("nvme",), ("vmd",))
    with pytest.raises(drivers.DriverMissing, match="lacks the driver vmd for disk /dev/none0"):
        drivers.check_drivers(str(root), Disk("/dev/none0", 1, driver="nvme"), Facts(), print, sys)
    lines: list[str] = []
    root = tree(tmp_path / "wide", ("nvme", "vmd"))
    drivers.check_drivers(str(root), Disk("/dev/none0", 1, driver="nvme"), Facts(), lines.append, sys)
    assert lines == [f"kernel {KERNEL} has nvme, vmd for /dev/none0"]


def test_the_filesystem_of_the_root_is_wanted_and_others_are_not(tmp_path: Path) -> None:
    root = os.path.realpath(tmp_path)
    mounts = put(
        tmp_path, "mounts", f"/dev/sda1 / ext4 rw 0 0\n/dev/sda4 {root} xfs rw 0 0\ntmpfs {root}/x tmpfs rw 0 0\n"
    )
    assert drivers.filesystem(str(tmp_path), str(mounts)) == ["xfs"]
    assert drivers.filesystem(f"{tmp_path}/x", str(mounts)) == []
    assert drivers.filesystem(f"{tmp_path}/y", str(mounts)) == []


def test_an_unknown_driver_is_told_and_no_kernel_is_refused(tmp_path: Path) -> None:
    lines: list[str] = []
    drivers.check_drivers(str(tree(tmp_path / "a", ())), Disk("/dev/none0", 1), Facts(), lines.append)
    assert "is not known here" in lines[0]
    (tmp_path / "b").mkdir()
    with pytest.raises(drivers.DriverMissing, match="no kernel"):
        drivers.check_drivers(str(tmp_path / "b"), Disk("/dev/none0", 1, driver="ahci"), Facts(), print)


@pytest.mark.parametrize("names, tool", [
    (("usr/sbin/update-initramfs", "usr/bin/dracut"), "update-initramfs"),
    (("usr/sbin/mkinitramfs", "usr/bin/dracut"), "dracut"),
    (("usr/bin/mkinitcpio",), "mkinitcpio"), (("sbin/mkinitfs",), "mkinitfs"), (("usr/lib/dracut/dracut-install",), ""),
])  # fmt: skip
def test_the_tool_is_told_by_its_program(tmp_path: Path, names: tuple[str, ...], tool: str) -> None:
    for name in names:
        put(tmp_path, name, "", 0o755)
    assert drivers.tool_of(Tree(str(tmp_path))) == tool


@pytest.mark.parametrize("tool, expected", [
    ("usr/sbin/update-initramfs", f"update-initramfs -u -k {KERNEL}"),
    ("usr/bin/dracut", DRACUT),
    ("usr/bin/mkinitcpio", f"mkinitcpio -k {KERNEL} -g /boot/initrd.img-{KERNEL} -S autodetect"),
    ("sbin/mkinitfs", f"mkinitfs -o /boot/initrd.img-{KERNEL} {KERNEL}"),
])  # fmt: skip
def test_a_narrow_initramfs_is_made_anew_by_the_images_own_tool(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tool: str, expected: str
) -> None:
    root = tree(tmp_path / "root", ("sd_mod",), ("ahci",))
    put(root, tool, "", 0o755)
    put(root, "etc/initramfs-tools/initramfs.conf", "# x\nMODULES=dep\n")
    put(root, "etc/initramfs-tools/conf.d/driver-policy", "MODULES=dep\n")
    put(root, "etc/mkinitfs/mkinitfs.conf", 'features="base ext4 scsi"\n')
    calls: list[str] = []

    def chroot(argv: list[str], **_: object) -> None:
        if argv[0] == "chroot":
            assert os.path.realpath(argv[1]) == os.path.realpath(root)
            calls.append(" ".join(argv[2:]))
            tree(root, ("ahci", "sd_mod"))

    monkeypatch.setattr(drivers, "run", chroot)
    lines: list[str] = []
    drivers.check_drivers(str(root), Disk("/dev/none0", 1, driver="ahci"), Facts(), lines.append)
    assert calls == [expected] and lines[-1] == "the new initramfs has ahci, sd_mod"
    if "update-initramfs" in tool:
        assert (root / "etc/initramfs-tools/initramfs.conf").read_text() == "# x\nMODULES=most\n"
        assert not (root / "etc/initramfs-tools/conf.d/driver-policy").exists()
        assert (root / "etc/initramfs-tools/modules").read_text() == "ahci\n"
    if "mkinitfs" in tool:
        assert (
            root / "etc/mkinitfs/mkinitfs.conf"
        ).read_text() == 'features="base ext4 scsi ata nvme raid usb virtio mmc"\n'


def test_a_tool_that_leaves_the_driver_out_is_no_success(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = tree(tmp_path, ("sd_mod",), ("ahci",))
    put(root, "usr/bin/dracut", "", 0o755)
    monkeypatch.setattr(drivers, "run", lambda *_, **__: None)
    with pytest.raises(drivers.DriverMissing, match="also after it was made anew"):
        drivers.check_drivers(str(root), Disk("/dev/none0", 1, driver="ahci"), Facts(), print)
