"""Where the bytes of packs come from: the head's HTTP, or a folder. A source is opened once by every worker."""

from __future__ import annotations

import http.client
import os
import socket
import time
from collections.abc import Sequence
from typing import Protocol
from urllib.parse import urlsplit

from images.errors import ChunkMissing

TIMEOUT = 20.0  # seconds without a byte
TRIES = 8
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
    def __init__(self, source: HttpSource) -> None:
        self._source = source
        self._connection: http.client.HTTPConnection | None = None
        self._base = ""
        self._buffer = bytearray()

    def fetch(self, pack: str, offset: int, length: int) -> memoryview:
        reason, pause, end = "", 0.2, time.monotonic() + PATIENCE
        for attempt in range(TRIES * len(self._source.bases)):
            try:
                return self._ask(pack, offset, length)
            except (OSError, http.client.HTTPException) as error:
                reason = f"{self._base}: {error or type(error).__name__}"
                self._source.banned[self._base] = time.monotonic() + BANNED
                self.close()
            if time.monotonic() + pause > end:
                break
            if attempt + 1 >= len(self._source.bases):
                time.sleep(pause)
                pause = min(2 * pause, 30.0)
        raise ChunkMissing(f"bytes {offset}+{length} of pack {pack} cannot be had: {reason}", "is the head reachable?")

    def _ask(self, pack: str, offset: int, length: int) -> memoryview:
        connection = self._connect()
        url = urlsplit(self._base)
        path = f"{url.path.rstrip('/')}/packs/{pack}.pack"
        connection.request("GET", path, headers={"Range": f"bytes={offset}-{offset + length - 1}"})
        response = connection.getresponse()
        if response.status != 206 or response.length != length:
            raise http.client.HTTPException(f"status {response.status} with {response.length} bytes for {length}")
        if len(self._buffer) < length:
            self._buffer = bytearray(length)
        view, got = memoryview(self._buffer)[:length], 0
        while got < length:
            read = response.readinto(view[got:])
            if not read:
                raise http.client.HTTPException(f"connection ended after {got} of {length} bytes")
            got += read
        return view

    def _connect(self) -> http.client.HTTPConnection:
        if self._connection is None:
            now = time.monotonic()
            self._base = min(self._source.bases, key=lambda base: max(0.0, self._source.banned.get(base, 0.0) - now))
            url = urlsplit(self._base)
            self._connection = http.client.HTTPConnection(url.hostname or "", url.port or 80, timeout=TIMEOUT)
            self._connection.connect()
            self._connection.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return self._connection

    def close(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None


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
