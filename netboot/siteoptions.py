"""DHCP options of a site's own, as people write them: "43=hex:0104", "119=text:x", "150=ip:10.0.0.9"; and routes."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from ipaddress import IPv4Address, IPv4Network

from images.errors import GildError
from netboot import dhcp

Route = tuple[str, str]  # network, router

# What the head decides itself, for every machine or for one that boots: a site's value would break either.
OWN = {
    dhcp.MASK: "the network", dhcp.ROUTER: "--router", dhcp.DNS: "--dns", dhcp.HOSTNAME: "the node's name",
    dhcp.DOMAIN: "the setting domain", dhcp.MTU: "--mtu", dhcp.BROADCAST_ADDRESS: "the network", dhcp.NTP: "--ntp",
    dhcp.LEASE: "--lease", dhcp.ROUTES: "--route",
    **dict.fromkeys((50, 52, 53, 54, 55, 57, 58, 59, 60, 61, 66, 67, 82, 93, 94, 97, 175), "the boot"),
}  # fmt: skip
MAX_VALUE = 255  # bytes


class OptionInvalid(GildError):
    """An option or a route is not written as it should be, or is not the site's to give."""


def read_option(text: str) -> tuple[int, bytes]:
    """Number and value of "NUMBER=KIND:VALUE". Raises OptionInvalid."""
    number, equals, rest = text.partition("=")
    kind, colon, value = rest.partition(":")
    if (
        not (number.isascii() and number.isdigit() and equals and colon and kind in _KINDS)
        or not 1 <= int(number) <= 254
    ):
        raise OptionInvalid(
            f"option {text[:60]!r} is not NUMBER=KIND:VALUE", f"such as 150=ip:10.0.0.9; kinds: {', '.join(_KINDS)}"
        )
    if int(number) in OWN:
        raise OptionInvalid(f"option {number} is not a site's to give", f"it comes from {OWN[int(number)]}")
    try:
        packed = _KINDS[kind](value)
    except ValueError:
        raise OptionInvalid(f"option {number}: {value[:60]!r} is not {_WANTED[kind]}") from None
    if not 1 <= len(packed) <= MAX_VALUE:
        raise OptionInvalid(f"option {number} has {len(packed)} bytes", f"1 to {MAX_VALUE} fit")
    return int(number), packed


def read_route(text: str) -> Route:
    """Network and router of "10.0.0.0/8 via 10.1.0.1". Raises OptionInvalid."""
    match = re.fullmatch(r"(\S+)\s+via\s+(\S+)", text.strip())
    try:
        if match:
            return str(IPv4Network(match[1])), str(IPv4Address(match[2]))
    except ValueError:
        pass
    raise OptionInvalid(f"route {text[:60]!r} is not NETWORK via ROUTER", "such as 10.0.0.0/8 via 10.1.0.1")


def classless_routes(routes: Iterable[Route], router: str) -> bytes:
    """Option 121 (RFC 3442): prefix length, the bytes of the network that count, router. A client that is sent this
    ignores option 3, so the default route goes in as well."""
    wanted = [*routes, *((("0.0.0.0/0", router),) if router else ())]
    parts = []
    for network, via in wanted:
        net = IPv4Network(network)
        parts.append(bytes((net.prefixlen,)) + net.network_address.packed[: (net.prefixlen + 7) // 8] + dhcp.ip(via))
    return b"".join(parts)


def _number(size: int) -> Callable[[str], bytes]:
    def pack(value: str) -> bytes:
        try:
            return int(value, 0).to_bytes(size, "big")
        except OverflowError:
            raise ValueError from None

    return pack


def _addresses(value: str) -> bytes:
    return b"".join(IPv4Address(word.strip()).packed for word in value.split(","))


_KINDS: dict[str, Callable[[str], bytes]] = {
    "ip": _addresses,
    "text": lambda value: value.encode("ascii"),
    "hex": lambda value: bytes.fromhex(value.replace(":", "")),
    "u8": _number(1),
    "u16": _number(2),
    "u32": _number(4),
}
_WANTED = {
    "ip": "one or more IPv4 addresses with commas", "text": "ASCII text", "hex": "bytes such as 01:02:ff",
    "u8": "a number of 8 bits", "u16": "a number of 16 bits", "u32": "a number of 32 bits",
}  # fmt: skip
