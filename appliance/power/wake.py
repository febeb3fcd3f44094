"""Sends Wake-on-LAN: on every interface that is up, as broadcast datagram and as raw frame, and through routers."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Iterable, Sequence
from ipaddress import IPv4Network

from netboot.udp import Interface, UdpError, interfaces, open_udp
from netboot.wol import ETHERTYPE, EVERYBODY, PORT, directed, frame, magic

COPIES = 3  # nobody says whether one has arrived


def wake(macs: Sequence[str], address: str, networks: Iterable[IPv4Network], more: Sequence[str] = ()) -> list[str]:
    """Wake the machine with these cards. `address` is the node's, `networks` those of the site, for a machine behind a
    router; `more` are broadcast addresses beside those. Gives the interfaces and addresses on which something went
    out, none if nothing did. Never raises: a card without cable must not keep the others from it."""
    found = [entry for entry in interfaces() if entry.up and not entry.loopback]
    local = [entry.address.network for entry in found if entry.address is not None]
    sent = [entry.name for entry in found if _datagrams(macs, entry) | _frames(macs, entry)]
    beyond = directed(address, networks, local)
    for place in dict.fromkeys([*([beyond] if beyond else []), *more]):
        if _routed(macs, place):
            sent.append(place)
    return sent


def _datagrams(macs: Sequence[str], through: Interface) -> bool:
    if through.address is None:
        return False
    with contextlib.suppress(OSError, UdpError), open_udp(0, interface=through.name, broadcast=True) as sock:
        _send(sock, macs, EVERYBODY)
        return True
    return False


def _routed(macs: Sequence[str], place: str) -> bool:
    with contextlib.suppress(OSError, UdpError), open_udp(0, broadcast=True) as sock:
        _send(sock, macs, place)
        return True
    return False


def _send(sock: socket.socket, macs: Sequence[str], place: str) -> None:
    for mac in macs:
        for _ in range(COPIES):
            sock.sendto(magic(mac), (place, PORT))


def _frames(macs: Sequence[str], through: Interface) -> bool:
    """Raw frames; a process without CAP_NET_RAW sends none, and a device without Ethernet frames takes none."""
    with contextlib.suppress(OSError), socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as sock:
        sock.bind((through.name, ETHERTYPE))
        for mac in macs:
            for _ in range(COPIES):
                sock.send(frame(mac, through.mac))
        return True
    return False
