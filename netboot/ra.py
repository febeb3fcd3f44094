"""An empty answer to IPv6 router solicitations (RFC 4861), so that iPXE does not wait for a router there is none of.

iPXE with IPv6 waits about 13 s for a router advertisement on a network without one. An advertisement with router
lifetime 0, no prefix and no flags configures nothing on anybody and ended the wait at once (measured: from 19.0 s to
5.4 s until the boot script was asked for).
"""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import Callable, Iterable

from netboot.udp import Address, Drain

SOLICITATION, ADVERTISEMENT = 133, 134
ALL_ROUTERS, ALL_NODES = "ff02::2", "ff02::1"
_ICMP6_FILTER = 1  # linux/icmpv6.h
_PACKET = struct.Struct("!BBHBBHII")


def is_solicitation(packet: bytes) -> bool:
    """`packet` is an ICMPv6 router solicitation (RFC 4861 section 4.1). The kernel has checked its sum."""
    return len(packet) >= 8 and packet[0] == SOLICITATION and packet[1] == 0


def advertisement() -> bytes:
    """A router advertisement that advertises nothing: hop limit unspecified, no flags, lifetime 0, no options. The
    kernel fills in the checksum (RFC 3542 section 3.1)."""
    return _PACKET.pack(ADVERTISEMENT, 0, 0, 0, 0, 0, 0, 0)


def answer_solicitations(
    loop: asyncio.AbstractEventLoop, interface: str, log: Callable[[str], None] | None = None
) -> Drain | None:
    """Answer on `interface` until the returned Drain is closed. None, with a line in the log, where it cannot be done
    (no IPv6 in this kernel, no root): machines then boot 13 s later, which is no reason to stop."""
    try:
        sock = _open(interface)
    except OSError as error:
        if log is not None:
            log(
                f"no IPv6 router advertisements on {interface}: {error.strerror or error}; iPXE waits 13 s longer there"
            )
        return None
    index = socket.if_nametoindex(interface)
    everybody: Address = (ALL_NODES, 0, 0, index)  # type: ignore[assignment]

    def handle(packet: bytes, source: Address) -> Iterable[tuple[bytes, Address]]:
        return ((advertisement(), everybody),) if is_solicitation(packet) else ()

    return Drain(loop, sock, handle, name="RA", limit=16, log=log)


def _open(interface: str) -> socket.socket:
    sock = socket.socket(socket.AF_INET6, socket.SOCK_RAW, socket.IPPROTO_ICMPV6)
    try:
        sock.setblocking(False)
        index = socket.if_nametoindex(interface)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, interface.encode() + b"\0")
        # Receivers drop what has not hop limit 255 (RFC 4861 section 6.1.2).
        sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_HOPS, 255)
        # RFC 3542 section 3.2: a set bit blocks; only solicitations come through, not every neighbour message.
        passed = bytearray(b"\xff" * 32)
        word, bit = divmod(SOLICITATION, 32)
        struct.pack_into("=I", passed, word * 4, 0xFFFFFFFF & ~(1 << bit))
        sock.setsockopt(socket.IPPROTO_ICMPV6, _ICMP6_FILTER, bytes(passed))
        group = socket.inet_pton(socket.AF_INET6, ALL_ROUTERS) + struct.pack("@I", index)
        sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_JOIN_GROUP, group)
    except OSError:
        sock.close()
        raise
    return sock
