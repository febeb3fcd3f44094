"""Leaving the installer: what can be said before the kernel is asked, and that it is really asked."""

from __future__ import annotations

from pathlib import Path

import pytest

from netboot.agent import kexec
from netboot.agent.kexec import KexecFailed


def test_files_that_are_not_there_are_named(tmp_path: Path) -> None:
    with pytest.raises(KexecFailed, match="vmlinuz cannot be read"):
        kexec.load(str(tmp_path / "vmlinuz"), "", "quiet")
    (tmp_path / "vmlinuz").write_bytes(b"kernel")
    with pytest.raises(KexecFailed, match=r"initrd\.img cannot be read"):
        kexec.load(str(tmp_path / "vmlinuz"), str(tmp_path / "initrd.img"), "quiet")


def test_a_command_line_too_long_is_not_cut(tmp_path: Path) -> None:
    with pytest.raises(KexecFailed, match="longer than 2048"):
        kexec.load(str(tmp_path / "vmlinuz"), "", "x" * kexec.MAX_CMDLINE)


def test_what_is_no_kernel_is_refused_by_the_kernel(tmp_path: Path) -> None:
    """Whatever the reason of the machine at hand is: no kernel image, no permission, no kexec."""
    (tmp_path / "vmlinuz").write_bytes(b"kernel")
    with pytest.raises(KexecFailed, match=r"loading .* failed: "):
        kexec.load(str(tmp_path / "vmlinuz"), "", "quiet")


def test_machines_it_is_not_known_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kexec, "FILE_LOAD", {})
    with pytest.raises(KexecFailed, match="not known for"):
        kexec.load(str(tmp_path / "vmlinuz"), "", "quiet")


def test_the_commands_are_those_of_the_manual_page() -> None:
    # reboot(2): LINUX_REBOOT_CMD_KEXEC, _RESTART, _POWER_OFF
    assert kexec.COMMANDS == {"kexec": 1163412803, "reboot": 19088743, "poweroff": 1126301404}
