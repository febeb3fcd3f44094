from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from netboot.bmc import Act, BmcInvalid, Kind, fill, is_pattern, learned, make, reset_type, same_uuid


def made(kind: str, address: str, **given: str) -> str:
    return make(1, kind, address, given.get("user", "gild"), given.get("password", "x"), given.get("pin", "")).place


@pytest.mark.parametrize(
    ("kind", "address", "place"),
    [
        ("ipmi", "10.0.1.7", "10.0.1.7"),
        ("ipmi", "10.0.1.7:623", "10.0.1.7"),
        ("ipmi", "BMC7.Mgmt.example:6230", "bmc7.mgmt.example:6230"),
        ("ipmi", "fe80::1", "[fe80::1]"),
        ("ipmi", "[2001:db8::7]:624", "[2001:db8::7]:624"),
        ("redfish", "10.0.1.7", "https://10.0.1.7"),
        ("redfish", "10.0.1.7:8443", "https://10.0.1.7:8443"),
        ("redfish", "https://bmc7/", "https://bmc7"),
        ("redfish", "http://127.0.0.1:8001", "http://127.0.0.1:8001"),
        ("redfish", "https://[2001:db8::7]", "https://[2001:db8::7]"),
    ],
)
def test_addresses(kind: str, address: str, place: str) -> None:
    assert made(kind, address) == place
    assert made(kind, place) == place


@pytest.mark.parametrize(
    ("kind", "address"),
    [
        ("ipmi", ""), ("ipmi", "a b"), ("ipmi", "10.0.1.700"), ("ipmi", "1.2.3"), ("ipmi", "host:0"), ("ipmi", "-E"),
        ("ipmi", "host:99999"), ("ipmi", "https://host"), ("ipmi", "host/x"), ("ipmi", "me@host"), ("ipmi", "h\n"),
        ("redfish", "ftp://host"), ("redfish", "https://host/redfish"), ("redfish", "https://host?x"),
        ("redfish", "https://u:p@host"), ("redfish", "10.0.1.{n}"), ("telnet", "host"), ("ipmi", "x" * 300),
        ("redfish", "[::1"), ("ipmi", "h\u202eost"),
    ],
)  # fmt: skip
def test_what_is_no_address_is_refused_in_one_line(kind: str, address: str) -> None:
    with pytest.raises(BmcInvalid) as error:
        made(kind, address)
    assert error.value.message.isprintable() and len(error.value.message) < 200


@given(st.sampled_from(list(Kind)), st.text(max_size=40))
def test_any_text_is_an_address_or_refused(kind: Kind, text: str) -> None:
    try:
        place = made(kind, text)
    except BmcInvalid:
        return
    assert place.isprintable() and made(kind, place) == place


def test_accounts() -> None:
    for given_ in (
        {"user": ""},
        {"user": "a\nb"},
        {"user": "x" * 65},
        {"password": ""},
        {"password": "x" * 21},
        {"password": "a\nb"},
    ):
        with pytest.raises(BmcInvalid):
            made("ipmi", "h", **given_)
    assert made("redfish", "h", password="x" * 21)
    with pytest.raises(BmcInvalid, match="colon"):
        made("redfish", "h", user="a:b")


def test_fingerprints() -> None:
    pin = "AB:" * 31 + "AB"
    assert make(1, "redfish", "h", "u", "p", pin).pin == "ab" * 32
    for kind, address, text in (
        ("redfish", "h", "ab"),
        ("redfish", "h", "zz" * 32),
        ("ipmi", "h", pin),
        ("redfish", "http://h", pin),
    ):
        with pytest.raises(BmcInvalid, match="fingerprint"):
            make(1, kind, address, "u", "p", text)


def test_a_password_is_in_no_text() -> None:
    bmc = make(1, "ipmi", "h", "u", "hunter2")
    assert "hunter2" not in f"{bmc} {bmc!r} {bmc.place}"


def test_patterns() -> None:
    assert fill("10.0.1.{n}", "node07") == "10.0.1.7"
    assert fill("10.0.1.{n+100}", "node07") == "10.0.1.107"
    assert fill("bmc{n:02}.mgmt", "rack1-7") == "bmc07.mgmt"
    assert fill("{name}-bmc", "node07") == "node07-bmc"
    assert fill("10.0.1.7", "login") == "10.0.1.7"
    assert is_pattern("10.0.1.{n}") and not is_pattern("10.0.1.7")
    with pytest.raises(BmcInvalid, match="no number"):
        fill("10.0.1.{n}", "login")


def test_reset_types_are_those_a_bmc_has() -> None:
    assert reset_type(Act.ON, ["Off", "ForceOn"]) == "ForceOn"
    assert reset_type(Act.CYCLE, ["On", "ForceRestart"]) == "ForceRestart"
    assert reset_type(Act.OFF, ["GracefulShutdown"]) == ""
    assert reset_type(Act.RESET, []) == "ForceRestart"


def test_uuids_in_either_byte_order() -> None:
    one = "4c4c4544-0042-3510-8051-000000000001"
    assert same_uuid(one, one.upper()) and same_uuid("44454c4c-4200-1035-8051-000000000001", one)
    assert not same_uuid(one, "4c4c4544-0042-3510-8051-000000000002")
    assert not same_uuid("", "") and not same_uuid("x", one) and not same_uuid("zz-z-z-z-z", one)


def test_what_was_learned_is_added_and_a_pin_never_replaced() -> None:
    bmc = make(1, "redfish", "h", "u", "p")
    first = learned(bmc, pin="a" * 64, system="/redfish/v1/Systems/1")
    assert learned(first, pin="b" * 64).pin == "a" * 64 and learned(first) == first
