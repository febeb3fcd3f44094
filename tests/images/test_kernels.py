"""Kernels of a tree: which there are, by every distribution's names, what drives what, what ties them to a machine."""

from __future__ import annotations

from pathlib import Path

import pytest

from images.kernels import kernels, version_key
from tests.images.systems import put
from tests.images.tinytree import KERNEL, NETWORK, STORAGE, newc, tiny_tree


def test_a_kernel_with_all_drivers_is_generic(tmp_path: Path) -> None:
    (kernel,) = kernels(tiny_tree(tmp_path / "tree"))
    assert (kernel.version, kernel.vmlinuz, kernel.initrd) == (
        KERNEL,
        f"boot/vmlinuz-{KERNEL}",
        f"boot/initrd.img-{KERNEL}",
    )
    assert kernel.generic and "virtio_blk" in kernel.modules and "ext4" in kernel.modules
    assert kernel.as_dict()["generic"] is True and kernel.lacks("nvme", "ext4", "xfs") == ()


def test_a_driver_built_in_counts(tmp_path: Path) -> None:
    tree = tiny_tree(tmp_path / "tree", modules=tuple(n for n in (*STORAGE, *NETWORK) if n != "nvme"))
    put(tree, f"usr/lib/modules/{KERNEL}/modules.builtin", "kernel/drivers/nvme/host/nvme.ko\n")
    assert kernels(tree)[0].generic


def test_an_initramfs_for_one_machine_is_told_by_what_it_lacks_and_holds(tmp_path: Path) -> None:
    tree = tiny_tree(tmp_path / "tree")
    inside = [f"lib/modules/{KERNEL}/kernel/ahci.ko", "usr/lib/systemd/network/10-x.link", "conf/conf.d/resume"]
    inside += ["usr/lib/systemd/network/99-default.link", "etc/cmdline.d/95root-dev.conf", "usr/lib/dracut/hooks"]
    put(tree, f"boot/initrd.img-{KERNEL}", newc(inside))
    put(tree, "usr/lib/systemd/network/99-default.link")
    (kernel,) = kernels(tree)
    assert not kernel.generic and kernel.dracut and "nvme" in kernel.lacks("nvme", "ahci")
    assert kernel.pins == ("usr/lib/systemd/network/10-x.link", "conf/conf.d/resume", "etc/cmdline.d/95root-dev.conf")
    put(tree, f"boot/initrd.img-{KERNEL}", newc([*inside, "etc/machine-id"]))
    assert "etc/machine-id" not in kernels(tree)[0].pins  # dracut's is empty
    put(tree, f"boot/initrd.img-{KERNEL}", newc([*inside[:-1], "etc/machine-id"]))
    assert "etc/machine-id" in kernels(tree)[0].pins
    put(tree, "etc/initramfs-tools/conf.d/resume", "RESUME=UUID=1\n")
    assert "conf/conf.d/resume" not in kernels(tree)[0].pins


@pytest.mark.parametrize(
    ("version", "vmlinuz", "initrd"),
    [
        ("6.1.0-9-amd64", "boot/vmlinuz-6.1.0-9-amd64", "boot/initrd.img-6.1.0-9-amd64"),
        ("5.14.0-1.el9.x86_64", "boot/vmlinuz-5.14.0-1.el9.x86_64", "boot/initramfs-5.14.0-1.el9.x86_64.img"),
        ("6.4.0-1-default", "usr/lib/modules/6.4.0-1-default/vmlinuz", "boot/initrd-6.4.0-1-default"),
        ("6.6.1-0-lts", "boot/vmlinuz-lts", "boot/initramfs-lts"),
        ("6.9.1-arch1-1", "boot/vmlinuz-linux", "boot/initramfs-linux.img"),
        ("6.6.1-gentoo", "boot/kernel-6.6.1-gentoo", "boot/initramfs-6.6.1-gentoo.img"),
        ("6.8.5", "boot/0f0f/6.8.5/linux", "boot/0f0f/6.8.5/initrd"),
    ],
)
def test_every_distribution_has_its_own_names(tmp_path: Path, version: str, vmlinuz: str, initrd: str) -> None:
    put(tmp_path, f"usr/lib/modules/{version}/modules.builtin")
    if "arch" in version:
        put(tmp_path, f"usr/lib/modules/{version}/pkgbase", "linux\n")
    put(tmp_path, vmlinuz, "kernel")
    put(tmp_path, initrd, newc(["init"]))
    (kernel,) = kernels(tmp_path)
    assert (kernel.version, kernel.vmlinuz, kernel.initrd) == (version, vmlinuz, initrd)


def test_a_damaged_initramfs_is_said_and_stops_nothing(tmp_path: Path) -> None:
    tree = tiny_tree(tmp_path / "tree")
    put(tree, f"boot/initrd.img-{KERNEL}", newc(["init"])[:-20])
    (kernel,) = kernels(tree)
    assert kernel.damaged and "ends inside an archive" in kernel.unread and not kernel.generic


def test_hostile_names_are_no_kernels(tmp_path: Path) -> None:
    tree, outside = tiny_tree(tmp_path / "tree"), tmp_path / "outside"
    put(outside, "modules.builtin", "kernel/secret.ko\n")
    (tree / "usr/lib/modules/--all").mkdir()
    (tree / "usr/lib/modules/7.0").symlink_to(outside)
    (tree / "boot" / f"vmlinuz-{KERNEL}").unlink()
    (tree / "boot" / f"vmlinuz-{KERNEL}").symlink_to(outside / "modules.builtin")
    (kernel,) = kernels(tree)
    assert kernel.version == KERNEL and kernel.vmlinuz == ""
    assert kernels(tmp_path) == []


def test_versions_sort_as_people_read_them() -> None:
    assert sorted(["6.1.0-10", "6.1.0-9", "6.12.1", "5.10"], key=version_key) == [
        "5.10",
        "6.1.0-9",
        "6.1.0-10",
        "6.12.1",
    ]
