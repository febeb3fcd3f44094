"""Wake-on-LAN: what wakes a machine that is switched off but has its network card listening.

The card looks for six bytes FF and sixteen times its own address anywhere in a frame (AMD, "Magic Packet Technology",
publication 20213, 1995). It goes out in two forms: some cards in their sleep take only one of them.
"""

from __future__ import annotations

from collections.abc import Iterable
from ipaddress import IPv4Address, IPv4Network

ETHERTYPE = 0x0842  # of the raw form; the one that etherwake and ether-wake use
PORT = 9  # discard: nothing answers there, and it is what other senders use
EVERYBODY = "255.255.255.255"
_ALL_STATIONS = b"\xff" * 6


def magic(mac: str) -> bytes:
    """The 102 bytes for a card, `mac` as netboot.identity.real_mac gives it."""
    return _ALL_STATIONS + bytes.fromhex(mac.replace(":", "")) * 16


def frame(mac: str, source: str) -> bytes:
    """The raw form: an Ethernet frame from the card `source`. To all stations, for a switch has long forgotten behind
    which port a sleeping machine is."""
    return _ALL_STATIONS + bytes.fromhex(source.replace(":", "")) + ETHERTYPE.to_bytes(2, "big") + magic(mac)


def directed(address: str, networks: Iterable[IPv4Network], local: Iterable[IPv4Network]) -> str:
    """The broadcast address of the network that `address` is in, if that is behind a router; else "". A router passes
    it on only if it is told to (RFC 2644), so this is a try more and never the only one."""
    try:
        there = IPv4Address(address)
    except ValueError:
        return ""
    if any(there in network for network in local):
        return ""
    found = [network for network in networks if there in network and network.prefixlen < 31]
    return str(max(found, key=lambda network: network.prefixlen).broadcast_address) if found else ""
