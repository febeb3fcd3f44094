"""The empty router advertisement, with scapy as the second opinion and a real kernel as the receiver."""

from __future__ import annotations

import asyncio
import socket
import struct

import pytest
from scapy.layers.inet6 import ICMPv6ND_RA, ICMPv6ND_RS

from netboot import ra
from tests.netboot.lan import cable, needs_root


def test_the_advertisement_offers_nothing() -> None:
    packet = ICMPv6ND_RA(ra.advertisement())
    assert (packet.type, packet.code, packet.routerlifetime, packet.M, packet.O) == (134, 0, 0, 0, 0)
    assert len(ra.advertisement()) == 16  # no options: no prefix, no DNS, no MTU


def test_what_is_a_solicitation() -> None:
    assert ra.is_solicitation(bytes(ICMPv6ND_RS()))
    for data in (b"", b"\x85", b"\x85" + b"\0" * 6, b"\x85\1" + b"\0" * 6, b"\x86" + b"\0" * 15):
        assert not ra.is_solicitation(data)


def test_no_such_interface_is_not_fatal() -> None:
    async def main() -> list[str]:
        lines: list[str] = []
        assert ra.answer_solicitations(asyncio.get_running_loop(), "nope0", lines.append) is None
        return lines

    lines = asyncio.run(main())
    assert len(lines) == 1 and "nope0" in lines[0]


def _advertised(client: socket.socket) -> bytes:
    """The first router advertisement among what has arrived, or nothing."""
    for _ in range(100):
        try:
            data = client.recv(2000)
        except BlockingIOError:
            return b""
        if data[0] == ra.ADVERTISEMENT:
            return data
    return b""


class TestCable:
    pytestmark = needs_root

    def test_a_solicitation_is_answered_and_nothing_else_is(self) -> None:
        async def main() -> None:
            loop = asyncio.get_running_loop()
            with cable() as lan:
                for namespace, device in ((lan.head, "head0"), (lan.node, "node0")):
                    # Duplicate address detection would keep the link-local address unusable for a second.
                    lan.ip("netns", "exec", namespace, "sysctl", "-qw", f"net.ipv6.conf.{device}.accept_dad=0")
                    lan.ip("-n", namespace, "link", "set", device, "down")
                    lan.ip("-n", namespace, "link", "set", device, "up")
                with lan.at_head():
                    drain = ra.answer_solicitations(loop, "head0")
                if drain is None:
                    pytest.skip("no IPv6 here")
                with lan.at_node():
                    client = socket.socket(socket.AF_INET6, socket.SOCK_RAW, socket.IPPROTO_ICMPV6)
                    index = socket.if_nametoindex("node0")
                with client:
                    client.setblocking(False)
                    client.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_HOPS, 255)
                    routers = ("ff02::2", 0, 0, index)
                    async with asyncio.timeout(10):
                        data = b""
                        while not data:  # until the link of the new device is up
                            await asyncio.sleep(0.02)
                            try:
                                # A ping too: that is the kernel's business, not ours.
                                client.sendto(b"\x80" + b"\0" * 7, routers)
                                client.sendto(struct.pack("!BBHI", 133, 0, 0, 0), routers)
                                data = _advertised(client)
                            except OSError:
                                continue
                assert data[4:] == ra.advertisement()[4:]
                # Pings never reach us: the kernel's filter lets solicitations through and nothing else.
                assert drain.received == drain.answered + drain.dropped
                assert drain.errors == 0
                drain.close()

        asyncio.run(main())
