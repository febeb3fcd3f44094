"""netboot.agent.stub: which lines GRUB gets, by what the tree has and whose GRUB it is."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from images.tree import Tree
from netboot.agent.stub import BootFailed, Stub, menu
from tests.images.systems import put

UUID = "95fd9a78-4a9f-561d-aead-869354627bb8"


def test_boot_on_a_partition_of_its_own_and_on_the_root(tmp_path: Path) -> None:
    put(tmp_path, "boot/grub/grub.cfg", "menuentry x {\n}\n")
    for folder in ("", "/boot"):
        text = Stub(Tree(str(tmp_path)), UUID, folder).text("i386-pc", own=False)
        assert text.endswith(f"fi\nset prefix=($root){folder}/grub\nconfigfile ($root){folder}/grub/grub.cfg\n")


@pytest.mark.parametrize("own, prefix", [(True, True), (False, False)])
def test_only_the_images_own_grub_may_load_its_modules(tmp_path: Path, own: bool, prefix: bool) -> None:
    put(tmp_path, "boot/grub2/grub.cfg", "menuentry x {\n}\n")
    put(tmp_path, "boot/grub2/x86_64-efi/normal.mod", "")
    stub = Stub(Tree(str(tmp_path)), UUID, "/boot")
    assert ("set prefix=($root)/boot/grub2\n" in stub.text("x86_64-efi", own=own)) is prefix
    assert "set prefix" in stub.text("i386-pc", own=own)


def test_a_configuration_for_another_grub_needs_a_kernel_that_is_there(tmp_path: Path) -> None:
    put(tmp_path, "boot/grub2/grub.cfg", "if true; then\n  blscfg\nfi\n")
    stub = Stub(Tree(str(tmp_path)), UUID, "/boot")
    with pytest.raises(BootFailed, match=r"boot/grub2/grub\.cfg\) names no kernel"):
        stub.text("i386-pc", own=False)
    assert "configfile" in stub.text("x86_64-efi", own=True)


@pytest.mark.skipif(shutil.which("grub-script-check") is None, reason="no grub-script-check here")
@pytest.mark.parametrize("initrd", ["", "/initrd.img"])
def test_grub_can_read_the_menu(tmp_path: Path, initrd: str) -> None:
    text = menu("/vmlinuz", initrd, f"root=UUID={UUID} ro console=ttyS0,115200", UUID)
    assert ("initrd" in text) == bool(initrd)
    subprocess.run(["grub-script-check", put(tmp_path, "grub.cfg", text)], check=True)
