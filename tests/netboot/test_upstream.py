"""Asking other servers that answer, lie, fall silent and cut, on the loopback interface."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
from dnslib import DNSRecord

from netboot import upstream as module
from netboot.upstream import Upstream, system_servers
from tests.netboot.test_forward import asked, record, said

Reaction = Callable[[bytes], list[bytes]]


class Server:
    """Another DNS server, on an address of 127.0.0.0/8; `react` gives the datagrams that follow a question."""

    def __init__(self, address: str, port: int, react: Reaction, over_tcp: Reaction | None = None) -> None:
        self.seen: list[bytes] = []
        self.react, self.over_tcp = react, over_tcp
        self.sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.sock.bind((address, port))
        self.sock.setblocking(False)
        self.port = int(self.sock.getsockname()[1])
        self.address = address
        asyncio.get_running_loop().add_reader(self.sock, self._ready)

    async def start(self) -> Server:
        self.server = await asyncio.start_server(self._connection, self.address, self.port)
        return self

    def _ready(self) -> None:
        data, source = self.sock.recvfrom(4096)
        self.seen.append(data)
        for message in self.react(data):
            self.sock.sendto(message, source)

    async def _connection(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        data = await reader.readexactly(int.from_bytes(await reader.readexactly(2), "big"))
        for message in self.over_tcp(data) if self.over_tcp else []:
            writer.write(len(message).to_bytes(2, "big") + message)
        writer.close()

    def close(self) -> None:
        asyncio.get_running_loop().remove_reader(self.sock)
        self.sock.close()
        self.server.close()


def good(sent: bytes) -> list[bytes]:
    return [said(sent, record())]


def silent(sent: bytes) -> list[bytes]:
    return []


def play(test: Callable[[Callable[..., Awaitable[Server]], Callable[..., Upstream]], Awaitable[None]]) -> None:
    """Servers on one port of 127.0.0.2, .3 and so on, and what asks them."""

    async def main() -> None:
        servers: list[Server] = []

        async def server(react: Reaction, over_tcp: Reaction | None = None) -> Server:
            port = servers[0].port if servers else 0
            servers.append(await Server(f"127.0.0.{len(servers) + 2}", port, react, over_tcp).start())
            return servers[-1]

        def upstream(**more: float) -> Upstream:
            return Upstream(lambda: [one.address for one in servers], port=servers[0].port, seconds=0.08, **more)  # type: ignore[arg-type]

        try:
            await asyncio.wait_for(test(server, upstream), 20)
        finally:
            for one in servers:
                one.close()

    asyncio.run(main())


def address_in(message: bytes) -> str:
    read = DNSRecord.parse(message)
    assert read.header.id == 0x1234
    return str(read.rr[0].rdata) if read.rr else f"rcode {read.header.get_rcode()}"


def test_asked_once_and_remembered() -> None:
    async def test(server: Callable[..., Awaitable[Server]], upstream: Callable[..., Upstream]) -> None:
        one, up = await server(good), upstream()
        replies = await asyncio.gather(*(up.reply(asked(), f"10.0.0.{n}", False) for n in range(9)))
        assert {address_in(message) for message in replies} == {"192.0.2.7"} and len(one.seen) == 1
        assert up.known(asked("WWW.example.com"), False) is not None and up.from_memory == 1
        assert up.known(asked("other.example.com"), False) is None
        assert not up._open and not up._clients

    play(test)


def test_every_question_has_its_own_port_and_number() -> None:
    async def test(server: Callable[..., Awaitable[Server]], upstream: Callable[..., Upstream]) -> None:
        ports: list[int] = []
        one, up = await server(good), upstream()
        real = one._ready

        def look() -> None:
            ports.append(one.sock.recvfrom(4096, socket.MSG_PEEK)[1][1])
            real()

        asyncio.get_running_loop().add_reader(one.sock, look)
        for n in range(30):
            await up.reply(asked(f"n{n}.example.com"), "10.0.0.1", False)
        assert len(set(ports)) > 25 and len({data[:2] for data in one.seen}) > 25
        assert any(data[12:] != data[12:].lower() for data in one.seen)

    play(test)


def test_the_next_one_is_asked_and_the_silent_one_is_asked_last_from_then_on() -> None:
    async def test(server: Callable[..., Awaitable[Server]], upstream: Callable[..., Upstream]) -> None:
        dead, refusing, well = (
            await server(silent),
            await server(lambda sent: [said(sent, rcode=5)]),
            await server(good),
        )
        up = upstream()
        assert address_in(await up.reply(asked(), "10.0.0.1", False)) == "192.0.2.7"
        assert (len(dead.seen), len(refusing.seen), len(well.seen)) == (1, 1, 1)
        assert address_in(await up.reply(asked("b.example.com"), "10.0.0.1", False)) == "192.0.2.7"
        assert (len(dead.seen), len(refusing.seen), len(well.seen)) == (1, 2, 2)

    play(test)


def test_nobody_answers() -> None:
    async def test(server: Callable[..., Awaitable[Server]], upstream: Callable[..., Upstream]) -> None:
        await server(silent)
        up = upstream()
        assert address_in(await up.reply(asked(), "10.0.0.1", False)) == "rcode 2"
        assert up.failed == 1 and not up._open
        none = Upstream(list)
        assert address_in(await none.reply(asked(), "10.0.0.1", False)) == "rcode 2"

    play(test)


def test_forged_answers_are_passed_over() -> None:
    def forged(sent: bytes) -> list[bytes]:
        wrong = said(sent, rcode=3)
        return [bytes((wrong[0] ^ 1,)) + wrong[1:], b"", b"junk", sent, *good(sent)]

    async def test(server: Callable[..., Awaitable[Server]], upstream: Callable[..., Upstream]) -> None:
        await server(forged)
        assert address_in(await upstream().reply(asked(), "10.0.0.1", False)) == "192.0.2.7"

    play(test)


def test_somebody_who_guesses_is_answered_by_tcp() -> None:
    def guesses(sent: bytes) -> list[bytes]:
        return [bytes((n, n)) + said(sent, rcode=3)[2:] for n in range(module.STRAY + 2) if bytes((n, n)) != sent[:2]]

    async def test(server: Callable[..., Awaitable[Server]], upstream: Callable[..., Upstream]) -> None:
        await server(guesses, good)
        assert address_in(await upstream().reply(asked(), "10.0.0.1", False)) == "192.0.2.7"

    play(test)


@pytest.mark.parametrize("react", [
    lambda sent: [said(sent, tc=1)], lambda sent: [said(sent[:12] + sent[12:].lower(), record())],
])  # fmt: skip
def test_cut_answers_are_asked_for_over_tcp(react: Reaction) -> None:
    async def test(server: Callable[..., Awaitable[Server]], upstream: Callable[..., Upstream]) -> None:
        await server(react, good)
        assert (
            address_in(await upstream().reply(asked("abcdefghij.klmnopqrst.example"), "10.0.0.1", False)) == "192.0.2.7"
        )

    play(test)


def test_a_server_that_breaks_off_its_tcp_is_passed_over() -> None:
    async def test(server: Callable[..., Awaitable[Server]], upstream: Callable[..., Upstream]) -> None:
        await server(lambda sent: [said(sent, tc=1)], lambda sent: [])
        await server(good)
        assert address_in(await upstream().reply(asked(), "10.0.0.1", False)) == "192.0.2.7"

    play(test)


def test_open_questions_are_bounded_by_client_and_in_all(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_PER_CLIENT", 3)
    monkeypatch.setattr(module, "MAX_OPEN", 5)

    async def test(server: Callable[..., Awaitable[Server]], upstream: Callable[..., Upstream]) -> None:
        one = await server(silent)
        up = upstream()
        greedy = [up.reply(asked(f"a{n}.example.com"), "10.0.0.1", False) for n in range(6)]
        others = [up.reply(asked(f"b{n}.example.com"), f"10.0.1.{n}", False) for n in range(6)]
        await asyncio.gather(*greedy, *others)
        assert len(one.seen) == 5 and up.refused == 7 and not up._open and not up._clients

    play(test)


def test_closing_ends_what_is_asked() -> None:
    async def test(server: Callable[..., Awaitable[Server]], upstream: Callable[..., Upstream]) -> None:
        await server(silent)
        up = upstream()
        waiting = asyncio.ensure_future(up.reply(asked(), "10.0.0.1", False))
        await asyncio.sleep(0)
        await up.close()
        with pytest.raises(asyncio.CancelledError):
            await waiting

    play(test)


def test_the_machines_own_servers(tmp_path: Path) -> None:
    path = tmp_path / "resolv.conf"
    servers = system_servers("10.0.0.1", str(path))
    assert servers() == []
    path.write_text("nameserver 192.0.2.1\nnameserver 10.0.0.1\n")
    assert servers() == ["192.0.2.1"]
