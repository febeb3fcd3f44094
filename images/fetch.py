"""Where the bytes of packs come from: HTTP, or a folder. A source is opened once by every worker."""

from __future__ import annotations

import os
import socket
import struct
import time
from collections.abc import Callable, Sequence
from typing import Protocol
from urllib.parse import urlsplit

from images.errors import ChunkMissing
from images.workers import Cancelled

TIMEOUT = 20.0  # seconds without a byte
MIN_RATE = 32 << 10  # bytes a second below which a source counts as dead, over one fetch
TRIES = 20  # of every source: with their pauses, more than the patience lasts
MAX_HEAD = 4096  # bytes of one read of the answer's head; a head of four times that is none
REFUSALS = ("403", "404", "410", "416")
PATIENCE = 300.0  # seconds of trying in all: a head that is restarted is back long before
BANNED = 5.0  # seconds a failing source is left alone while there is another
GLANCE = 0.5  # seconds between two looks at whether waiting is in vain


def _never() -> bool:
    return False


class Fetcher(Protocol):
    """One worker's connection."""

    def fetch(self, pack: str, offset: int, length: int) -> memoryview:
        """`length` bytes at `offset` of the pack of that sha256; valid until the next call. Raises ChunkMissing."""
        ...

    def distrust(self) -> None:
        """What came last was wrong: ask somebody else next, if there is somebody."""
        ...

    def close(self) -> None:
        """Give the connection back."""
        ...


class Source(Protocol):
    """Where packs are."""

    def open(self, stopped: Callable[[], bool] = ...) -> Fetcher:
        """A connection for one worker. While it waits it asks `stopped` whether that is in vain, and raises
        Cancelled then."""
        ...


class HttpSource:
    """Packs at `<base>/packs/<sha256>.pack` of any of the base URLs, by ranges over kept connections."""

    def __init__(self, bases: Sequence[str]) -> None:
        """`bases` are URLs like `http://10.0.0.1` or `http://10.0.0.1:8080/cache`, the best one first.

        Raises ChunkMissing if there is none, or one that cannot be asked."""
        if not bases:
            raise ChunkMissing("the plan names no source")
        self.bases = tuple(bases)
        self.banned: dict[str, float] = {}  # base -> until, by time.monotonic; shared by the workers
        for base in bases:
            _address(base)

    def open(self, stopped: Callable[[], bool] = _never) -> Fetcher:
        """A worker's own connection; it is made at the first fetch."""
        return _HttpFetcher(self, stopped)


class _Refused(OSError):
    """The source does not have it, and will not have it in a second either."""


class _HttpFetcher:
    """One kept connection. http.client would copy every body through its own buffer, a few KB at a time; here the
    kernel puts the whole range where it is wanted in one call (MSG_WAITALL), while other workers decompress."""

    def __init__(self, source: HttpSource, stopped: Callable[[], bool]) -> None:
        self._source, self._stopped = source, stopped
        self._socket: socket.socket | None = None
        self._base = ""
        self._buffer = bytearray()

    def fetch(self, pack: str, offset: int, length: int) -> memoryview:
        bases = self._source.bases
        reason, pause, end = "", 0.2, time.monotonic() + PATIENCE
        refused: set[str] = set()
        for attempt in range(TRIES * len(bases)):
            try:
                return self._ask(pack, offset, length)
            except OSError as error:
                reason = f"{self._base}: {error.strerror or error}"
                self.distrust()
                if isinstance(error, _Refused):
                    refused.add(self._base)
            if len(refused) == len(bases) or time.monotonic() + pause > end:
                break
            if attempt + 1 >= len(bases):
                self._wait(pause)
                pause = min(2 * pause, 30.0)
        raise ChunkMissing(f"bytes {offset}+{length} of pack {pack} cannot be had: {reason}", "is the head reachable?")

    def distrust(self) -> None:
        self._source.banned[self._base] = time.monotonic() + BANNED
        self.close()

    def close(self) -> None:
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def _wait(self, seconds: float) -> None:
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0:
            if self._stopped():
                raise Cancelled("fetching was cancelled")
            time.sleep(min(left, GLANCE))

    def _ask(self, pack: str, offset: int, length: int) -> memoryview:
        end, last = time.monotonic() + TIMEOUT + length / MIN_RATE, offset + length - 1
        kept = self._socket is not None
        try:
            sock, (status, headers, body) = self._request(pack, offset, last)
        except ConnectionError:
            # Web servers end a connection that was quiet for a while (RFC 9112 section 9.5): no reason to blame them.
            if not kept:
                raise
            self.close()
            sock, (status, headers, body) = self._request(pack, offset, last)
        if status in REFUSALS:
            raise _Refused(0, f"status {status}")
        place, promised = headers.get("content-range", ""), headers.get("content-length", "")
        if status != "206" or promised != str(length) or not place.startswith(f"bytes {offset}-{last}/"):
            raise OSError(0, f"status {status}, {promised[:20]!r} bytes at {place[:60]!r}, asked for {offset}-{last}")
        if len(body) > length:
            raise OSError(0, "sent more than was asked for")
        if len(self._buffer) < length:
            self._buffer = bytearray(length)
        view, got = memoryview(self._buffer)[:length], len(body)
        view[:got] = body
        while got < length:
            # Waits TIMEOUT in all at most, so that a source which sends drop by drop is found out below.
            read = _receive(sock, view[got:], socket.MSG_WAITALL)
            if not read:
                raise OSError(0, f"connection ended after {got} of {length} bytes")
            got += read
            if got < length and time.monotonic() > end:
                raise OSError(0, f"only {got} of {length} bytes in {TIMEOUT + length / MIN_RATE:.0f} s")
        if headers.get("connection", "").lower() == "close":
            self.close()
        return view

    def _request(self, pack: str, first: int, last: int) -> tuple[socket.socket, tuple[str, dict[str, str], bytes]]:
        sock = self._connect()
        url = urlsplit(self._base)
        sock.sendall(
            f"GET {url.path.rstrip('/')}/packs/{pack}.pack HTTP/1.1\r\nHost: {url.netloc}\r\n"
            f"Range: bytes={first}-{last}\r\n\r\n".encode()
        )
        return sock, _head(sock)

    def _connect(self) -> socket.socket:
        if self._socket is None:
            now = time.monotonic()
            self._base = min(self._source.bases, key=lambda base: max(0.0, self._source.banned.get(base, 0.0) - now))
            sock = socket.create_connection(_address(self._base), timeout=TIMEOUT)
            # A timeout of Python's own would make the socket non-blocking, and MSG_WAITALL without effect.
            sock.setblocking(True)
            timeval = struct.pack("ll", int(TIMEOUT), int(TIMEOUT % 1 * 1e6))
            for option in (socket.SO_RCVTIMEO, socket.SO_SNDTIMEO):
                sock.setsockopt(socket.SOL_SOCKET, option, timeval)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._socket = sock
        return self._socket


def _head(sock: socket.socket) -> tuple[str, dict[str, str], bytes]:
    """Status, headers (names in lower case) and what came of the body."""
    data, piece = b"", memoryview(bytearray(MAX_HEAD))
    while b"\r\n\r\n" not in data:
        got = _receive(sock, piece, 0)
        if not got and not data:
            raise ConnectionError(0, "closed the connection")
        if not got or len(data) > 4 * MAX_HEAD:
            raise OSError(0, "did not answer in HTTP")
        data += piece[:got]
    head, _, body = data.partition(b"\r\n\r\n")
    first, *lines = head.decode("latin-1").split("\r\n")
    words = first.split(" ")
    if not words[0].startswith("HTTP/1.") or len(words) < 2:
        raise OSError(0, "did not answer in HTTP")
    return words[1][:3], {k.lower(): v.strip() for k, _, v in (line.partition(":") for line in lines)}, body


def _receive(sock: socket.socket, into: memoryview, flags: int) -> int:
    try:
        return sock.recv_into(into, len(into), flags)
    except BlockingIOError:  # what SO_RCVTIMEO makes of silence
        raise OSError(0, f"silent for {TIMEOUT:.0f} s") from None


def _address(base: str) -> tuple[str, int]:
    try:
        url = urlsplit(base)
        if url.scheme == "http" and url.hostname:
            return url.hostname, url.port or 80
    except ValueError:
        pass
    raise ChunkMissing(f"{base[:100]!r} is not a source of packs", "it must be an http:// URL")


class FileSource:
    """Packs in a folder, as the store keeps them."""

    def __init__(self, folder: str) -> None:
        self.folder = folder

    def open(self, stopped: Callable[[], bool] = _never) -> Fetcher:
        """Opens packs as they are asked for."""
        return _FileFetcher(self.folder)


class _FileFetcher:
    def __init__(self, folder: str) -> None:
        self._folder = folder
        self._open: dict[str, int] = {}
        self._buffer = bytearray()

    def fetch(self, pack: str, offset: int, length: int) -> memoryview:
        if len(self._buffer) < length:
            self._buffer = bytearray(length)
        view, got = memoryview(self._buffer)[:length], 0
        try:
            if pack not in self._open:
                self._open[pack] = os.open(os.path.join(self._folder, f"{pack}.pack"), os.O_RDONLY | os.O_CLOEXEC)
            while got < length:
                read = os.preadv(self._open[pack], [view[got:]], offset + got)
                if not read:
                    raise ChunkMissing(f"pack {pack} ends before byte {offset + length}")
                got += read
        except OSError as error:
            raise ChunkMissing(f"pack {pack} cannot be read: {error.strerror}") from None
        return view

    def distrust(self) -> None:
        """There is one folder only: the same bytes will come again."""

    def close(self) -> None:
        for fd in self._open.values():
            os.close(fd)
        self._open.clear()
