"""A file server on the loopback device that counts what it sends; ranges as RFC 9110 section 14 has them."""

from __future__ import annotations

import os
import re
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

RANGE = re.compile(r"bytes=(\d+)-(\d+)")


class CountingServer:
    """Serves the files below a folder while the block runs; `sent` are bytes of bodies."""

    def __init__(self, folder: Path) -> None:
        self.sent = 0
        self._lock = threading.Lock()
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                path = folder / self.path.lstrip("/")
                if not path.is_file():
                    return self.send_error(404)
                first, size = 0, path.stat().st_size
                match = RANGE.fullmatch(self.headers.get("Range", ""))
                last = size - 1
                if match:
                    first, last = int(match[1]), min(int(match[2]), size - 1)
                self.send_response(206 if match else 200)
                if match:
                    self.send_header("Content-Range", f"bytes {first}-{last}/{size}")
                self.send_header("Content-Length", str(last + 1 - first))
                self.end_headers()
                with path.open("rb") as file:
                    at = first
                    while at <= last:
                        at += os.sendfile(self.connection.fileno(), file.fileno(), at, last + 1 - at)
                outer.count(last + 1 - first)
                return None

            def log_message(self, format: str, *args: object) -> None:  # noqa: A002  # the base class's name
                return

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"

    def count(self, length: int) -> None:
        """So many bytes of a body were sent."""
        with self._lock:
            self.sent += length

    def __enter__(self) -> CountingServer:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(5)
