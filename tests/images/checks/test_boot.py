"""Boot menus of every kind: what they start, and whether another machine could start it."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from images.checks import boot
from images.checks.menus import entries
from images.tree import Tree
from tests.images import trees
from tests.images.checks.looked import UUID, look
from tests.images.systems import put
from tests.images.tinytree import KERNEL, tiny_tree

SYSTEMS = trees.load()
DISKS = "boot menu: disks of another machine"
LOST = "boot menu: files that are not there"
GRUB = """set root='hd0,gpt2'
menuentry 'Debian' --class debian {
	search --no-floppy --fs-uuid --set=root UUID
	linux	/boot/vmlinuz-KERNEL root=ROOT ro quiet
	initrd	/boot/microcode.img /boot/initrd.img-KERNEL
}
"""


def grub(root: Path, where: str) -> Path:
    text = GRUB.replace("KERNEL", KERNEL).replace("ROOT", where).replace("UUID UUID", UUID)
    put(root, "boot/microcode.img", "x")
    return put(root, "boot/grub/grub.cfg", text)


def test_a_menu_for_the_image_is_sound(tmp_path: Path) -> None:
    root = tiny_tree(tmp_path / "tree")
    grub(root, f"UUID={UUID.upper()}")
    assert look(boot.menu, root) == {}
    (entry,) = entries(Tree(str(root)))
    assert entry.words == (f"root=UUID={UUID.upper()}", "ro", "quiet") and len(entry.initrds) == 2


@pytest.mark.parametrize(
    "where",
    ["/dev/sda2", "/dev/mapper/vg-root", "PARTUUID=1", "UUID=2", "LABEL=mine", "ZFS=x", "rd.lvm.lv=vg/root", "x"],
)
def test_a_disk_of_another_machine_is_an_error_and_the_command_mends_it(tmp_path: Path, where: str) -> None:
    root = tiny_tree(tmp_path / "tree")
    where = f"UUID={UUID} {where}" if where.startswith("rd.") else where
    config = grub(root, where)
    put(root, "etc/default/grub", f'GRUB_CMDLINE_LINUX="root={where} quiet"\nGRUB_TIMEOUT=1\n')
    check = look(boot.menu, root)[DISKS]
    assert check.severity == "error" and where.split()[-1] in check.found[0] and "/etc/default/grub" in check.fix
    command = re.search(r"-- (sed .*)$", check.fix)
    assert command
    # As a person would type it, but for the root directory.
    subprocess.run(["sh", "-ec", command[1].replace(" /", f" {root}/")], check=True)
    assert look(boot.menu, root) == {} and "set root='hd0,gpt2'\n" in config.read_text()
    assert (root / "etc/default/grub").read_text().startswith(f'GRUB_CMDLINE_LINUX="root=UUID={UUID} quiet"\n')


def test_words_of_another_filesystem(tmp_path: Path) -> None:
    root = tiny_tree(tmp_path / "tree")
    grub(root, f"UUID={UUID} rootflags=subvol=@ rootfstype=btrfs resume=UUID=9")
    found = look(boot.menu, root)
    assert [text.partition(": ")[2] for text in found[DISKS].found] == ["rootflags=subvol=@", "rootfstype=btrfs"]
    assert found["boot menu: swap of another machine"].severity == "warning"
    assert DISKS not in look(boot.menu, root, fs="btrfs")


def test_files_that_are_not_there(tmp_path: Path) -> None:
    root = tiny_tree(tmp_path / "tree")
    config = grub(root, f"UUID={UUID}")
    whole = config.read_text()
    config.write_text(whole + whole.replace(KERNEL, "5.10"))
    assert look(boot.menu, root)[LOST].severity == "warning"
    assert look(boot.menu, root)[LOST].found[0] == "boot/grub/grub.cfg: /boot/vmlinuz-5.10"
    config.write_text(whole.replace(KERNEL, "5.10") + whole)
    assert look(boot.menu, root)[LOST].severity == "error"


def test_loaders_for_uefi_and_the_serial_console(tmp_path: Path) -> None:
    root = tiny_tree(tmp_path / "tree")
    check = look(boot.loaders, root)["signed loaders for UEFI"]
    assert check.found == ("no shim", "no GRUB") and "Secure Boot" not in check.fix
    put(root, "usr/lib/shim/shimx64.efi.signed", "x")
    put(root, "usr/lib/grub/x86_64-efi-signed/grubx64.efi.signed", "x")
    put(root, "boot/efi/EFI/Linux/a.efi", "x")
    assert list(look(boot.loaders, root)) == ["unified kernel images"]
    fedora = SYSTEMS["fedora"].build(tmp_path / "fedora")
    if found := look(boot.loaders, fedora).get("signed loaders for UEFI"):
        assert "Secure Boot" in found.fix
    grub(root, f"UUID={UUID}")
    assert look(boot.console, root)["serial console"].found == ("none in boot/grub/grub.cfg",)
    grub(root, f"UUID={UUID} console=ttyS1,115200")
    assert look(boot.console, root) == {}
    (root / "boot/grub/grub.cfg").unlink()
    assert look(boot.console, root) == {} and look(boot.console, root, cmdline="quiet")
