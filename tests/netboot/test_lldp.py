from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scapy.contrib import lldp as oracle
from scapy.layers.l2 import Ether

from netboot.lldp import GROUP, MAX_TEXT, parse


def frame(*more: object, chassis: object = None, port: object = None, ttl: int = 120) -> bytes:
    """The content of a frame as scapy builds it."""
    built = Ether(src="00:1b:21:aa:bb:01", dst=GROUP.hex(":")) / (
        chassis or oracle.LLDPDUChassisID(subtype=4, id="00:1b:21:aa:bb:cc")
    )
    built = built / (port or oracle.LLDPDUPortID(subtype=5, id=b"Gi1/0/7")) / oracle.LLDPDUTimeToLive(ttl=ttl)
    for part in more:
        built = built / part
    return bytes(built / oracle.LLDPDUEndOfLLDPDU())[14:]


NAME = oracle.LLDPDUSystemName(system_name=b"sw1.example")
BY_MAC = oracle.LLDPDUPortID(subtype=3, id="00:1b:21:aa:bb:01")
WHERE = oracle.LLDPDUPortDescription(description=b"rack 3, unit 7")


@pytest.mark.parametrize(("body", "found"), [
    (frame(NAME), ("sw1.example", "Gi1/0/7")),
    (frame(), ("00:1b:21:aa:bb:cc", "Gi1/0/7")),
    (frame(WHERE, NAME, port=BY_MAC), ("sw1.example", "rack 3, unit 7")),
    (frame(NAME, port=BY_MAC), ("sw1.example", "00:1b:21:aa:bb:01")),
    (frame(WHERE, NAME, port=oracle.LLDPDUPortID(subtype=7, id=b"7")), ("sw1.example", "7")),
    (frame(chassis=oracle.LLDPDUChassisID(subtype=7, id=b"core")), ("core", "Gi1/0/7")),
    (frame(NAME, ttl=0), None),
    (frame(NAME)[:9], None),
    (b"", None),
])  # fmt: skip
def test_what_switches_say(body: bytes, found: tuple[str, str] | None) -> None:
    assert parse(body) == found


def test_a_hostile_switch() -> None:
    evil = oracle.LLDPDUSystemName(system_name=b"\x1b[2J\r\n<b>" + "\u202e".encode() + b"\xff" + b"x" * 200)
    found = parse(frame(evil))
    assert found is not None and found[0].isprintable() and len(found[0]) == MAX_TEXT
    assert found[0].startswith("?[2J??<b>?\ufffdx")


def test_addresses_of_switches() -> None:
    v4 = b"\x02\x06\x05\x01\x0a\x01\x00\xfe" + frame()[9:]
    assert parse(v4) == ("10.1.0.254", "Gi1/0/7")


@given(st.binary(max_size=300))
def test_anything_is_taken(body: bytes) -> None:
    found = parse(body)
    assert found is None or all(text and text.isprintable() for text in found)
