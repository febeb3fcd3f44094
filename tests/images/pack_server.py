"""A web server of packs that does as it is told: the next request gets the next answer, in the order of asking."""

from __future__ import annotations

import contextlib
import re
import socket
import struct
import threading
from collections import deque
from collections.abc import Callable, Iterator
from types import TracebackType

LINGER_RESET = struct.pack("ii", 1, 0)  # socket(7): closing then sends RST

# Takes the connection and (pack, first, last); returns whether the connection is kept.
Answer = Callable[[socket.socket, str, int, int], bool]


class PackServer:
    """Listens on 127.0.0.1 while it is a context. `asked` holds (connection, pack, first, last) of every request."""

    def __init__(self, packs: dict[str, bytes], port: int = 0) -> None:
        self.packs = packs
        self.script: deque[Answer] = deque()
        self.asked: list[tuple[int, str, int, int]] = []
        self.heads: list[str] = []
        self._listener = socket.create_server(("127.0.0.1", port))
        self.port = self._listener.getsockname()[1]
        self.base = f"http://127.0.0.1:{self.port}"
        self._open: list[socket.socket] = []
        self._threads: list[threading.Thread] = []
        self._lock = threading.Lock()

    def __enter__(self) -> PackServer:
        thread = threading.Thread(target=self._accept, daemon=True)
        thread.start()
        self._threads.append(thread)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for connection in self._open:
            with contextlib.suppress(OSError):
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, LINGER_RESET)
                connection.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join(10)

    def connections(self) -> int:
        """How many different connections asked for something."""
        return len({number for number, *_ in self.asked})

    def fine(self, connection: socket.socket, pack: str, first: int, last: int) -> bool:
        """206 and the bytes."""
        connection.sendall(self.head(pack, first, last) + self.packs[pack][first : last + 1])
        return True

    def head(self, pack: str, first: int, last: int, **headers: str) -> bytes:
        """The head of a right answer."""
        lines = {
            "Content-Type": "application/octet-stream",
            "Content-Length": str(last - first + 1),
            "Content-Range": f"bytes {first}-{last}/{len(self.packs[pack])}",
            **{name.replace("_", "-"): value for name, value in headers.items()},
        }
        text = "".join(f"{name}: {value}\r\n" for name, value in lines.items() if value)
        return f"HTTP/1.1 206 Partial Content\r\n{text}\r\n".encode()

    def _accept(self) -> None:
        for number in range(10_000):
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            self._open.append(connection)
            thread = threading.Thread(target=self._serve, args=(number, connection), daemon=True)
            self._threads.append(thread)
            thread.start()

    def _serve(self, number: int, connection: socket.socket) -> None:
        with connection, contextlib.suppress(OSError):
            for head in _heads(connection):
                found = re.fullmatch(
                    r"GET /(?:cache/)?packs/([0-9a-f]+)\.pack HTTP/1\.1\r\nHost: 127\.0\.0\.1:\d+\r\n"
                    r"Range: bytes=(\d+)-(\d+)\r\n\r\n",
                    head,
                )
                assert found, head
                pack, first, last = found[1], int(found[2]), int(found[3])
                with self._lock:
                    self.heads.append(head)
                    self.asked.append((number, pack, first, last))
                    answer = self.script.popleft() if self.script else self.fine
                if not answer(connection, pack, first, last):
                    return


def _heads(connection: socket.socket) -> Iterator[str]:
    data = b""
    while True:
        while b"\r\n\r\n" not in data:
            piece = connection.recv(4096)
            if not piece:
                return
            data += piece
        head, end, data = data.partition(b"\r\n\r\n")
        yield (head + end).decode()


def said(text: str) -> Answer:
    """An answer that is this, whatever was asked, and then the end of the connection."""

    def answer(connection: socket.socket, pack: str, first: int, last: int) -> bool:
        connection.sendall(text.replace("\n", "\r\n").encode())
        return False

    return answer


def reset(connection: socket.socket) -> bool:
    """End a connection with RST."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, LINGER_RESET)
    return False
