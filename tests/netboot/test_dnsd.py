"""The DNS server's sockets, asked by dig."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace
from ipaddress import IPv4Network

import pytest
from dnslib import DNSHeader, DNSQuestion, DNSRecord

from netboot import dnsd
from netboot.dns import Zone
from netboot.dnsd import DnsServer
from netboot.udp import UdpError
from tests.netboot.lan import HEAD_IP, cable, needs_root

ZONE = Zone("cluster.internal", "head", "127.0.0.1", {"n1": "127.0.0.5"}, (IPv4Network("127.0.0.0/8"),))


def query(name: str) -> bytes:
    return bytes(DNSRecord(DNSHeader(id=0x1234, rd=1), q=DNSQuestion(name)).pack())


def serve(test: Callable[[DnsServer, list[Zone]], Awaitable[None]]) -> None:
    async def main() -> None:
        zones = [ZONE]
        server = DnsServer(asyncio.get_running_loop(), lambda: zones[0], address="127.0.0.1", port=0)
        await server.start()
        try:
            await asyncio.wait_for(test(server, zones), 20)
        finally:
            await server.close()

    asyncio.run(main())


async def over_tcp(port: int, *messages: bytes) -> bytes:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        for message in messages:
            writer.write(message)
        writer.write_eof()
        return await reader.read()
    finally:
        writer.close()


def framed(message: bytes) -> bytes:
    return len(message).to_bytes(2, "big") + message


def test_tcp_answers_several_questions_and_drops_nonsense() -> None:
    async def test(server: DnsServer, zones: list[Zone]) -> None:
        one = framed(query("n1.cluster.internal"))
        got = await over_tcp(server.port, one, one, one)
        length = int.from_bytes(got[:2], "big")
        assert len(got) == 3 * (length + 2)
        assert got[2:4] == b"\x12\x34"
        for junk in (b"\xff\xff" + b"x" * 100, b"\0", b"\0\x05ab", framed(b"\x12\x34\x80\0" + b"\0" * 8)):
            assert await over_tcp(server.port, junk) == b""
        assert len(await over_tcp(server.port, one)) == length + 2
        # A connection may have any number of malformed questions; each gets its answer.
        assert (await over_tcp(server.port, framed(b"\x12\x34\x01\0" + b"\xff" * 8), one))[2:6] == b"\x12\x34\x81\x01"

    serve(test)


def test_connections_are_bounded_and_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dnsd, "IDLE_SECONDS", 0.05)

    async def test(server: DnsServer, zones: list[Zone]) -> None:
        open_ones = [await asyncio.open_connection("127.0.0.1", server.port) for _ in range(dnsd.MAX_PER_CLIENT)]
        with pytest.raises(ConnectionError):
            assert await over_tcp(server.port, framed(query("n1.cluster.internal"))) == b""
            raise ConnectionError
        assert server.refused == 1
        for reader, writer in open_ones:  # closed by the server for saying nothing
            assert await reader.read() == b""
            writer.close()
        assert len(await over_tcp(server.port, framed(query("n1.cluster.internal")))) > 12

    serve(test)


def test_a_new_zone_is_served_at_once() -> None:
    async def test(server: DnsServer, zones: list[Zone]) -> None:
        asked = framed(query("n2.cluster.internal"))
        assert (await over_tcp(server.port, asked))[5] & 15 == 3
        zones[0] = replace(ZONE, names={"n2": "127.0.0.6"})
        assert (await over_tcp(server.port, asked))[5] & 15 == 0

    serve(test)


def test_a_port_in_use_leaves_nothing_open() -> None:
    async def test(server: DnsServer, zones: list[Zone]) -> None:
        with pytest.raises(UdpError, match=f"port {server.port}"):
            DnsServer(asyncio.get_running_loop(), lambda: ZONE, address="127.0.0.1", port=server.port)

    serve(test)


class TestCable:
    pytestmark = needs_root

    def test_dig(self) -> None:
        zone = Zone("cluster.internal", "head", HEAD_IP, {"n1": "10.77.0.100"}, (IPv4Network("10.77.0.0/24"),))

        async def main() -> dict[str, str]:
            with cable() as lan:
                lan.ip("-n", lan.node, "address", "add", "10.77.0.9/24", "dev", "node0")
                with lan.at_head():
                    server = DnsServer(asyncio.get_running_loop(), lambda: zone, address=HEAD_IP, interface="head0")
                await server.start()
                texts = {}
                for words in (
                    "n1.cluster.internal",
                    "+tcp n1.cluster.internal",
                    "-x 10.77.0.100",
                    "nobody.cluster.internal",
                    "example.com",
                    "+edns=5 +noednsnegotiation n1.cluster.internal",
                    "cluster.internal AXFR",
                    "n1.cluster.internal ANY",
                ):
                    code, texts[words] = await lan.run("dig", f"@{HEAD_IP}", "+tries=1", "+time=3", *words.split())
                    assert code == 0, texts[words]
                await server.close()
                assert server.drain.errors == 0
            return texts

        got = asyncio.run(main())
        assert "10.77.0.100" in got["n1.cluster.internal"]
        assert "10.77.0.100" in got["+tcp n1.cluster.internal"]
        assert "n1.cluster.internal." in got["-x 10.77.0.100"].split("ANSWER SECTION")[1]
        assert "NXDOMAIN" in got["nobody.cluster.internal"] and "SOA" in got["nobody.cluster.internal"]
        assert "REFUSED" in got["example.com"]
        assert "BADVERS" in got["+edns=5 +noednsnegotiation n1.cluster.internal"]
        assert "Transfer failed" in got["cluster.internal AXFR"]
        assert "10.77.0.100" in got["n1.cluster.internal ANY"]
