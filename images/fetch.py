"""Where the bytes of packs come from: the head's HTTP, or a folder. A source is opened once by every worker."""

from __future__ import annotations

import os
import socket
import struct
import time
from collections.abc import Sequence
from typing import Protocol
from urllib.parse import urlsplit

from images.errors import ChunkMissing

TIMEOUT = 20.0  # seconds without a byte
TRIES = 8
MAX_HEAD = 4096  # bytes of one read of the answer's head; a head of four times that is none
PATIENCE = 300.0  # seconds in all: a head that is restarted is back long before
BANNED = 5.0  # seconds a failing source is left alone while there is another


class Fetcher(Protocol):
    """One worker's connection."""

    def fetch(self, pack: str, offset: int, length: int) -> memoryview:
        """`length` bytes at `offset` of the pack of that sha256; valid until the next call. Raises ChunkMissing."""
        ...

    def close(self) -> None:
        """Give the connection back."""
        ...


class Source(Protocol):
    """Where packs are."""

    def open(self) -> Fetcher:
        """A connection for one worker."""
        ...


class HttpSource:
    """Packs at `<base>/packs/<sha256>.pack` of any of the base URLs, by ranges over kept connections."""

    def __init__(self, bases: Sequence[str]) -> None:
        if not bases:
            raise ChunkMissing("the plan names no source")
        self.bases = tuple(bases)
        self.banned: dict[str, float] = {}  # base -> until, by time.monotonic; shared by the workers

    def open(self) -> Fetcher:
        """A worker's own connection; it is made at the first fetch."""
        return _HttpFetcher(self)


class _HttpFetcher:
    """One kept connection. http.client would copy every body through its own buffer, a few KB at a time; here the
    kernel puts the whole range where it is wanted in one call (MSG_WAITALL), while other workers decompress."""

    def __init__(self, source: HttpSource) -> None:
        self._source = source
        self._socket: socket.socket | None = None
        self._base = ""
        self._buffer = bytearray()

    def fetch(self, pack: str, offset: int, length: int) -> memoryview:
        reason, pause, end = "", 0.2, time.monotonic() + PATIENCE
        for attempt in range(TRIES * len(self._source.bases)):
            try:
                return self._ask(pack, offset, length)
            except OSError as error:
                reason = f"{self._base}: {error.strerror or error}"
                self._source.banned[self._base] = time.monotonic() + BANNED
                self.close()
            if time.monotonic() + pause > end:
                break
            if attempt + 1 >= len(self._source.bases):
                time.sleep(pause)
                pause = min(2 * pause, 30.0)
        raise ChunkMissing(f"bytes {offset}+{length} of pack {pack} cannot be had: {reason}", "is the head reachable?")

    def _ask(self, pack: str, offset: int, length: int) -> memoryview:
        sock = self._connect()
        url = urlsplit(self._base)
        sock.sendall(
            f"GET {url.path.rstrip('/')}/packs/{pack}.pack HTTP/1.1\r\nHost: {url.netloc}\r\n"
            f"Range: bytes={offset}-{offset + length - 1}\r\n\r\n".encode()
        )
        head, body = self._head(sock)
        if head[0].split(" ")[1:2] != ["206"] or f"content-length: {length}" not in (line.lower() for line in head):
            raise OSError(0, f"answered {head[0][:80]!r} for {length} bytes")
        if len(self._buffer) < length:
            self._buffer = bytearray(length)
        view, got = memoryview(self._buffer)[:length], len(body)
        if got > length:
            raise OSError(0, "sent more than was asked for")
        view[:got] = body
        while got < length:
            read = sock.recv_into(view[got:], length - got, socket.MSG_WAITALL)
            if not read:
                raise OSError(0, f"connection ended after {got} of {length} bytes")
            got += read
        return view

    @staticmethod
    def _head(sock: socket.socket) -> tuple[list[str], bytes]:
        data = b""
        while b"\r\n\r\n" not in data:
            more = sock.recv(MAX_HEAD)
            data += more
            if not more or len(data) > 4 * MAX_HEAD:
                raise OSError(0, "did not answer in HTTP")
        head, _, body = data.partition(b"\r\n\r\n")
        return head.decode("latin-1").split("\r\n"), body

    def _connect(self) -> socket.socket:
        if self._socket is None:
            now = time.monotonic()
            self._base = min(self._source.bases, key=lambda base: max(0.0, self._source.banned.get(base, 0.0) - now))
            url = urlsplit(self._base)
            sock = socket.create_connection((url.hostname or "", url.port or 80), timeout=TIMEOUT)
            # A timeout of Python's own would make the socket non-blocking, and MSG_WAITALL without effect.
            sock.setblocking(True)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, struct.pack("ll", int(TIMEOUT), 0))
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._socket = sock
        return self._socket

    def close(self) -> None:
        if self._socket is not None:
            self._socket.close()
            self._socket = None


class FileSource:
    """Packs in a folder, as the store keeps them."""

    def __init__(self, folder: str) -> None:
        self.folder = folder

    def open(self) -> Fetcher:
        """Opens packs as they are asked for."""
        return _FileFetcher(self.folder)


class _FileFetcher:
    def __init__(self, folder: str) -> None:
        self._folder = folder
        self._open: dict[str, int] = {}

    def fetch(self, pack: str, offset: int, length: int) -> memoryview:
        try:
            if pack not in self._open:
                self._open[pack] = os.open(os.path.join(self._folder, f"{pack}.pack"), os.O_RDONLY | os.O_CLOEXEC)
            data = os.pread(self._open[pack], length, offset)
        except OSError as error:
            raise ChunkMissing(f"pack {pack} cannot be read: {error.strerror}") from None
        if len(data) != length:
            raise ChunkMissing(f"pack {pack} ends before byte {offset + length}")
        return memoryview(data)

    def close(self) -> None:
        for fd in self._open.values():
            os.close(fd)
        self._open.clear()
