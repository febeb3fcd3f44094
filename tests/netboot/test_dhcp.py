"""The DHCP codec, with captured messages and scapy as the second opinion."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scapy.layers.dhcp import BOOTP, DHCP

from netboot import dhcp
from netboot.dhcp import DhcpInvalid, DhcpReply, Kind, build, parse
from tests.netboot.packets import NAMES, packet

UUID = "44454c4c-4b00-104d-805a-c4c04f4d3232"


def message(
    options: bytes, *, hlen: int = 6, file: bytes = b"", sname: bytes = b"", mac: bytes = b"\x52\x54\0\0\0\1"
) -> bytes:
    head = struct.pack("!BBBBIHH16x16s64s128s", 1, 1, hlen, 0, 7, 0, 0, mac, sname, file)
    return head + b"\x63\x82\x53\x63" + options


def option(number: int, value: bytes) -> bytes:
    return bytes((number, len(value))) + value


EXPECTED: dict[str, dict[str, object]] = {
    "udhcpc-discover": {"kind": Kind.DISCOVER, "vendor_class": "PXEClient:Arch:00007:UNDI:003016", "client_arch": None},
    "udhcpc-request": {"kind": Kind.REQUEST, "requested_ip": "10.77.0.100", "server_id": "10.77.0.1"},
    "dhclient-discover": {"kind": Kind.DISCOVER, "hostname": "vm", "vendor_class": "", "uuid": None},
    "dhclient-release": {"kind": Kind.RELEASE, "ciaddr": "10.77.0.100", "server_id": "10.77.0.1"},
    "ipxe-bios-discover": {
        "kind": Kind.DISCOVER,
        "user_class": ("iPXE",),
        "has_ipxe_options": True,
        "client_arch": 0,
        "uuid": UUID,
        "limit": 1444,
        "mac": "52:54:00:12:34:56",
    },
    "ipxe-uefi-discover": {"client_arch": 7, "user_class": ("iPXE",)},
    "ovmf-pxe-discover": {"client_arch": 7, "flags": 0x8000, "user_class": (), "uuid": UUID, "has_ipxe_options": False},
    "ovmf-http-discover": {"client_arch": 16, "vendor_class": "HTTPClient:Arch:00016:UNDI:003001"},
    "pxe-rom-discover": {"client_arch": 0, "uuid": None, "limit": 1232},
    "relayed-discover": {"giaddr": "10.78.0.1", "relay_info": b"\x01\x09eth0/1/12\x02\x06\0\x11\x22\x33\x44\x55"},
    "renewal-request": {"ciaddr": "10.77.0.100", "requested_ip": None, "server_id": None, "hostname": "n1"},
}


@pytest.mark.parametrize("name", EXPECTED)
def test_reads_what_clients_send(name: str) -> None:
    request = parse(packet(name))
    assert request.from_client
    assert {key: getattr(request, key) for key in EXPECTED[name]} == EXPECTED[name]


@pytest.mark.parametrize("name", NAMES)
def test_agrees_with_scapy(name: str) -> None:
    data = packet(name)
    ours, theirs = parse(data), BOOTP(data)
    assert (ours.xid, ours.secs, ours.flags) == (theirs.xid, theirs.secs, int(theirs.flags))
    assert (ours.ciaddr, ours.yiaddr, ours.giaddr) == (theirs.ciaddr, theirs.yiaddr, theirs.giaddr)
    assert ours.mac == theirs.chaddr[:6].hex(":")
    named = {entry[0]: entry[1] for entry in theirs[DHCP].options if isinstance(entry, tuple)}
    assert ours.kind == named["message-type"]
    assert ours.requested_ip == named.get("requested_addr")
    assert ours.server_id == named.get("server_id")
    assert list(ours.params) == list(named.get("param_req_list", []))


def test_reads_what_scapy_builds() -> None:
    options = [
        ("message-type", "request"),
        ("requested_addr", "10.0.0.9"),
        ("hostname", b"n7"),
        ("max_dhcp_size", 1200),
        "end",
    ]
    data = bytes(BOOTP(op=1, xid=99, ciaddr="10.0.0.9", chaddr=b"\x52\x54\0\0\0\7") / DHCP(options=options))
    request = parse(data)
    assert (request.kind, request.xid, request.ciaddr, request.mac) == (
        Kind.REQUEST,
        99,
        "10.0.0.9",
        "52:54:00:00:00:07",
    )
    assert (request.requested_ip, request.hostname, request.limit) == ("10.0.0.9", "n7", 1172)


def test_scapy_reads_what_we_build() -> None:
    reply = DhcpReply(
        Kind.OFFER, 0xDEADBEEF, "52:54:00:00:00:01", 0x8000, yiaddr="10.0.0.5", siaddr="10.0.0.1", file="boot/x.efi"
    )
    reply.options = {
        dhcp.MASK: dhcp.ip("255.255.0.0"),
        dhcp.SERVER_ID: dhcp.ip("10.0.0.1"),
        dhcp.DNS: dhcp.ips(["10.0.0.1", "10.0.0.2"]),
        dhcp.LEASE: dhcp.u32(3600),
        dhcp.DOMAIN: dhcp.text("cluster.internal"),
        dhcp.RELAY: b"\x01\x01x",
    }
    data = build(reply)
    assert len(data) >= 300
    theirs = BOOTP(data)
    assert (theirs.op, theirs.xid, int(theirs.flags), theirs.yiaddr, theirs.siaddr) == (
        2,
        0xDEADBEEF,
        0x8000,
        "10.0.0.5",
        "10.0.0.1",
    )
    assert theirs.file.rstrip(b"\0") == b"boot/x.efi"
    entries = [entry for entry in theirs[DHCP].options if isinstance(entry, tuple)]
    assert entries[:2] == [("message-type", 2), ("server_id", "10.0.0.1")]
    assert ("name_server", "10.0.0.1", "10.0.0.2") in entries
    assert ("lease_time", 3600) in entries
    assert ("domain", b"cluster.internal") in entries
    assert entries[-1][0] == "relay_agent_information"


def test_long_values_are_split_and_joined_again() -> None:
    reply = DhcpReply(Kind.ACK, 1, "52:54:00:00:00:01", limit=1472)
    value = bytes(range(256)) * 2
    reply.options[dhcp.VENDOR] = value
    data = build(reply)
    assert data.count(bytes((dhcp.VENDOR, 255))) >= 2
    assert parse(data).options[dhcp.VENDOR] == value


def test_a_reply_too_long_for_the_client_leaves_out_what_matters_least() -> None:
    reply = DhcpReply(Kind.ACK, 1, "52:54:00:00:00:01")
    reply.options = {dhcp.SERVER_ID: dhcp.ip("10.0.0.1"), dhcp.CLIENT_ID: b"c" * 254, dhcp.NTP: dhcp.ip("10.0.0.1") * 4}
    reply.options[dhcp.BOOT_FILE] = b"u" * 100
    got = parse(build(reply)).options
    assert dhcp.BOOT_FILE in got and dhcp.SERVER_ID in got
    assert dhcp.CLIENT_ID not in got and dhcp.NTP not in got
    reply.options[dhcp.BOOT_FILE] = b"u" * 400
    with pytest.raises(DhcpInvalid, match="longer than the 548 bytes"):
        build(reply)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"file": "x" * 128}, "too long"),
        ({"sname": "x" * 64}, "too long"),
        ({"mac": "52:54"}, "hardware address"),
        ({"mac": "zz"}, "hardware address"),
        ({"yiaddr": "10.0.0"}, "IPv4"),
        ({"options": {0: b""}}, "not a DHCP option"),
        ({"options": {255: b""}}, "not a DHCP option"),
    ],
)
def test_what_cannot_be_built_says_why(change: dict[str, object], words: str) -> None:
    reply = DhcpReply(Kind.ACK, 1, "52:54:00:00:00:01")
    for key, value in change.items():
        setattr(reply, key, value)
    with pytest.raises(DhcpInvalid, match=words):
        build(reply)


def test_overloaded_fields_are_read_once_file_first() -> None:
    # RFC 3396 section 5: the order is options, file, sname. An overload option inside them opens nothing more.
    data = message(
        option(53, b"\1") + option(52, b"\3") + option(12, b"a") + b"\xff",
        file=option(12, b"b") + option(52, b"\3") + b"\xff",
        sname=option(12, b"c") + b"\xff",
    )
    assert parse(data).hostname == "abc"
    assert parse(message(option(53, b"\1") + b"\xff", file=option(12, b"b"))).hostname == ""


def test_user_classes_in_both_forms() -> None:
    def classes(value: bytes) -> tuple[str, ...]:
        return parse(message(option(53, b"\1") + option(77, value))).user_class

    assert classes(b"iPXE") == ("iPXE",)
    assert classes(b"\x04iPXE") == ("iPXE",)
    assert classes(b"\x03abc\x04iPXE") == ("abc", "iPXE")
    assert classes(b"\x03abc\x09iPXE") == ("?abc?iPXE",)
    assert parse(message(option(53, b"\1") + option(77, b""))).user_class == ()


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "shorter"),
        (b"\1" * 239, "shorter"),
        (b"\1" * 1501, "longer than 1500"),
        (message(option(53, b"\1")).replace(b"\x63\x82\x53\x63", b"\0\0\0\0"), "magic"),
        (b"\3" + message(option(53, b"\1"))[1:], "op 3"),
        (message(option(53, b"\1"), hlen=44), "44 bytes"),
        (message(option(53, b"\1"), hlen=0), "0 bytes"),
        (message(option(53, b"\1"), mac=b"\0" * 6), "no single network card"),
        (message(option(53, b"\1"), mac=b"\xff" * 6), "no single network card"),
        (message(b"\xff"), "message type"),
        (message(option(53, b"\1") + option(53, b"\3")), "message type"),
        (message(option(53, b"")), "message type"),
        (message(option(53, b"\x63")), "message type"),
        (message(option(53, b"\1") + b"\x3d\xc8\1"), "option 61 runs past"),
        (message(option(53, b"\1") + b"\x3d"), "option 61 runs past"),
        (message(option(53, b"\1") + option(52, b"\7")), "overload"),
        (message(option(53, b"\1") + option(52, b"")), "overload"),
        (message(option(53, b"\1") + option(52, b"\1"), file=b"\x0c" + b"\xff" * 127), "option 12 runs past"),
    ],
)
def test_what_is_no_message_says_why(data: bytes, words: str) -> None:
    with pytest.raises(DhcpInvalid, match=words):
        parse(data)


def test_wrongly_sized_values_count_as_absent() -> None:
    options = b"".join(
        option(n, v)
        for n, v in ((53, b"\1"), (50, b"\1\2\3"), (54, b"\0\0\0\0"), (93, b"\0"), (97, b"\0abc"), (57, b"x"))
    )
    request = parse(message(options + option(61, b"") + option(60, b"")))
    assert (request.requested_ip, request.server_id, request.client_arch, request.uuid) == (None, None, None, None)
    assert (request.limit, request.vendor_class) == (548, "")


def test_hostile_text_comes_out_printable() -> None:
    request = parse(message(option(53, b"\1") + option(12, b"a\x1b[2J\r\n<b>\xff\0\0")))
    assert request.hostname == "a?[2J??<b>?"


def test_our_own_answers_are_not_from_a_client() -> None:
    assert not parse(build(DhcpReply(Kind.OFFER, 1, "52:54:00:00:00:01"))).from_client
    assert not parse(message(option(53, b"\2"))).from_client


@given(
    st.dictionaries(st.integers(1, 254).filter(lambda n: n not in (52, 53)), st.binary(max_size=300), max_size=4),
    st.sampled_from(Kind),
    st.integers(0, 2**32 - 1),
)
def test_what_is_built_is_read_back(options: dict[int, bytes], kind: Kind, xid: int) -> None:
    reply = DhcpReply(kind, xid, "52:54:00:00:00:01", options=dict(options), limit=1472)
    got = parse(build(reply))
    assert (got.kind, got.xid, got.mac) == (kind, xid, "52:54:00:00:00:01")
    expected = {number: value for number, value in options.items() if number in got.options}
    assert {number: value for number, value in got.options.items() if number != 53} == expected
    # Only what may be left out is left out.
    assert set(options) - set(expected) <= set(dhcp._EXPENDABLE)
