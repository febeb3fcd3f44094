"""Is an address in use already? The wire is asked before a machine is offered it (RFC 2131 section 3.1, point 2).

The question is an ARP probe (RFC 5227 section 2.1.1): it names no sender, so nobody's table learns a wrong address from
it. Nobody waits for the answer: it is here before a machine takes its offer up. The kernel's own table is left alone:
it holds 1024 neighbours, and a rack that is switched on would overflow it.
"""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import Callable, Iterable

from netboot.udp import Address, Drain

Claimed = Callable[[str, str], object]  # address, the card that has it

_PROTOCOL = 0x0806  # ETH_P_ARP, linux/if_ether.h
_REQUEST, _REPLY = 1, 2
_PACKET = struct.Struct("!HHBBH6s4s6s4s")  # RFC 826; Ethernet and IPv4
_EVERYBODY = b"\xff" * 6


def probe(card: bytes, address: str) -> bytes:
    """The question who has `address`, of somebody with that network card who has no address."""
    return _PACKET.pack(1, 0x0800, 6, 4, _REQUEST, card, bytes(4), bytes(6), socket.inet_aton(address))


def claim(packet: bytes) -> tuple[str, str] | None:
    """(address, card in lower case with colons) of an answer; None for every other packet."""
    if len(packet) < _PACKET.size:
        return None
    hardware, protocol, size, length, kind, card, address, _, _ = _PACKET.unpack_from(packet)
    if (hardware, protocol, size, length, kind) != (1, 0x0800, 6, 4, _REPLY) or not any(address):
        return None
    return socket.inet_ntoa(address), card.hex(":")


class Arp:
    """Asks on one interface, and hears who answers."""

    def __init__(
        self, loop: asyncio.AbstractEventLoop, interface: str, claimed: Claimed, log: Callable[[str], None]
    ) -> None:
        """`claimed` is called for every answer heard, whoever asked. Raises OSError where a process may not do this."""
        self.interface = interface
        sock = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, 0)
        try:
            sock.setblocking(False)
            sock.bind((interface, _PROTOCOL))
        except OSError:
            sock.close()
            raise
        self._card: bytes = sock.getsockname()[4]
        self._to: Address = (interface, _PROTOCOL, 0, 1, _EVERYBODY)  # type: ignore[assignment]  # packet(7)

        def heard(packet: bytes, source: Address) -> Iterable[tuple[bytes, Address]]:
            found = claim(packet)
            if found is not None:
                claimed(*found)
            return ()

        self._drain = Drain(loop, sock, heard, name="ARP", log=log)

    def ask(self, address: str) -> None:
        """Who has it?"""
        self._drain.send(probe(self._card, address), self._to)

    def close(self) -> None:
        """Hear nothing more."""
        self._drain.close()


def watch(loop: asyncio.AbstractEventLoop, interface: str, claimed: Claimed, log: Callable[[str], None]) -> Arp | None:
    """An Arp, or None with a line in the log where it cannot be had: a conflict is then found by the machine itself,
    if it looks (DHCPDECLINE)."""
    try:
        return Arp(loop, interface, claimed, log)
    except OSError as error:
        log(f"addresses are not probed on {interface}: {error.strerror or error}")
        return None
