"""Asking other DNS servers: a socket of its own, and so a port of its own, for every question."""

from __future__ import annotations

import asyncio
import secrets
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

from netboot import forward
from netboot.forward import AGAIN, USELESS, Answer, Kept, Question
from netboot.udp import UdpError, open_udp

SECONDS = 2.0  # that a server has for an answer before the next one is asked
SILENT_SECONDS = 30.0  # that one which gave no answer is asked last
MAX_OPEN = 512  # different questions at a time; each is a socket
MAX_PER_CLIENT = 64  # questions of one client that wait
STRAY = 32  # datagrams that are no answer, after which TCP is asked: somebody guesses


def system_servers(own: str, path: str = "/etc/resolv.conf") -> Callable[[], list[str]]:
    """What this machine itself asks, but not the address `own`; the file is read at every question."""

    def servers() -> list[str]:
        try:
            return forward.nameservers(Path(path).read_text(encoding="utf-8", errors="replace"), [own])
        except OSError:
            return []

    return servers


def upstream_for(forward_to: str, own: str) -> Upstream | None:
    """Who is asked, by the setting `forward` of a head with the address `own`: nobody, the system's servers, or those
    that are named with commas."""
    if forward_to == "system":
        return Upstream(system_servers(own))
    servers = forward_to.split(",")
    return Upstream(lambda: servers) if forward_to else None


class Upstream:
    """Answers questions that `forward` lets through, by asking `servers()` one after the other."""

    def __init__(
        self,
        servers: Callable[[], list[str]],
        *,
        port: int = 53,
        seconds: float = SECONDS,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`servers()` is asked at every question, so a resolv.conf that changes is followed."""
        self.asked = self.from_memory = self.failed = self.refused = 0
        self._servers, self._port, self._seconds, self._clock = servers, port, seconds, clock
        self._kept = Kept()
        self._open: dict[tuple[bytes, int, bool], asyncio.Task[Answer | None]] = {}
        self._clients: Counter[str] = Counter()
        self._silent: dict[str, float] = {}  # server -> until when it is asked last

    def known(self, asked: Question, tcp: bool) -> bytes | None:
        """The reply, if nobody has to be asked."""
        if forward.stays_here(asked):
            return forward.unknown(asked)
        held = self._kept.find(asked, self._clock())
        if held is None:
            return None
        self.from_memory += 1
        return forward.reply(asked, held[0], tcp, held[1])

    def room(self, client: str) -> bool:
        """Whether one more question of this client can be taken."""
        return self._clients[client] < MAX_PER_CLIENT and self._clients.total() < 4 * MAX_OPEN

    async def reply(self, asked: Question, client: str, tcp: bool) -> bytes:
        """The reply, after asking; SERVFAIL if nobody answers or too much is asked already. The same question of many
        clients is asked once: each more that were under way would be one more that a forger can guess."""
        task = self._open.get(asked.key)
        if not self.room(client) or (task is None and len(self._open) >= MAX_OPEN):
            self.refused += 1
            return forward.unanswered(asked)
        if task is None:
            task = asyncio.get_running_loop().create_task(self._find(asked))
            self._open[asked.key] = task
            task.add_done_callback(lambda _: self._open.pop(asked.key, None))
        self._clients[client] += 1
        try:
            answer = await asyncio.shield(task)
        finally:
            self._clients[client] -= 1
            if not self._clients[client]:
                del self._clients[client]
        return forward.unanswered(asked) if answer is None else forward.reply(asked, answer, tcp)

    async def close(self) -> None:
        """Ask nobody any more."""
        tasks = list(self._open.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _find(self, asked: Question) -> Answer | None:
        now = self._clock()
        # Stable: among equals the order is the one that was given.
        for server in sorted(self._servers(), key=lambda server: self._silent.get(server, now) > now):
            self.asked += 1
            sent = forward.outgoing(asked, secrets.randbits(16), secrets.randbits(255))
            try:
                async with asyncio.timeout(self._seconds):
                    answer = await self._over_udp(server, sent)
                if answer is AGAIN:
                    async with asyncio.timeout(self._seconds):
                        answer = await self._over_tcp(server, sent)
            except (TimeoutError, OSError, UdpError, asyncio.IncompleteReadError):
                self._silent[server] = now + SILENT_SECONDS
                while len(self._silent) > forward.MAX_SERVERS:  # a resolv.conf that changes all the time
                    self._silent.pop(next(iter(self._silent)))
                continue
            self._silent.pop(server, None)
            if answer is not None and answer is not USELESS:
                self._kept.keep(asked, answer, self._clock())
                return answer
        self.failed += 1
        return None

    async def _over_udp(self, server: str, sent: bytes) -> Answer | None:
        loop = asyncio.get_running_loop()
        sock = open_udp(0, receive_buffer=0)
        try:
            # Connected: the kernel drops what comes from anybody else.
            await loop.sock_connect(sock, (server, self._port))
            await loop.sock_sendall(sock, sent)
            for _ in range(STRAY):
                message = await loop.sock_recv(sock, forward.MAX_ANSWER)
                answer = forward.incoming(message, sent, tcp=False)
                if answer is not None:
                    return answer
            return AGAIN
        finally:
            sock.close()

    async def _over_tcp(self, server: str, sent: bytes) -> Answer | None:
        reader, writer = await asyncio.open_connection(server, self._port, limit=forward.MAX_ANSWER)
        try:
            writer.write(len(sent).to_bytes(2, "big") + sent)
            await writer.drain()
            length = int.from_bytes(await reader.readexactly(2), "big")
            return forward.incoming(await reader.readexactly(length), sent, tcp=True)
        finally:
            writer.close()
