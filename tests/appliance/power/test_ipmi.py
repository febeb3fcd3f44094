from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from appliance.power import ipmi
from appliance.power.command import Target, carry_out
from appliance.power.ipmi import Ipmi
from appliance.power.limit import Limit
from images.errors import ToolMissing
from netboot.bmc import Act, BmcFailed, Power, make
from tests.appliance.power.bmcs import PASSWORD, USER, free_port, in_path, ipmi_sim, needs_ipmi


@needs_ipmi
def test_a_real_simulator_is_switched_on_and_off(tmp_path: Path) -> None:
    with ipmi_sim(tmp_path / "n1") as bmc:
        target = Target(make(1, "ipmi", bmc.address, USER, PASSWORD), uefi=True)
        found = carry_out(target, Act.STATUS, look=True)
        assert (found.power, found.error) == (Power.OFF, "") and "MontaVista" in found.about
        # ipmi_sim knows no SHA-256; the suite that worked is remembered, and the next call tries no other.
        assert found.bmc.cipher == 3
        target = Target(found.bmc, uefi=True)
        on = carry_out(target, Act.ON, network=True)
        assert (on.power, on.error, on.remarks) == (Power.ON, "", ()) and bmc.power == "on"
        assert bmc.told == ["set boot pxe", "set power 1"]
        assert carry_out(target, Act.ON).remarks == ("was on already",) and len(bmc.told) == 2
        assert carry_out(target, Act.CYCLE).power is Power.ON
        assert bmc.told[2:] == ["set power 0", "set power 1"]
        assert carry_out(target, Act.OFF).power is Power.OFF and bmc.power == "off"
        before = len(bmc.told)
        assert carry_out(target, Act.OFF).power is Power.OFF and len(bmc.told) == before
        # A cycle of a machine that is off switches it on: many a BMC does nothing with it.
        assert carry_out(target, Act.CYCLE).power is Power.ON and bmc.told[before:] == ["set power 1"]


@needs_ipmi
def test_what_is_wrong_is_said_in_words(tmp_path: Path) -> None:
    with ipmi_sim(tmp_path / "n1") as bmc:
        known = make(1, "ipmi", bmc.address, USER, "wr0ng")
        said = carry_out(Target(known), Act.ON)
        assert "the password is wrong" in said.error and "wr0ng" not in repr(said) and bmc.told == []
        said = carry_out(Target(make(1, "ipmi", bmc.address, "nobody", PASSWORD)), Act.ON)
        assert "its user nobody is not known there" in said.error


@needs_ipmi
def test_nobody_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ipmi, "ONE_CALL", 1.5)
    bmc = make(1, "ipmi", f"127.0.0.1:{free_port()}", USER, PASSWORD)
    assert carry_out(Target(bmc), Act.STATUS).error
    assert "nowhere.invalid" in carry_out(Target(make(1, "ipmi", "nowhere.invalid", USER, PASSWORD)), Act.STATUS).error


def test_the_password_is_in_no_command_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(
        "PATH", in_path("ipmitool", tmp_path, f'echo "$@ env=$IPMI_PASSWORD" >> {tmp_path}/said; echo')["PATH"]
    )
    Ipmi(make(1, "ipmi", "10.0.0.7", USER, PASSWORD), Limit(10)).tell(Act.RESET)
    words, _, secret = (tmp_path / "said").read_text().partition(" env=")
    assert secret.strip() == PASSWORD and PASSWORD not in words
    assert "-C 17" in words and words.endswith("-H 10.0.0.7 -p 623 -U admin chassis power reset")


def test_a_liar(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = in_path(
        "ipmitool", tmp_path, r"printf 'Chassis Power is \033[31m on fire\n%s' \"$(head -c 99999 /dev/zero)\""
    )
    monkeypatch.setenv("PATH", path["PATH"])
    line = Ipmi(make(1, "ipmi", "10.0.0.7", USER, PASSWORD), Limit(10))
    assert line.status() is Power.UNKNOWN
    in_path("ipmitool", tmp_path, r"printf 'a\033[2J\nb\r\033[31m' >&2; exit 1")
    with pytest.raises(BmcFailed) as error:
        line.status()
    assert str(error.value).isprintable() and "b" in error.value.message
    in_path("ipmitool", tmp_path, "exec sleep 60")
    monkeypatch.setattr(ipmi, "ONE_CALL", 0.2)
    assert "did not end within" in carry_out(Target(line.bmc), Act.STATUS).error


def test_a_suite_that_no_longer_works_is_forgotten(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    refuse = 'echo "Error in open session response" >&2; exit 1'
    script = f'case "$*" in *"-C 3 "*) echo "Chassis Power is on";; *) {refuse};; esac'
    monkeypatch.setenv("PATH", in_path("ipmitool", tmp_path, script)["PATH"])
    line = Ipmi(make(1, "ipmi", "10.0.0.7", USER, PASSWORD), Limit(10))
    assert line.status() is Power.ON and line.bmc.cipher == 3
    in_path("ipmitool", tmp_path, script.replace("-C 3", "-C 17"))
    with pytest.raises(BmcFailed):
        line.status()
    assert line.bmc.cipher == 0 and line.status() is Power.ON and line.bmc.cipher == 17


def test_no_ipmitool(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda name, path=None: None)
    with pytest.raises(ToolMissing) as error:
        Ipmi(make(1, "ipmi", "10.0.0.7", USER, PASSWORD), Limit(10)).status()
    assert "apt install ipmitool" in error.value.hint and os.environ["PATH"]
