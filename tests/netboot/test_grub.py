from __future__ import annotations

import pytest

from netboot.grub import agent_config, local_config
from netboot.ipxe import ScriptInvalid

HEAD, MAC, TOKEN = "10.0.0.1", "52:54:00:00:00:0a", "ab" * 16


def test_the_installer_comes_by_tftp_with_both_initrds_in_order() -> None:
    text = agent_config(HEAD, MAC, TOKEN, "node01: order")
    assert "if linux /vmlinuz quiet " in text and f"gild.token={TOKEN}; then" in text
    assert "initrd /head.cpio /initrd.img" in text
    assert "BOOTIF=01-52-54-00-00-00-0a" in text
    assert text.count("if ") == text.count("  fi\n") and text.rstrip().endswith("exit")


def test_an_unknown_card_is_filled_in_by_grub() -> None:
    assert "BOOTIF=01-$net_default_mac " in agent_config(HEAD, "", "", "x")


@pytest.mark.parametrize(("arch", "file"), [("x64", "BOOTX64.EFI"), ("aa64", "BOOTAA64.EFI")])
def test_root_is_set_before_the_disk_is_started(arch: str, file: str) -> None:
    text = local_config(arch, "node01")
    assert (
        text.index("--set=root /EFI/gild/grub.cfg") < text.index(f"chainloader /EFI/BOOT/{file}") < text.index("boot\n")
    )


@pytest.mark.parametrize("why", ["a\nreboot", "x\r\nhalt", "$(x)", "\ud800"])
def test_what_machines_say_stays_a_comment(why: str) -> None:
    for text in (agent_config(HEAD, MAC, "", why), local_config("x64", why)):
        lines = text.split("\n")
        assert lines[0].startswith("# ") and lines[1] == "set timeout=0" and "$" not in lines[0]


def test_a_bad_value_is_refused() -> None:
    with pytest.raises(ScriptInvalid):
        agent_config("evil; halt", MAC, "", "x")
