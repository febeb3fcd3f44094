"""Kernels, initramfs and firmware: what makes a version start few machines, or none."""

from __future__ import annotations

import lzma
from pathlib import Path

import pytest

from images.checks import drivers
from images.checks.drivers import CLOUD
from tests.images import trees
from tests.images.checks.looked import look
from tests.images.systems import link, put
from tests.images.tinytree import KERNEL, NETWORK, STORAGE, newc, tiny_tree

SYSTEMS = trees.load()


def test_a_kernel_with_all_drivers_is_sound(tmp_path: Path) -> None:
    root = tiny_tree(tmp_path / "tree")
    assert look(drivers.kernels, root) == {} and look(drivers.initramfs, root) == {}


def test_a_cloud_kernel_cannot_boot_real_machines(tmp_path: Path) -> None:
    root = tiny_tree(tmp_path / "tree", modules=("virtio_blk", "nvme", "virtio_net"))
    (root / "usr/lib/modules" / KERNEL).rename(root / "usr/lib/modules/6.1.0-9-cloud-amd64")
    (root / "boot" / f"vmlinuz-{KERNEL}").rename(root / "boot/vmlinuz-6.1.0-9-cloud-amd64")
    (check,) = look(drivers.kernels, root).values()
    assert check.severity == "error" and "ahci" in check.found and "e1000e" in check.found
    assert check.fix.startswith(CLOUD) and "apt-get install -y linux-image-amd64" in check.fix
    assert 'packages = ["linux-image-amd64"] in the recipe' in check.fix


def test_a_few_missing_drivers_are_a_warning_and_the_filesystems_an_error(tmp_path: Path) -> None:
    some = tuple(name for name in (*STORAGE, *NETWORK) if name not in ("tg3", "megaraid_sas"))
    root = tiny_tree(tmp_path / "tree", modules=some)
    (check,) = look(drivers.kernels, root).values()
    assert (check.found, check.severity) == (("megaraid_sas", "tg3"), "warning")
    (check,) = look(drivers.kernels, root, fs="xfs").values()
    assert check.severity == "error" and "xfs" in check.found


@pytest.mark.parametrize(
    ("release", "words"),
    [
        ("ID=debian", "apt-get install -y linux-image-arm64"),
        ("ID=fedora", "dnf install -y kernel"),
        ("ID=alpine", "apk add --no-cache linux-lts"),
        ("ID=plan9", "install a package such as linux-image-arm64"),
    ],
)
def test_the_tree_of_a_container_is_told_how_to_get_a_kernel(tmp_path: Path, release: str, words: str) -> None:
    put(tmp_path, "etc/os-release", release)
    check = look(drivers.kernels, tmp_path, arch="arm64")["kernel"]
    assert check.severity == "error" and "container" in check.found[0] and words in check.fix


def test_kernels_and_modules_belong_together(tmp_path: Path) -> None:
    root = tiny_tree(tmp_path / "tree")
    put(root, "boot/vmlinuz-5.10.0-1-amd64", "old")
    put(root, "boot/vmlinuz-0-rescue-0f0f", "the same kernel again")
    link(root, "boot/vmlinuz-link", f"vmlinuz-{KERNEL}")
    put(root, "usr/lib/modules/4.19.0/modules.builtin")
    found = look(drivers.kernels, root)
    assert found["kernels without modules"].found == ("boot/vmlinuz-5.10.0-1-amd64",)
    assert found["kernels without modules"].severity == "warning"
    assert found["modules without a kernel"].found == ("usr/lib/modules/4.19.0",)
    put(root, "boot/vmlinuz-7.0.0", "this one starts first")
    assert look(drivers.kernels, root)["kernels without modules"].severity == "error"


def test_only_kernels_without_modules(tmp_path: Path) -> None:
    put(tmp_path, "boot/vmlinuz-5.10", "kernel")
    check = look(drivers.kernels, tmp_path)["kernel"]
    assert check.found == ("no kernel with modules", "boot/vmlinuz-5.10") and check.severity == "error"


def test_an_initramfs_for_one_machine_says_what_it_lacks_and_how_it_is_made(tmp_path: Path) -> None:
    root = tiny_tree(tmp_path / "tree")
    put(root, f"boot/initrd.img-{KERNEL}", newc([f"usr/lib/modules/{KERNEL}/a/ahci.ko", "etc/machine-id"]))
    put(root, "usr/bin/dracut", "", 0o755)
    found = look(drivers.initramfs, root)
    check = found[f"initramfs of {KERNEL}"]
    assert check.severity == "error" and "nvme" in check.found and "ahci" not in check.found
    assert "-- dracut --no-hostonly --no-hostonly-cmdline --force --regenerate-all" in check.fix
    assert found[f"pins in the initramfs of {KERNEL}"].found == ("etc/machine-id",)
    put(root, f"boot/initrd.img-{KERNEL}", b"rubbish")
    assert "not a cpio archive" in look(drivers.initramfs, root)[f"initramfs of {KERNEL}"].found[0]


def test_no_initramfs_is_right_where_everything_is_built_in(tmp_path: Path) -> None:
    root = tiny_tree(tmp_path / "tree")
    (root / "boot" / f"initrd.img-{KERNEL}").unlink()
    (check,) = look(drivers.initramfs, root).values()
    assert check.severity == "error" and "ahci" in check.found[0] and "ext4" not in check.found[0]
    built = "".join(f"kernel/drivers/{name}.ko\n" for name in (*STORAGE, "ext4"))
    put(root, f"usr/lib/modules/{KERNEL}/modules.builtin", built)
    assert look(drivers.initramfs, root) == {}


def test_an_old_kernels_initramfs_is_a_warning(tmp_path: Path) -> None:
    root = tiny_tree(tmp_path / "tree")
    old = "5.10.0-1-test"
    put(root, f"usr/lib/modules/{old}/modules.builtin")
    put(root, f"boot/vmlinuz-{old}", "kernel")
    found = look(drivers.initramfs, root)
    assert [(check.name, check.severity) for check in found.values()] == [(f"initramfs of {old}", "warning")]


def test_firmware_is_missed_by_what_the_modules_ask_for(tmp_path: Path) -> None:
    root = tiny_tree(tmp_path / "tree")
    base = f"usr/lib/modules/{KERNEL}/kernel/drivers"
    asks = b"\0license=GPL\0firmware=tigon/tg3.bin\0firmware=tigon/tg3_tso.bin\0depends=\0"
    put(root, f"{base}/tg3.ko", b"\x7fELF" + asks)
    put(root, f"{base}/r8169.ko.xz", lzma.compress(b"\x7fELF\0firmware=rtl_nic/rtl8168d-1.fw\0"))
    put(root, f"{base}/bnx2.ko.xz", b"\xfd7zXZ\0 cut")
    listed = "".join(f"kernel/drivers/{name}:\n" for name in ("tg3.ko", "r8169.ko.xz", "bnx2.ko.xz", "../../../x.ko"))
    put(root, f"usr/lib/modules/{KERNEL}/modules.dep", listed)
    (check,) = look(drivers.firmware, root).values()
    assert check.found == ("tg3", "r8169") and check.severity == "info"
    assert "firmware-misc-nonfree firmware-realtek" in check.fix and "non-free-firmware" in check.fix
    put(root, "lib/firmware/tigon/tg3_tso.bin", "x")
    put(root, "lib/firmware/rtl_nic/rtl8168d-1.fw.xz", "x")
    assert look(drivers.firmware, root) == {}
