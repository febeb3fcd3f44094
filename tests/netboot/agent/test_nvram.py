"""netboot.agent.nvram: the order of boot entries, with a stand-in for efibootmgr that remembers."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest

from netboot.agent import nvram

OUTPUT = """\
BootCurrent: 0003
Timeout: 0 seconds
BootOrder: 0001,0000,0003,0002,0009
Boot0000* UiApp\tFvVol(7cb8bdc9)
Boot0001* debian\tHD(2,GPT,x)/File(\\EFI\\debian\\shimx64.efi)
Boot0002* UEFI PXEv4 (MAC:525400000002)\tPciRoot(0x0)
Boot0003* UEFI HTTPv4 (MAC:525400000001)\tPciRoot(0x0)
Boot0004  gild
"""


def test_the_network_comes_first_then_the_disk_then_the_rest() -> None:
    old = nvram.parse(OUTPUT)
    assert old.names["0004"] == "gild" and old.current == "0003" and old.order[0] == "0001"
    assert nvram.arrange(old, "0004") == ["0003", "0002", "0004", "0001", "0000"]


@pytest.mark.parametrize("text", ["", "BootOrder: \nBootCurrent: xyz\n", "Boot* x\n", "\0" * 100])
def test_what_is_no_output_gives_our_entry_alone(text: str) -> None:
    assert nvram.arrange(nvram.parse(text), "0004") == ["0004"]


def fake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str) -> Path:
    program = tmp_path / "efibootmgr"
    program.write_text(f'#!/bin/sh\n[ $# -gt 0 ] && echo "$@" >>{tmp_path}/calls\n{script}\n')
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    return tmp_path / "calls"


def test_an_old_entry_goes_and_the_order_is_written_last(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "output").write_text(OUTPUT)
    calls = fake(tmp_path, monkeypatch, f"cat {tmp_path}/output")
    lines: list[str] = []
    nvram.register("/dev/sda", 2, r"\EFI\BOOT\BOOTX64.EFI", lines.append)
    assert calls.read_text().splitlines() == [
        "-q -b 0004 -B",
        r"-q -C -d /dev/sda -p 2 -L gild -l \EFI\BOOT\BOOTX64.EFI",
        "-q -o 0003,0002,0004,0001,0000",
    ]
    assert lines == ["firmware: entry 0004 starts the disk; the network stays before it"]


def test_firmware_that_refuses_is_a_line_in_the_log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake(tmp_path, monkeypatch, "echo 'EFI variables are not supported on this system.' >&2; exit 2")
    lines: list[str] = []
    nvram.register("/dev/sda", 2, r"\EFI\BOOT\BOOTX64.EFI", lines.append)
    assert len(lines) == 1 and "not supported on this system" in lines[0]
