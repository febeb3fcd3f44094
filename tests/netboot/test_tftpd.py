"""The TFTP server on loopback, and with real clients on a cable of their own."""

from __future__ import annotations

import asyncio
import random
import socket
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from netboot import tftp
from netboot.tftpd import BytesSource, Source, TftpServer
from tests.netboot.lan import HEAD_IP, cable, needs_root

BLOB = random.Random(7).randbytes(3_000_001)
TEXT = b"one\ntwo\r\n"
Done = tuple[str, str, int, float, str | None]


class Broken(BytesSource):
    closed = 0

    def read(self, offset: int, size: int, /) -> bytes:
        if offset:
            raise OSError(5, "Input/output error")
        return super().read(offset, size)

    def close(self) -> None:
        Broken.closed += 1


def lookup(name: str, client_ip: str) -> Source | None:
    if name == "broken":
        return Broken(BLOB)
    content = {"blob": BLOB, "empty": b"", "text": TEXT, "even": BLOB[:1024], "who": client_ip.encode()}.get(name)
    return None if content is None else BytesSource(content)


def serve(test: Callable[[TftpServer, socket.socket, list[Done]], Awaitable[None]], **options: int) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        done: list[Done] = []
        server = TftpServer(loop, lookup, address="127.0.0.1", port=0, on_done=lambda *end: done.append(end), **options)  # type: ignore[arg-type]
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
            client.bind(("127.0.0.1", 0))
            client.setblocking(False)
            try:
                await asyncio.wait_for(test(server, client, done), 20)
            finally:
                server.close()
        assert server.transfers == 0

    asyncio.run(main())


def rrq(name: bytes, *options: bytes) -> bytes:
    return b"\0\1" + b"".join(field + b"\0" for field in (name, b"octet", *options))


async def receive(client: socket.socket) -> tuple[bytes, tuple[str, int]]:
    loop = asyncio.get_running_loop()
    return await asyncio.wait_for(loop.sock_recvfrom(client, 2000), 5)


def test_a_transfer_has_its_own_port_and_is_reported() -> None:
    async def test(server: TftpServer, client: socket.socket, done: list[Done]) -> None:
        client.sendto(rrq(b"even"), ("127.0.0.1", server.port))
        for number in (1, 2, 3):
            data, source = await receive(client)
            assert source[1] != server.port
            assert data == b"\0\3" + number.to_bytes(2, "big") + BLOB[:1024][512 * (number - 1) : 512 * number]
            client.sendto(b"\0\4" + number.to_bytes(2, "big"), source)
        while server.transfers:
            await asyncio.sleep(0)
        assert len(done) == 1
        assert done[0][:3] == ("127.0.0.1", "even", 1024)
        assert done[0][4] is None

    serve(test)


def test_a_stranger_is_told_and_the_transfer_goes_on() -> None:
    async def test(server: TftpServer, client: socket.socket, done: list[Done]) -> None:
        client.sendto(rrq(b"even"), ("127.0.0.1", server.port))
        _, source = await receive(client)
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as stranger:
            stranger.setblocking(False)
            stranger.sendto(b"\0\4\0\1", source)
            answer, _ = await receive(stranger)
            assert tftp.read_error(answer)[0] == tftp.UNKNOWN_TID
            stranger.sendto(b"\0\5\0\5no\0", source)  # an error is not answered with an error
        client.sendto(b"\0\4\0\1", source)
        assert (await receive(client))[0][:4] == b"\0\3\0\2"
        assert server.transfers == 1

    serve(test)


def test_bad_requests_are_answered_or_ignored_and_good_ones_still_served() -> None:
    async def test(server: TftpServer, client: socket.socket, done: list[Done]) -> None:
        address = ("127.0.0.1", server.port)
        for data, code in (
            (rrq(b"nope"), 1),
            (rrq(b"../../etc/passwd"), 1),
            (b"\0\2x\0octet\0", 2),
            (rrq(b"\xff\xfe"), 4),
            (b"\0\1x\0\xff\0", 4),
            (b"\0\1x\0mail\0", 4),
        ):
            client.sendto(data, address)
            answer, source = await receive(client)
            assert (answer[:2], source[1]) == (b"\0\5", server.port)
            assert tftp.read_error(answer)[0] == code
        for data in (b"", b"\0", b"\0\3\0\1x", b"\0\4\0\1", b"\0\5\0\1x\0", b"\0\6x\0", b"\xff" * 1400):
            client.sendto(data, address)
        client.sendto(rrq(b"empty"), address)
        assert (await receive(client))[0] == b"\0\3\0\1"  # nothing was said to those in between

    serve(test)


def test_a_repeated_request_starts_no_second_transfer_and_a_new_one_replaces_the_old() -> None:
    async def test(server: TftpServer, client: socket.socket, done: list[Done]) -> None:
        address = ("127.0.0.1", server.port)
        for _ in range(3):
            client.sendto(rrq(b"blob", b"tsize", b"0"), address)
        assert (await receive(client))[0] == b"\0\6tsize\x003000001\0"
        while server.drain.received < 3:
            await asyncio.sleep(0)
        assert server.transfers == 1
        client.sendto(rrq(b"even"), address)  # as firmware does that asked for the size first
        assert (await receive(client))[0][:4] == b"\0\3\0\1"
        assert server.transfers == 1
        assert done[0][4] == "client began again"

    serve(test)


def test_asking_for_the_size_alone_is_not_reported() -> None:
    async def test(server: TftpServer, client: socket.socket, done: list[Done]) -> None:
        client.sendto(rrq(b"blob", b"tsize", b"0", b"blksize", b"1468"), ("127.0.0.1", server.port))
        data, source = await receive(client)
        assert data[:2] == b"\0\6"
        client.sendto(b"\0\5\0\x08User aborted the transfer\0", source)
        while server.transfers:
            await asyncio.sleep(0)
        assert done == []

    serve(test)


def test_transfers_are_bounded_per_client_and_overall() -> None:
    async def test(server: TftpServer, client: socket.socket, done: list[Done]) -> None:
        clients = [socket.socket(socket.AF_INET, socket.SOCK_DGRAM) for _ in range(10)]
        for number, one in enumerate(clients):
            one.bind((f"127.0.0.{2 + number // 5}", 0))
            one.sendto(rrq(b"blob"), ("127.0.0.1", server.port))
        while server.drain.received < 10:
            await asyncio.sleep(0)
        assert server.transfers == 5  # three of the first, and of the second those that displaced silent ones
        assert server.refused > 0
        for one in clients:
            one.close()

    serve(test, max_transfers=5, max_per_client=3)


def test_forged_requests_do_not_shut_out_an_honest_client() -> None:
    async def test(server: TftpServer, client: socket.socket, done: list[Done]) -> None:
        for number in range(40):
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as forged:
                forged.bind((f"127.0.1.{1 + number}", 0))
                forged.sendto(rrq(b"blob"), ("127.0.0.1", server.port))
        client.sendto(rrq(b"even"), ("127.0.0.1", server.port))
        _, source = await receive(client)
        client.sendto(b"\0\4\0\1", source)
        await receive(client)
        for number in range(40):
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as forged:
                forged.bind((f"127.0.2.{1 + number}", 0))
                forged.sendto(rrq(b"blob"), ("127.0.0.1", server.port))
        while server.drain.received < 81:
            await asyncio.sleep(0)
        assert server.transfers == 5
        client.sendto(b"\0\4\0\2", source)  # it has been heard: its place is safe
        assert (await receive(client))[0] == b"\0\3\0\3"
        assert done == []

    serve(test, max_transfers=5)


def test_a_disk_that_fails_ends_the_transfer_with_an_error() -> None:
    async def test(server: TftpServer, client: socket.socket, done: list[Done]) -> None:
        Broken.closed = 0
        client.sendto(rrq(b"broken"), ("127.0.0.1", server.port))
        _, source = await receive(client)
        client.sendto(b"\0\4\0\1", source)
        assert tftp.read_error((await receive(client))[0]) == (0, "file cannot be read")
        assert Broken.closed == 1
        assert done[0][4] and "Input/output error" in done[0][4]

    serve(test)


def test_a_full_send_buffer_delays_and_loses_nothing() -> None:
    async def test(server: TftpServer, client: socket.socket, done: list[Done]) -> None:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
        client.sendto(rrq(b"blob", b"windowsize", b"64", b"blksize", b"1468"), ("127.0.0.1", server.port))
        _, source = await receive(client)
        session = next(iter(server._transfers.values()))
        session._sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4608)  # two packets' worth
        client.sendto(b"\0\4\0\0", source)
        for number in range(1, 65):
            assert (await receive(client))[0][2:4] == number.to_bytes(2, "big")

    serve(test)


class TestCable:
    pytestmark = needs_root

    @pytest.mark.parametrize(
        ("name", "command", "content"),
        [
            ("blob", ["curl", "-s", "-o", "{out}", "tftp://{head}/blob"], BLOB),
            ("blob", ["curl", "-s", "--tftp-blksize", "1468", "-o", "{out}", "tftp://{head}/blob"], BLOB),
            ("even", ["tftp", "-m", "binary", "{head}", "-c", "get", "even", "{out}"], BLOB[:1024]),
            ("text", ["tftp", "-m", "ascii", "{head}", "-c", "get", "text", "{out}"], TEXT),
            ("blob", ["busybox", "tftp", "-g", "-b", "1400", "-r", "blob", "-l", "{out}", "{head}"], BLOB),
            ("empty", ["busybox", "tftp", "-g", "-r", "empty", "-l", "{out}", "{head}"], b""),
            ("who", ["curl", "-s", "-o", "{out}", "tftp://{head}/who"], b"10.77.0.9"),
        ],
    )
    def test_real_clients(self, name: str, command: list[str], content: bytes, tmp_path: Path) -> None:
        done: list[Done] = []

        async def main() -> None:
            with cable() as lan:
                lan.ip("-n", lan.node, "address", "add", "10.77.0.9/24", "dev", "node0")
                with lan.at_head():
                    server = TftpServer(
                        asyncio.get_running_loop(),
                        lookup,
                        address=HEAD_IP,
                        interface="head0",
                        on_done=lambda *end: done.append(end),
                    )
                    # Transfers open their sockets later, from the loop: in this test they need the namespace then too.
                    code, text = await lan.run(*(word.format(out=tmp_path / "out", head=HEAD_IP) for word in command))
                server.close()
                assert code == 0, text

        asyncio.run(main())
        assert (tmp_path / "out").read_bytes() == content
        assert [(client, what, failed) for client, what, _, _, failed in done] == [("10.77.0.9", name, None)]
