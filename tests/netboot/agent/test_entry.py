"""netboot.agent.entry: what a tree would boot, from the configurations that distributions write."""

from __future__ import annotations

from pathlib import Path

import pytest

from images.tree import Tree
from netboot.agent import entry
from tests.images.systems import link, put

DEBIAN = """\
if [ -s $prefix/grubenv ]; then
  load_env
fi
function gfxmode {
	set gfxpayload="${1}"
}
menuentry 'Debian GNU/Linux' --class debian --class os $menuentry_id_option 'gnulinux-simple-x' {
	load_video
	insmod ext2
	search --no-floppy --fs-uuid --set=root 95fd
	echo	'Loading Linux 6.1.0-10-amd64 ...'
	linux	/boot/vmlinuz-6.1.0-10-amd64 root=UUID=95fd ro  quiet $vt_handoff
	echo	'Loading initial ramdisk ...'
	initrd	/boot/microcode.cpio /boot/initrd.img-6.1.0-10-amd64
}
submenu 'Advanced options' {
	menuentry 'Debian, with Linux 6.1.0-9-amd64' {
		linux	/boot/vmlinuz-6.1.0-9-amd64 root=UUID=95fd ro single
		initrd	/boot/initrd.img-6.1.0-9-amd64
	}
}
"""


def tree_with_kernels(root: Path) -> Tree:
    for version in ("6.1.0-9-amd64", "6.1.0-10-amd64"):
        put(root, f"boot/vmlinuz-{version}", "MZ")
        put(root, f"boot/initrd.img-{version}", "")
        (root / f"usr/lib/modules/{version}").mkdir(parents=True)
    return Tree(str(root))


def test_debians_grub_cfg(tmp_path: Path) -> None:
    tree = tree_with_kernels(tmp_path)
    put(tmp_path, "boot/grub/grub.cfg", DEBIAN)
    assert entry.default_entry(tree) == entry.Entry(
        "boot/vmlinuz-6.1.0-10-amd64", "boot/initrd.img-6.1.0-10-amd64", "root=UUID=95fd ro quiet", "6.1.0-10-amd64"
    )
    (tmp_path / "boot/vmlinuz-6.1.0-10-amd64").unlink()
    found = entry.default_entry(tree)
    assert found is not None and found.cmdline.endswith("single") and found.version == "6.1.0-9-amd64"


def test_gilds_own_grub_cfg_leads_through_the_distributions_links(tmp_path: Path) -> None:
    tree = tree_with_kernels(tmp_path)
    link(tmp_path, "vmlinuz", "boot/vmlinuz-6.1.0-10-amd64")
    link(tmp_path, "initrd.img", "/boot/initrd.img-6.1.0-10-amd64")
    put(
        tmp_path,
        "boot/grub/grub.cfg",
        "set default=0\nmenuentry 'x' {\n    linux /vmlinuz root=UUID=1 ro\n    initrd /initrd.img\n}\n",
    )
    assert entry.default_entry(tree) == entry.Entry(
        "boot/vmlinuz-6.1.0-10-amd64", "boot/initrd.img-6.1.0-10-amd64", "root=UUID=1 ro", "6.1.0-10-amd64"
    )


def test_a_separate_boot_partition_has_paths_without_boot(tmp_path: Path) -> None:
    tree = tree_with_kernels(tmp_path)
    put(
        tmp_path,
        "boot/grub2/grub.cfg",
        "linux16 ($root)/vmlinuz-6.1.0-9-amd64 root=/dev/x\ninitrd16 /initrd.img-6.1.0-9-amd64\n",
    )
    found = entry.default_entry(tree)
    assert found is not None and (found.kernel, found.initrd) == (
        "boot/vmlinuz-6.1.0-9-amd64",
        "boot/initrd.img-6.1.0-9-amd64",
    )


@pytest.mark.parametrize("options, expected", [
    ("root=UUID=1 ro $tuned_params", "root=UUID=1 ro"),
    ("$kernelopts $tuned_params", "root=/dev/mapper/r ro crashkernel=auto"),
])  # fmt: skip
def test_loader_entries_of_el(tmp_path: Path, options: str, expected: str) -> None:
    tree = tree_with_kernels(tmp_path)
    put(tmp_path, "boot/grub2/grub.cfg", "insmod blscfg\nblscfg\n")
    put(
        tmp_path,
        "boot/grub2/grubenv",
        "# GRUB Environment Block\nkernelopts=root=/dev/mapper/r ro crashkernel=auto \n####",
    )
    for version in ("6.1.0-9-amd64", "6.1.0-10-amd64", "0-rescue-abc"):
        text = f"title x\nlinux /vmlinuz-{version}\ninitrd /initrd.img-{version} $tuned_initrd\noptions {options}\n"
        put(tmp_path, f"boot/loader/entries/abc-{version}.conf", text)
    put(tmp_path, "boot/vmlinuz-0-rescue-abc", "")
    found = entry.default_entry(tree)
    assert found == entry.Entry(
        "boot/vmlinuz-6.1.0-10-amd64", "boot/initrd.img-6.1.0-10-amd64", expected, "6.1.0-10-amd64"
    )


def test_a_kernel_without_its_version_in_the_name_tells_it_itself(tmp_path: Path) -> None:
    head = bytearray(2048)
    head[0x202:0x206] = b"HdrS"
    head[0x20E:0x210] = (0x300).to_bytes(2, "little")
    head[0x500:0x520] = b"6.12.9-arch1-1 (linux@arch) #1 S"
    put(tmp_path, "boot/vmlinuz-linux", bytes(head))
    put(tmp_path, "boot/initramfs-linux.img", "")
    assert entry.default_entry(Tree(str(tmp_path))) == entry.Entry(
        "boot/vmlinuz-linux", "boot/initramfs-linux.img", "", "6.12.9-arch1-1"
    )


def test_no_kernel_and_kernels_out_of_the_tree_are_none(tmp_path: Path) -> None:
    put(tmp_path, "outside", "x")
    root = tmp_path / "root"
    link(root, "boot/vmlinuz-1", "../../outside")
    link(root, "boot/vmlinuz-2", "/none")
    put(
        root,
        "boot/grub/grub.cfg",
        "menuentry 'x' {\nlinux ../../outside root=1\n}\nmenuentry 'y' {\nlinux $x root=1\n}\n",
    )
    assert entry.default_entry(Tree(str(root))) is None


def test_arguments_go_into_every_line_once(tmp_path: Path) -> None:
    tree = Tree(str(tmp_path))
    put(tmp_path, "boot/grub/grub.cfg", DEBIAN)
    put(tmp_path, "etc/default/grub", 'GRUB_TIMEOUT=5\nGRUB_CMDLINE_LINUX_DEFAULT="quiet"\nGRUB_CMDLINE_LINUX=""\n')
    put(tmp_path, "boot/loader/entries/a.conf", "title x\noptions root=1\nlinux /x\n")
    changed = entry.add_arguments(tree, "mitigations=off quiet")
    assert changed == ["boot/grub/grub.cfg", "boot/loader/entries/a.conf", "etc/default/grub"]
    text = (tmp_path / "boot/grub/grub.cfg").read_text()
    assert "root=UUID=95fd ro  quiet $vt_handoff mitigations=off\n" in text
    assert "root=UUID=95fd ro single mitigations=off quiet\n" in text
    assert (tmp_path / "etc/default/grub").read_text().endswith('GRUB_CMDLINE_LINUX="mitigations=off quiet"\n')
    assert (
        tmp_path / "boot/loader/entries/a.conf"
    ).read_text() == "title x\noptions root=1 mitigations=off quiet\nlinux /x\n"
    assert len(text.split("\n")) == len(DEBIAN.split("\n"))
    assert entry.add_arguments(tree, "mitigations=off quiet") == []
