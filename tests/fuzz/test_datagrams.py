"""Every decoder of datagrams against damaged messages: it returns, or it raises its one documented error.

The corpus holds real messages and those that killed servers before. Each is replayed as it is, then mutated with a
fixed seed, so that a failure comes back; the failing bytes are in the message of the assertion.
"""

from __future__ import annotations

import asyncio
import os
import random
import socket
from collections.abc import Callable, Iterator
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path

import pytest
from dnslib import DNSRecord

from netboot import arp, dhcp, dns, firmware, forward, lldp, replies, tftp, udp
from netboot.tftpd import BytesSource, TftpServer

CORPUS = Path(__file__).parent / "corpus"
NETWORK = replies.NetworkOptions("10.77.0.1", "255.255.255.0", "10.77.0.1", ("10.77.0.1",), "cluster.internal")
ZONE = dns.Zone("cluster.internal", "head", "10.77.0.1", {"n1": "10.77.0.100"}, (IPv4Network("10.77.0.0/24"),))


def seeds(target: str) -> list[bytes]:
    found = [path.read_bytes() for path in sorted((CORPUS / target).glob("*.bin"))]
    assert found, f"no corpus for {target}"
    return found


def mutate(rng: random.Random, data: bytes, others: list[bytes]) -> bytes:
    """One to four small damages: bytes changed, lengths and counts made extreme, parts cut, doubled or exchanged."""
    out = bytearray(data)
    for _ in range(rng.choice((1, 1, 1, 2, 4))):
        at = rng.randrange(len(out)) if out else 0
        match rng.randrange(7):
            case 0 if out:
                out[at] ^= 1 << rng.randrange(8)
            case 1 if out:
                out[at] = rng.choice((0, 1, 63, 64, 127, 128, 192, 254, 255))
            case 2:
                del out[at:]
            case 3:
                del out[at : at + rng.randint(1, 8)]
            case 4:
                out[at:at] = rng.randbytes(rng.randint(1, 16))
            case 5:
                out += out[at : at + rng.randint(1, 64)]
            case _:
                other = rng.choice(others)
                cut = rng.randrange(len(other) + 1)
                out[at:] = other[cut:]
    return bytes(out[:2000])


def cases(target: str, count: int) -> Iterator[bytes]:
    corpus, rng = seeds(target), random.Random(f"{target} 1")
    yield from corpus
    for number in range(count):
        # DHCP's options begin behind 240 bytes of header; most damage should fall where the parsing is.
        seed = corpus[number % len(corpus)]
        if target == "dhcp" and number % 4:
            yield seed[:240] + mutate(rng, seed[240:], [other[240:] for other in corpus])
        else:
            yield mutate(rng, seed, corpus)


def one_dhcp(data: bytes) -> None:
    try:
        request = dhcp.parse(data)
    except dhcp.DhcpInvalid:
        return
    for name in ("vendor_class", "user_class", "hostname"):
        value = getattr(request, name)
        assert all(text.isprintable() for text in ([value] if isinstance(value, str) else value))
    assert request.uuid is None or len(request.uuid) == 36
    boot = firmware.boot_file(request, "10.77.0.1", secure=False)
    for reply in (
        replies.offer(request, "10.77.0.100", NETWORK, boot, "n1"),
        replies.ack(request, "10.77.0.100", NETWORK, boot, "n1"),
        replies.ack(request, "", NETWORK, boot, ""),
        replies.nak(request, "10.77.0.1", "no"),
        *([replies.proxy(request, "10.77.0.1", boot)] if boot else []),
    ):
        try:
            built = dhcp.build(reply)
        except dhcp.DhcpInvalid as error:
            # Only a relay's option 82 that fills the packet by itself leaves no room.
            assert len(request.relay_info) > 100, error
            continue
        assert 300 <= len(built) <= request.limit
        assert dhcp.parse(built).kind is reply.kind
        replies.destination(request, reply)


def one_tftp(data: bytes) -> None:
    content = b"x" * 3000
    transfer = tftp.Transfer(
        tftp.ReadRequest("x", "octet", {"windowsize": "4"}), len(content), lambda a, n: content[a : a + n]
    )
    packets = [*transfer.start(0), *transfer.on_packet(b"\0\4\0\0", 0), *transfer.on_packet(data, 0)]
    assert len(packets) <= 1 + 4 + 4
    tftp.read_error(data)
    try:
        request = tftp.parse_request(data)
    except tftp.TftpInvalid as error:
        assert len(tftp.error(error.code, error.message)) <= 300
        return
    assert request.name.isprintable() and request.mode in ("octet", "netascii")
    transfer = tftp.Transfer(request, len(content), lambda a, n: content[a : a + n])
    first = transfer.start(0)
    assert len(first) == 1 and len(first[0]) <= 1472
    assert 8 <= transfer.blksize <= 1468 and 1 <= transfer.window <= 64 and 1 <= transfer.timeout <= 255


def one_dns(data: bytes) -> None:
    for tcp in (False, True):
        reply = dns.answer(data, ZONE, "10.77.0.50", tcp)
        if reply is None:
            assert len(data) < 12 or data[2] & 0x80
            continue
        assert reply[:2] == data[:2] and reply[2] & 0x80
        assert len(reply) <= (65535 if tcp else 1232)
        assert reply[3] & 15 in (0, dns.FORMERR, dns.NXDOMAIN, dns.NOTIMP, dns.REFUSED)
        if len(reply) > 12:
            assert DNSRecord.parse(reply).header.qr == 1


# The corpus of answers was made for this question: number 77, all letters small.
ASKED = forward.Question(0x1234, 0x0100, b"\3www\7example\3com\0\0\1\0\1", 1232, 0)
SENT = forward.outgoing(ASKED, 77, 0)


def one_answer(data: bytes) -> None:
    forward.question(data)
    for tcp in (False, True):
        found = forward.incoming(data, SENT, tcp)
        if found is None or found in (forward.AGAIN, forward.USELESS):
            continue
        assert 0 <= found.ttl <= forward.MAX_TTL and len(found.ttls) == sum(found.counts)
        told = forward.reply(ASKED, found, tcp, 7)
        assert told[:2] == b"\x12\x34" and len(told) <= (65535 if tcp else 1232)
        # What we say can be read again, and means the same.
        again = forward.incoming(SENT[:2] + told[2:], SENT, True)
        assert again is not None and (again is forward.USELESS or again.counts == found.counts)


def one_lldp(data: bytes) -> None:
    found = lldp.parse(data)
    assert found is None or all(0 < len(text) <= lldp.MAX_TEXT and text.isprintable() for text in found)


def one_arp(data: bytes) -> None:
    found = arp.claim(data)
    assert found is None or (IPv4Address(found[0]) and len(found[1]) == 17)


TARGETS: dict[str, Callable[[bytes], None]] = {
    "dhcp": one_dhcp, "tftp": one_tftp, "dns": one_dns, "answers": one_answer,
    "lldp": one_lldp, "arp": one_arp,
}  # fmt: skip


@pytest.mark.parametrize("target", TARGETS)
def test_damaged_messages_have_one_outcome(target: str) -> None:
    for data in cases(target, 12_000):
        try:
            TARGETS[target](data)
        except Exception as error:
            raise AssertionError(f"{target} {data.hex()}: {error!r}") from error


def test_the_drain_answers_the_next_good_message_after_every_bad_one() -> None:
    good = (CORPUS / "dhcp" / "ipxe-bios-discover.bin").read_bytes()

    def handle(data: bytes, source: tuple[str, int]) -> list[tuple[bytes, tuple[str, int]]]:
        request = dhcp.parse(data)
        reply = replies.offer(
            request, "10.77.0.100", NETWORK, firmware.boot_file(request, "10.77.0.1", secure=False), "n1"
        )
        return [(dhcp.build(reply), source)] if request.xid == 0x3903F326 and request.hostname == "" else []

    async def main() -> None:
        loop = asyncio.get_running_loop()
        sock = udp.open_udp(0, address="127.0.0.1")
        drain = udp.Drain(loop, sock, handle, name="DHCP", max_size=dhcp.MAX_MESSAGE)
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
            client.connect(sock.getsockname())
            client.setblocking(False)
            bad = [data for data in cases("dhcp", 600) if data != good]
            for data in bad:
                client.send(data)
                client.send(good)
                while True:
                    answer = await asyncio.wait_for(loop.sock_recv(client, 2000), 5)
                    if answer[4:8] == good[4:8]:
                        break
            assert drain.answered >= len(bad)
            assert drain.errors > 100  # the damage was real
        drain.close()

    asyncio.run(main())


def test_a_server_under_damaged_requests_serves_everyone_else_and_leaks_nothing() -> None:
    content = bytes(range(256)) * 8

    async def fetch(client: socket.socket, port: int) -> bytes:
        loop, got = asyncio.get_running_loop(), b""
        client.sendto(b"\0\1good\0octet\0blksize\x001024\0", ("127.0.0.1", port))
        while True:
            data, source = await asyncio.wait_for(loop.sock_recvfrom(client, 2000), 5)
            if data[:2] == b"\0\3":
                got += data[4:]
            client.sendto(b"\0\4" + (data[2:4] if data[:2] == b"\0\3" else b"\0\0"), source)
            if data[:2] == b"\0\3" and len(data) < 1028:
                return got

    async def main() -> None:
        loop = asyncio.get_running_loop()
        server = TftpServer(loop, lambda name, ip: BytesSource(content), address="127.0.0.1", port=0, max_transfers=20)
        descriptors = len(os.listdir("/proc/self/fd"))
        with (
            socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as attacker,
            socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as honest,
        ):
            attacker.bind(("127.0.0.2", 0))
            honest.bind(("127.0.0.1", 0))
            honest.setblocking(False)
            for number, data in enumerate(cases("tftp", 2000)):
                attacker.sendto(data, ("127.0.0.1", server.port))
                for session in list(server._transfers.values()):  # and in the middle of the transfers it has begun
                    attacker.sendto(data, session._sock.getsockname())
                if number % 100 == 0:
                    assert await fetch(honest, server.port) == content
                await asyncio.sleep(0)
            server.close()
            assert server.drain.errors == 0
            assert len(os.listdir("/proc/self/fd")) <= descriptors + 2

    asyncio.run(main())
