"""What is in the head's answers, and where they go."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import IPv4Network

import pytest

from netboot import dhcp, replies
from netboot.dhcp import BROADCAST, Kind, build, parse
from netboot.firmware import boot_file
from netboot.replies import NetworkOptions, ack, destination, nak, offer, proxy
from tests.netboot.packets import NAMES, packet

HEAD = "10.77.0.1"
NET = NetworkOptions(HEAD, "255.255.255.0", "10.77.0.254", (HEAD, "10.77.0.2"), "cluster.internal", 600, (HEAD,), 9000)
ADDRESS = "10.77.0.100"


def request(name: str) -> dhcp.DhcpRequest:
    return parse(packet(name))


def sent(reply: dhcp.DhcpReply) -> dhcp.DhcpRequest:
    return parse(build(reply))


@pytest.mark.parametrize("name", NAMES)
def test_every_known_client_can_be_offered_an_address(name: str) -> None:
    asked = request(name)
    got = sent(offer(asked, ADDRESS, NET, boot_file(asked, HEAD, secure=False), "n1"))
    assert (got.kind, got.op, got.xid, got.mac, got.yiaddr) == (Kind.OFFER, 2, asked.xid, asked.mac, ADDRESS)
    assert (got.giaddr, got.flags, got.ciaddr) == (asked.giaddr, asked.flags, "0.0.0.0")
    values = got.options
    assert got.server_id == HEAD
    assert values[dhcp.LEASE] == (600).to_bytes(4, "big")
    assert values[dhcp.RENEW] == (300).to_bytes(4, "big")
    assert values[dhcp.REBIND] == (525).to_bytes(4, "big")
    assert values[dhcp.MASK] == b"\xff\xff\xff\0"
    assert values[dhcp.ROUTER] == bytes((10, 77, 0, 254))
    assert values[dhcp.DNS] == bytes((10, 77, 0, 1, 10, 77, 0, 2))
    assert values[dhcp.HOSTNAME] == b"n1"
    assert values[dhcp.DOMAIN] == b"cluster.internal"
    for number in (dhcp.CLIENT_ID, dhcp.RELAY):
        assert values.get(number) == asked.options.get(number)
    assert len(build(offer(asked, ADDRESS, NET, None, "n1"))) <= asked.limit


def test_only_what_was_asked_for_of_the_rest() -> None:
    plain = sent(ack(request("renewal-request"), ADDRESS, NET, None, "n1")).options
    assert plain[dhcp.BROADCAST_ADDRESS] == bytes((10, 77, 0, 255))
    assert dhcp.MTU not in plain and dhcp.NTP not in plain
    full = sent(ack(request("udhcpc-request"), ADDRESS, NET, None, "n1")).options
    assert full[dhcp.MTU] == b"\x23\x28"
    assert full[dhcp.NTP] == bytes((10, 77, 0, 1))


def test_no_router_no_names_no_hostname() -> None:
    bare = sent(offer(request("dhclient-discover"), ADDRESS, NetworkOptions(HEAD, "255.255.255.0"), None, "")).options
    assert not {dhcp.ROUTER, dhcp.DNS, dhcp.DOMAIN, dhcp.HOSTNAME, dhcp.BOOT_FILE, dhcp.TFTP_SERVER} & set(bare)


def test_boot_file_for_pxe() -> None:
    asked = request("ovmf-pxe-request")
    got = ack(asked, ADDRESS, NET, boot_file(asked, HEAD, secure=False), "n1")
    assert (got.siaddr, got.file) == (HEAD, "snponly.efi")
    values = sent(got).options
    assert values[dhcp.BOOT_FILE] == b"snponly.efi\0"
    assert values[dhcp.TFTP_SERVER] == b"10.77.0.1\0"
    assert values[dhcp.UUID] == asked.options[dhcp.UUID]
    # EDK2 would ask port 4011 after an offer that says PXEClient.
    assert dhcp.VENDOR_CLASS not in values


def test_boot_file_for_http_and_ipxe() -> None:
    asked = request("ovmf-http-discover")
    http = offer(asked, ADDRESS, NET, boot_file(asked, HEAD, secure=False), "n1")
    assert sent(http).vendor_class == "HTTPClient"
    assert sent(http).options[dhcp.BOOT_FILE] == b"http://10.77.0.1/boot/snponly.efi\0"
    assert dhcp.TFTP_SERVER not in http.options
    asked = request("ipxe-bios-discover")
    ipxe = sent(offer(asked, ADDRESS, NET, boot_file(asked, HEAD, secure=False), "n1")).options
    assert ipxe[dhcp.IPXE] == b"\xb0\x01\x01"
    assert ipxe[dhcp.BOOT_FILE] == b"http://10.77.0.1/boot.ipxe?mac=52:54:00:12:34:56\0"


def test_a_renewal_and_an_inform() -> None:
    renewal = ack(request("renewal-request"), ADDRESS, NET, None, "n1")
    assert (renewal.kind, renewal.ciaddr, renewal.yiaddr) == (Kind.ACK, ADDRESS, ADDRESS)
    asked = replace(request("renewal-request"), kind=Kind.INFORM)
    inform = ack(asked, "", NET, None, "")
    assert inform.yiaddr == "0.0.0.0"
    assert not {dhcp.LEASE, dhcp.RENEW, dhcp.REBIND} & set(inform.options)  # RFC 2131 section 4.3.5
    assert destination(asked, inform) == (ADDRESS, 68)


def test_nak() -> None:
    asked = request("udhcpc-request")
    got = nak(asked, HEAD, "x" * 300)
    assert (got.yiaddr, got.ciaddr, got.siaddr) == ("0.0.0.0", "0.0.0.0", "0.0.0.0")
    assert sent(got).kind is Kind.NAK
    assert set(sent(got).options) == {dhcp.KIND, dhcp.SERVER_ID, dhcp.MESSAGE, dhcp.CLIENT_ID}
    relayed = nak(request("relayed-discover"), HEAD, "no")
    assert relayed.flags & 0x8000
    assert destination(request("relayed-discover"), relayed) == ("10.78.0.1", 67)


def test_proxy_never_carries_an_address() -> None:
    for name, vendor in (("ovmf-pxe-discover", False), ("pxe-rom-discover", True), ("ipxe-uefi-discover", True)):
        asked = request(name)
        boot = boot_file(asked, HEAD, secure=False)
        assert boot
        got = proxy(asked, HEAD, boot)
        values = sent(got).options
        assert got.yiaddr == "0.0.0.0"
        assert not {dhcp.LEASE, dhcp.MASK, dhcp.ROUTER} & set(values)
        assert (got.kind, values[dhcp.VENDOR_CLASS]) == (Kind.OFFER, b"PXEClient")
        assert values.get(dhcp.VENDOR) == (b"\x06\x01\x08\xff" if vendor else None)
        assert values[dhcp.BOOT_FILE].startswith(boot.name.encode())
    asked = request("ovmf-pxe-request")
    boot = boot_file(asked, HEAD, secure=False)
    assert boot and proxy(asked, HEAD, boot).kind is Kind.ACK


def test_where_replies_go() -> None:
    def to(name: str, networks: tuple[IPv4Network, ...] = ()) -> tuple[str, int]:
        asked = request(name)
        return destination(asked, ack(asked, ADDRESS, NET, None, ""), networks)

    assert to("dhclient-request") == (BROADCAST, 68)  # no address yet, broadcast flag clear
    assert to("ovmf-pxe-request") == (BROADCAST, 68)  # broadcast flag set
    assert to("renewal-request") == (ADDRESS, 68)
    assert to("relayed-discover") == ("10.78.0.1", 67)
    asked = request("renewal-request")
    assert destination(asked, nak(asked, HEAD, "no")) == (BROADCAST, 68)
    # Addresses outside our networks would make a reflector of us.
    ours = (IPv4Network("10.77.0.0/24"),)
    assert to("renewal-request", ours) == (ADDRESS, 68)
    assert to("relayed-discover", ours) == (BROADCAST, 68)
    assert to("relayed-discover", (*ours, IPv4Network("10.78.0.0/24"))) == ("10.78.0.1", 67)


def test_a_boot_url_too_long_for_the_header_goes_into_the_option_alone() -> None:
    asked = request("ipxe-bios-discover")
    boot = boot_file(asked, HEAD, secure=False)
    assert boot
    long = replace(boot, name="http://10.77.0.1/" + "x" * 200)
    got = replies.offer(asked, ADDRESS, NET, long, "n1")
    assert got.file == ""
    assert sent(got).options[dhcp.BOOT_FILE] == long.name.encode() + b"\0"
