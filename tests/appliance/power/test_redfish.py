from __future__ import annotations

import base64
import hashlib
import json
import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from appliance.power import command, redfish
from appliance.power.command import Target, carry_out
from appliance.power.limit import Limit
from appliance.power.redfish import Redfish
from netboot.bmc import Act, BmcFailed, Power, make
from tests.appliance.power.bmcs import PASSWORD, USER, Scripted, certificate, free_port, needs_sushy, sushy, system

UUID = str(system(1)["uuid"])
MACS = ("52:54:00:00:00:01",)
ONE = "/redfish/v1/Systems/1"


def target(url: str, **known: Any) -> Target:
    return Target(replace(make(1, "redfish", url, USER, PASSWORD), **known), UUID, MACS)


@contextmanager
def scripted(answer: Any, tls: Path | None = None) -> Iterator[Scripted]:
    bmc = Scripted(answer, tls)
    try:
        yield bmc
    finally:
        bmc.close()


class Machine:
    """A Redfish BMC with one system, as the specification has it."""

    def __init__(self, **system: Any) -> None:
        self.power = "Off"
        self.system = {"UUID": UUID, "Manufacturer": "Vendor", "Model": "Model", **system}
        self.told: list[str] = []

    def __call__(self, method: str, path: str) -> object:
        if path == "/redfish/v1/":
            return 200, {"Systems": {"@odata.id": "/redfish/v1/Systems"}}
        if path == "/redfish/v1/Systems":
            return 200, {"Members": [{"@odata.id": ONE}]}
        if method == "POST":
            self.power = "On"
            return 204, b""
        if method == "PATCH":
            return 204, b""
        return 200, {**self.system, "PowerState": self.power}


@needs_sushy
def test_a_real_emulator_with_several_systems(tmp_path: Path) -> None:
    with sushy(tmp_path / "s", [system(2, "On"), system(1), system(3)]) as url:
        found = carry_out(target(url), Act.STATUS, look=True)
        assert (found.power, found.error) == (Power.OFF, "") and "Sushy" in found.about
        assert found.bmc.system == f"/redfish/v1/Systems/{UUID}"
        known = Target(found.bmc, UUID, MACS)
        on = carry_out(known, Act.ON, network=True)
        assert (on.power, on.error, on.remarks) == (Power.ON, "", ())
        line = Redfish(found.bmc, Limit(10), UUID, MACS)
        assert line._system()[0]["Boot"]["BootSourceOverrideTarget"] == "Pxe"
        assert carry_out(known, Act.CYCLE).power is Power.ON  # it has no PowerCycle: ForceRestart
        assert carry_out(known, Act.OFF).power is Power.OFF
        # Found by a network card where the UUID says nothing.
        assert carry_out(replace(target(url), uuid=""), Act.STATUS).bmc.system == found.bmc.system
        lost = carry_out(replace(target(url), uuid="", macs=("52:54:00:00:00:99",)), Act.STATUS)
        assert "has 3 systems, and none of them" in lost.error


@needs_sushy
def test_an_emulator_that_takes_its_time_is_looked_at_until_it_shows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(command, "LOOK_EVERY", 0.2)
    with sushy(tmp_path / "s", [system(1)], quick=False) as url:
        on = carry_out(target(url), Act.ON)
        assert (on.power, on.error, on.remarks) == (Power.ON, "", ())


def test_what_is_sent() -> None:
    reset = {"target": f"{ONE}/Actions/Oem.Reset", "ResetType@Redfish.AllowableValues": ["ForceOn"]}
    machine = Machine(Actions={"#ComputerSystem.Reset": reset})
    with scripted(machine) as bmc:
        on = carry_out(target(bmc.url), Act.ON, network=True)
        assert (on.power, on.error, on.bmc.system) == (Power.ON, "", ONE)
    sent = [(method, path, json.loads(body)) for method, path, _, body in bmc.asked if body]
    assert sent == [
        ("PATCH", ONE, {"Boot": {"BootSourceOverrideEnabled": "Once", "BootSourceOverrideTarget": "Pxe"}}),
        ("POST", f"{ONE}/Actions/Oem.Reset", {"ResetType": "ForceOn"}),
    ]
    expected = base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()
    assert all(headers["authorization"] == f"Basic {expected}" for _, _, headers, _ in bmc.asked)


def test_no_one_time_boot_is_a_remark_and_no_failure() -> None:
    machine = Machine()

    def answer(method: str, path: str) -> object:
        return (400, {"error": {"message": "no\x1b[31m such thing"}}) if method == "PATCH" else machine(method, path)

    with scripted(answer) as bmc:
        on = carry_out(target(bmc.url), Act.ON, network=True)
    assert on.power is Power.ON and not on.error
    assert "network once" in on.remarks[0] and on.remarks[0].isprintable()


def test_entity_tags_are_given_back_and_left_away_when_wrong() -> None:
    machine = Machine()
    refused: list[str] = []

    def answer(method: str, path: str) -> object:
        if method == "PATCH" and not refused:
            refused.append(path)
            return 412, b""
        said: Any = machine(method, path)
        if path == ONE and method == "GET":
            data = json.dumps(said[1]).encode()
            return b'HTTP/1.1 200 OK\r\nETag: "7"\r\nContent-Length: %d\r\n\r\n' % len(data) + data
        return said

    with scripted(answer) as bmc:
        assert not carry_out(target(bmc.url), Act.ON, network=True).remarks
    assert [headers.get("if-match") for method, _, headers, _ in bmc.asked if method == "PATCH"] == ['"7"', None]


def test_a_certificate_is_pinned_and_another_gets_no_password(tmp_path: Path) -> None:
    first, second = certificate(tmp_path, "first"), certificate(tmp_path, "second")
    der = ssl.PEM_cert_to_DER_cert(first.with_suffix(".crt").read_text())
    with scripted(Machine(), first) as bmc:
        found = carry_out(target(bmc.url), Act.STATUS)
        assert found.bmc.pin == hashlib.sha256(der).hexdigest() and found.power is Power.OFF
        assert carry_out(Target(found.bmc, UUID, MACS), Act.STATUS).power is Power.OFF
    with scripted(Machine(), second) as other:
        said = carry_out(target(other.url, pin=found.bmc.pin), Act.STATUS)
        assert "another certificate" in said.error and "node bmc trust" in said.hint and other.asked == []


def test_a_liar_costs_its_own_time_and_nothing_else(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(redfish, "ONE_CALL", 0.4)
    deep = b"[" * 100_000
    answers: list[tuple[object, str]] = [
        (None, "not done after"),  # a byte now and then
        (b"", "no sense"),
        (b"HTTP/1.1 200 OK\r\n\r\n" + b"x" * (2 << 20), "more than"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n{}", "cut short"),
        (b"\x16\x03\x01 is no HTTP\r\n\r\n", "no sense"),
        ((200, deep), "says 200"),
        ((200, b"\xff\xfe"), "says 200"),
        ((200, []), "says 200"),
        ((302, b""), "says 302"),
        ((401, b""), "refuses its user admin"),
        ((500, {"error": {"@Message.ExtendedInfo": [{"Message": "a\nb\u202e"}]}}), "says 500: a b?"),
        ((200, {"Members": [{"@odata.id": "http://else/"}, {"@odata.id": 7}, None], "Systems": 7}), "has 0 systems"),
        ((200, {"Members": [{"@odata.id": "/redfish/v1/a\r\nHost: x"}]}), "has 0 systems"),
    ]  # fmt: skip
    for answer, wanted in answers:
        with scripted(lambda method, path, answer=answer: answer) as bmc:
            said = carry_out(target(bmc.url), Act.ON)
            assert wanted in said.error, (answer, said)
            assert said.error.isprintable() and len(said.error) < 400


ODD: tuple[dict[str, Any], ...] = (
    {"PowerState": 7},
    {"PowerState": ["On"]},
    {"Actions": []},
    {"Actions": {"#ComputerSystem.Reset": None}},
)


def test_odd_objects_are_no_crash() -> None:
    for odd in ODD:
        machine = Machine(**odd)
        with scripted(lambda method, path, machine=machine, odd=odd: (
            (200, {**machine.system, **odd}) if (method, path) == ("GET", ONE) else machine(method, path)
        )) as bmc:  # fmt: skip
            line = Redfish(target(bmc.url).bmc, Limit(10), UUID, MACS)
            assert line.status() is Power.UNKNOWN
            line.tell(Act.ON)


def test_a_bmc_that_cannot_says_so() -> None:
    machine = Machine(Actions={"#ComputerSystem.Reset": {"ResetType@Redfish.AllowableValues": ["Nmi", "\x1b[2J", 7]}})
    with scripted(machine) as bmc, pytest.raises(BmcFailed, match="cannot on: it has Nmi") as error:
        Redfish(target(bmc.url).bmc, Limit(10), UUID, MACS).tell(Act.ON)
    assert str(error.value).isprintable()


def test_a_command_without_effect_is_remarked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(command, "SETTLE", 0.2)
    monkeypatch.setattr(command, "LOOK_EVERY", 0.05)
    machine = Machine()
    with scripted(lambda method, path: (204, b"") if method == "POST" else machine(method, path)) as bmc:
        on = carry_out(target(bmc.url), Act.ON)
    assert on.power is Power.OFF and "the machine is off" in on.remarks[0]


def test_a_system_that_was_renamed_is_found_again() -> None:
    machine = Machine()

    def answer(method: str, path: str) -> object:
        return (404, b"") if path.endswith("/old") else machine(method, path)

    with scripted(answer) as bmc:
        assert carry_out(target(bmc.url, system="/redfish/v1/Systems/old"), Act.STATUS).bmc.system == ONE


def test_another_machine_behind_the_address_is_remarked() -> None:
    with scripted(Machine(UUID="00000000-1111-2222-3333-444444444444")) as bmc:
        assert "another machine?" in carry_out(target(bmc.url), Act.STATUS, look=True).about


def test_nobody_there() -> None:
    said = carry_out(target(f"http://127.0.0.1:{free_port()}"), Act.STATUS)
    assert "connection refused" in said.error
    said = carry_out(target("https://nowhere.invalid"), Act.STATUS)
    assert "its name is not known" in said.error
