"""The DNS server's sockets, UDP and TCP, around the answers of `dns`."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable

from netboot import forward
from netboot.dns import MAX_QUERY, REFUSED, Zone, answer, from_cluster
from netboot.forward import Question
from netboot.udp import Address, Drain, open_tcp, open_udp
from netboot.upstream import Upstream

MAX_CONNECTIONS = 64
MAX_PER_CLIENT = 8
IDLE_SECONDS = 10.0  # a connection may wait this long for its next question (RFC 7766 section 6.2.3: a few seconds)
QUERIES_A_CONNECTION = 100


class DnsServer:
    """Answers on port 53. `zone()` is asked at every query, so a new Zone is served from the next one on."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        zone: Callable[[], Zone],
        *,
        address: str = "0.0.0.0",
        interface: str | None = None,
        port: int = 53,
        upstream: Upstream | None = None,
        log: Callable[[str], None] | None = None,
    ) -> None:
        """Opens both ports at once; `start` begins to serve TCP. With `upstream` the cluster's machines get answers
        for names that are not ours, too. Raises UdpError."""
        self.refused = 0  # connections closed at a limit
        self._zone, self._upstream = zone, upstream
        self._waiting: set[asyncio.Task[None]] = set()
        self._connections: dict[asyncio.StreamWriter, str] = {}
        sock = open_udp(port, interface=interface, address=address)
        self.port: int = sock.getsockname()[1]
        try:
            self._listener = open_tcp(self.port, interface=interface, address=address)
        except Exception:
            sock.close()
            raise
        self.drain = Drain(loop, sock, self._datagram, name="DNS", max_size=MAX_QUERY, log=log)
        self._server: asyncio.Server | None = None

    async def start(self) -> None:
        """Begin to accept TCP connections."""
        self._server = await asyncio.start_server(self._connection, sock=self._listener, limit=MAX_QUERY + 2)

    async def close(self) -> None:
        """Stop both, and close open connections."""
        self.drain.close()
        for task in self._waiting:
            task.cancel()
        await asyncio.gather(*self._waiting, return_exceptions=True)
        if self._upstream is not None:
            await self._upstream.close()
        if self._server is None:
            self._listener.close()
            return
        self._server.close()
        for writer in list(self._connections):
            writer.transport.abort()
        await self._server.wait_closed()

    def _datagram(self, data: bytes, source: Address) -> Iterable[tuple[bytes, Address]]:
        reply = answer(data, self._zone(), source[0], False)
        if reply is None or self._upstream is None:
            return () if reply is None else ((reply, source),)
        asked = self._foreign(data, reply, source[0])
        if asked is None:
            return ((_recursive(reply), source),)
        known = self._upstream.known(asked, False)
        if known is None and not self._upstream.room(source[0]):
            known = forward.unanswered(asked)
        if known is not None:
            return ((known, source),)
        task = asyncio.get_running_loop().create_task(self._later(self._upstream, asked, source))
        self._waiting.add(task)
        task.add_done_callback(self._waiting.discard)
        return ()

    async def _later(self, upstream: Upstream, asked: Question, source: Address) -> None:
        self.drain.send(await upstream.reply(asked, source[0], False), source)

    def _foreign(self, query: bytes, reply: bytes, client: str) -> Question | None:
        """The question, if it is refused only because its name is not ours."""
        if reply[3] & 15 != REFUSED or not from_cluster(self._zone(), client):
            return None
        return forward.question(query)

    async def _over_tcp(self, query: bytes, client: str) -> bytes | None:
        reply = answer(query, self._zone(), client, True)
        if reply is None or self._upstream is None:
            return reply
        asked = self._foreign(query, reply, client)
        if asked is None:
            return _recursive(reply)
        return self._upstream.known(asked, True) or await self._upstream.reply(asked, client, True)

    async def _connection(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        peer = writer.get_extra_info("peername")
        client = str(peer[0]) if peer else ""
        crowded = sum(1 for other in self._connections.values() if other == client) >= MAX_PER_CLIENT
        if not client or crowded or len(self._connections) >= MAX_CONNECTIONS:
            self.refused += 1
            writer.transport.abort()
            return
        self._connections[writer] = client
        try:
            for _ in range(QUERIES_A_CONNECTION):
                async with asyncio.timeout(IDLE_SECONDS):
                    length = int.from_bytes(await reader.readexactly(2), "big")
                    if length > MAX_QUERY:
                        return
                    reply = await self._over_tcp(await reader.readexactly(length), client)
                    if reply is None:
                        return
                    writer.write(len(reply).to_bytes(2, "big") + reply)
                    await writer.drain()
        except (TimeoutError, OSError, asyncio.IncompleteReadError):
            pass  # slow or gone: nothing is lost with it
        finally:
            del self._connections[writer]
            writer.close()


def _recursive(reply: bytes) -> bytes:
    """Says that other names can be asked for as well (RFC 1035 section 4.1.1, RA)."""
    return reply[:3] + bytes((reply[3] | 0x80,)) + reply[4:]
