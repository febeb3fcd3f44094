"""Kernels of a tree: which there are, what drives what, and the finding for a kernel that cannot boot bare metal."""

from __future__ import annotations

from pathlib import Path

from images.kernels import CLOUD_HINT, check_kernels, kernels, version_key
from tests.images.tinytree import KERNEL, NETWORK, STORAGE, newc, tiny_tree


def test_a_kernel_with_all_drivers_is_sound(tmp_path: Path) -> None:
    tree = tiny_tree(tmp_path / "tree")
    (kernel,) = kernels(tree)
    assert (kernel.version, kernel.vmlinuz, kernel.initrd) == (
        KERNEL,
        f"boot/vmlinuz-{KERNEL}",
        f"boot/initrd.img-{KERNEL}",
    )
    assert kernel.generic and "virtio_blk" in kernel.modules and "ext4" in kernel.modules
    assert [check.found for check in check_kernels([kernel])] == [()]
    assert kernel.as_dict()["generic"] is True


def test_a_cloud_kernel_is_an_error(tmp_path: Path) -> None:
    tree = tiny_tree(tmp_path / "tree", modules=("virtio_blk", "nvme", "virtio_net"))
    (check,) = check_kernels(kernels(tree))
    assert check.severity == "error" and "ahci" in check.found and check.fix == CLOUD_HINT


def test_a_driver_built_in_counts(tmp_path: Path) -> None:
    tree = tiny_tree(tmp_path / "tree", modules=tuple(n for n in (*STORAGE, *NETWORK) if n != "nvme"))
    (tree / "usr/lib/modules" / KERNEL / "modules.builtin").write_text("kernel/drivers/nvme/host/nvme.ko\n")
    (kernel,) = kernels(tree)
    assert kernel.generic and [check.severity for check in check_kernels([kernel])] == ["info"]


def test_an_initramfs_for_one_machine_is_named_with_what_it_lacks(tmp_path: Path) -> None:
    tree = tiny_tree(tmp_path / "tree")
    name = f"lib/modules/{KERNEL}/kernel/ahci.ko"
    (tree / "boot" / f"initrd.img-{KERNEL}").write_bytes(
        newc([name, "usr/lib/systemd/network/10-x.link", "usr/lib/systemd/network/99-default.link"])
    )
    (tree / "usr/lib/systemd/network").mkdir(parents=True)
    (tree / "usr/lib/systemd/network/99-default.link").write_text("")
    (kernel,) = kernels(tree)
    assert not kernel.generic and kernel.pins == ("usr/lib/systemd/network/10-x.link",)
    finding = next(check for check in check_kernels([kernel]) if check.name.startswith("initramfs"))
    assert finding.severity == "warning" and "nvme" in finding.found and "ahci" not in finding.found


def test_a_tree_without_a_kernel_is_an_error(tmp_path: Path) -> None:
    tree = tiny_tree(tmp_path / "tree")
    (tree / "boot" / f"vmlinuz-{KERNEL}").unlink()
    assert [check.severity for check in check_kernels(kernels(tree))] == ["error"]
    assert kernels(tmp_path) == []


def test_versions_sort_as_people_read_them() -> None:
    assert sorted(["6.1.0-10", "6.1.0-9", "6.12.1", "5.10"], key=version_key) == [
        "5.10",
        "6.1.0-9",
        "6.1.0-10",
        "6.12.1",
    ]
