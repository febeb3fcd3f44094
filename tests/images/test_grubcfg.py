"""The boot menu of a tree without one."""

from __future__ import annotations

import os
from pathlib import Path

from images.grubcfg import write_fstab, write_grub_cfg
from images.kernels import kernels
from tests.images.tinytree import KERNEL, tiny_tree

UUID = "95fd9a78-4a9f-561d-aead-869354627bb8"


def test_a_menu_is_written_that_grub_takes(tmp_path: Path) -> None:
    tree = tiny_tree(tmp_path / "tree")
    check = write_grub_cfg(tree, kernels(tree), uuid=UUID, cmdline="quiet")
    text = (tree / "boot/grub/grub.cfg").read_text()
    assert check.found and f"search --no-floppy --fs-uuid --set=root {UUID}" in text
    assert f"linux /boot/vmlinuz-{KERNEL} root=UUID={UUID} ro quiet\n" in text
    assert f"initrd /boot/initrd.img-{KERNEL}\n" in text and "menuentry 'Tiny 12' {" in text


def test_the_distributions_links_outlive_a_kernel_update(tmp_path: Path) -> None:
    tree = tiny_tree(tmp_path / "tree")
    os.symlink(f"boot/vmlinuz-{KERNEL}", tree / "vmlinuz")
    os.symlink(f"boot/initrd.img-{KERNEL}", tree / "initrd.img")
    write_grub_cfg(tree, kernels(tree), uuid=UUID)
    text = (tree / "boot/grub/grub.cfg").read_text()
    assert "linux /vmlinuz root=" in text and "initrd /initrd.img\n" in text and "console=ttyS0,115200" in text


def test_a_dangling_link_is_not_used(tmp_path: Path) -> None:
    tree = tiny_tree(tmp_path / "tree")
    os.symlink("boot/vmlinuz-gone", tree / "vmlinuz")
    os.symlink("boot/initrd.img-gone", tree / "initrd.img")
    write_grub_cfg(tree, kernels(tree), uuid=UUID)
    assert f"linux /boot/vmlinuz-{KERNEL} " in (tree / "boot/grub/grub.cfg").read_text()


def test_what_the_tree_brings_stays(tmp_path: Path) -> None:
    tree = tiny_tree(tmp_path / "tree")
    (tree / "boot/grub2").mkdir()
    (tree / "boot/grub2/grub.cfg").write_text("own")
    assert write_grub_cfg(tree, kernels(tree), uuid=UUID).found == ()
    assert not (tree / "boot/grub").exists()


def test_fstab_gets_a_root_line_once(tmp_path: Path) -> None:
    tree = tiny_tree(tmp_path / "tree")
    assert write_fstab(tree, uuid=UUID).found
    text = (tree / "etc/fstab").read_text()
    assert text.startswith("# nothing\n") and f"UUID={UUID} / ext4 " in text
    assert write_fstab(tree, uuid=UUID).found == () and (tree / "etc/fstab").read_text() == text


def test_a_link_out_of_the_tree_is_not_followed(tmp_path: Path) -> None:
    tree = tiny_tree(tmp_path / "tree")
    outside = tmp_path / "outside"
    (tree / "boot/grub").mkdir(parents=True, exist_ok=True)
    os.symlink(outside, tree / "boot/grub/grub.cfg")
    write_grub_cfg(tree, kernels(tree), uuid=UUID)
    assert not outside.exists()
