"""The boot menu and the line for / of a tree without one."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

from images.checks.check import Check
from images.checks.subject import Subject
from images.distro.find import system_of
from images.grubcfg import MARK, write_fstab, write_grub_cfg
from images.kernels import kernels
from images.tree import Tree
from tests.images.systems import put
from tests.images.tinytree import KERNEL, tiny_tree

UUID = "95fd9a78-4a9f-561d-aead-869354627bb8"
NOTHING = [Check("boot configuration")], [Check("fstab")]


def given(tmp_path: Path) -> tuple[Path, Tree, Subject]:
    root = tiny_tree(tmp_path / "tree")
    subject = Subject(UUID, kernels=tuple(kernels(root)), system=system_of(os.fspath(root)))
    return root, Tree(os.fspath(root)), subject


def test_a_menu_is_written_that_grub_takes(tmp_path: Path) -> None:
    root, tree, subject = given(tmp_path)
    (check,) = write_grub_cfg(tree, replace(subject, cmdline="quiet"))
    text = (root / "boot/grub/grub.cfg").read_text()
    assert check.found and f"search --no-floppy --fs-uuid --set=root {UUID}" in text
    assert f"linux /boot/vmlinuz-{KERNEL} root=UUID={UUID} ro quiet\n" in text
    assert f"initrd /boot/initrd.img-{KERNEL}\n" in text and "menuentry 'Tiny 12' {" in text


def test_the_distributions_links_outlive_a_kernel_update(tmp_path: Path) -> None:
    root, tree, subject = given(tmp_path)
    os.symlink(f"boot/vmlinuz-{KERNEL}", root / "vmlinuz")
    os.symlink(f"boot/initrd.img-{KERNEL}", root / "initrd.img")
    write_grub_cfg(tree, subject)
    text = (root / "boot/grub/grub.cfg").read_text()
    assert "linux /vmlinuz root=" in text and "initrd /initrd.img\n" in text and "console=ttyS0,115200" in text


def test_a_boot_partition_of_its_own_is_found_by_its_kernel(tmp_path: Path) -> None:
    root, tree, subject = given(tmp_path)
    write_grub_cfg(tree, replace(subject, mounts={"root": "/", "boot": "/boot"}))
    text = (root / "boot/grub/grub.cfg").read_text()
    assert f"search --no-floppy --file --set=root /vmlinuz-{KERNEL}\n" in text
    assert f"linux /vmlinuz-{KERNEL} root=" in text and f"initrd /initrd.img-{KERNEL}\n" in text


def test_alpine_is_told_its_modules(tmp_path: Path) -> None:
    root, tree, subject = given(tmp_path)
    put(root, "usr/lib/os-release", "ID=alpine\n")
    write_grub_cfg(tree, replace(subject, system=system_of(os.fspath(root)), fs="xfs"))
    text = (root / "boot/grub/grub.cfg").read_text()
    assert "modules=sd-mod,usb-storage,nvme,xfs rootfstype=xfs\n" in text and "menuentry 'Linux'" in text


def test_a_dangling_link_is_not_used(tmp_path: Path) -> None:
    root, tree, subject = given(tmp_path)
    os.symlink("boot/vmlinuz-gone", root / "vmlinuz")
    os.symlink("boot/initrd.img-gone", root / "initrd.img")
    write_grub_cfg(tree, subject)
    assert f"linux /boot/vmlinuz-{KERNEL} " in (root / "boot/grub/grub.cfg").read_text()


def test_what_the_tree_brings_stays(tmp_path: Path) -> None:
    root, tree, subject = given(tmp_path)
    put(root, "boot/grub2/grub.cfg", "own")
    assert write_grub_cfg(tree, subject) == NOTHING[0]
    assert not (root / "boot/grub").exists()


def test_an_own_menu_follows_the_kernel_until_somebody_takes_it_over(tmp_path: Path) -> None:
    root, tree, subject = given(tmp_path)
    write_grub_cfg(tree, replace(subject, uuid="0000"))
    (check,) = write_grub_cfg(tree, subject)
    text = (root / "boot/grub/grub.cfg").read_text()
    assert check.found and f"root=UUID={UUID}" in text and write_grub_cfg(tree, subject) == NOTHING[0]
    mine = text.removeprefix(MARK).replace("timeout=1", "timeout=9")
    put(root, "boot/grub/grub.cfg", mine)
    assert write_grub_cfg(tree, replace(subject, uuid="0000")) == NOTHING[0]
    assert (root / "boot/grub/grub.cfg").read_text() == mine


def test_fstab_gets_a_root_line_once(tmp_path: Path) -> None:
    root, tree, subject = given(tmp_path)
    assert write_fstab(tree, subject)[0].found
    text = (root / "etc/fstab").read_text()
    assert text.startswith("# nothing\n") and f"UUID={UUID} / ext4 defaults,errors=remount-ro 0 1\n" in text
    assert write_fstab(tree, subject) == NOTHING[1] and (root / "etc/fstab").read_text() == text
    (root / "etc/fstab").unlink()
    write_fstab(tree, replace(subject, fs="xfs"))
    assert (root / "etc/fstab").read_text() == f"UUID={UUID} / xfs defaults 0 0\n"


def test_a_link_out_of_the_tree_is_not_followed(tmp_path: Path) -> None:
    root, tree, subject = given(tmp_path)
    outside = tmp_path / "outside"
    outside.mkdir()
    os.symlink(outside, root / "boot/grub")
    write_grub_cfg(tree, subject)
    assert list(outside.iterdir()) == []
