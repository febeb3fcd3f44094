"""A head of one page for the agent to talk to: TLS node API, public files, and every way to misbehave."""

from __future__ import annotations

import datetime
import ssl
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from netboot.plan import InstallPlan
from netboot.report import FILE, HELLO, NEXT, PLAN, REPORT, Ack, Answer, Do, FileAsk, Hello, Next, PlanAsk, Report
from netboot.wire import decode, encode


def certificate(folder: Path, name: str = "head") -> Path:
    """A self-signed certificate with its key in one file, good until the year 9999 and in 1970."""
    key = ec.generate_private_key(ec.SECP256R1())
    who = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"gild head {name}")])
    made = (
        x509.CertificateBuilder()
        .subject_name(who)
        .issuer_name(who)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(datetime.datetime(1970, 1, 1))
        .not_valid_after(datetime.datetime(9999, 12, 31))
        .sign(key, hashes.SHA256())
    )
    path = folder / f"{name}.pem"
    path.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
        + made.public_bytes(serialization.Encoding.PEM)
    )
    return path


def public(path: Path) -> str:
    """The certificate alone."""
    text = path.read_text()
    return text[text.index("-----BEGIN CERTIFICATE") :]


class SmallHead:
    """`answers` are given in turn, the last one for ever; `bend` may answer any call itself with (status, body)."""

    def __init__(
        self, pem: Path, files: Callable[[str], Path | bytes | None] = lambda path: None, address: str = "127.0.0.1"
    ) -> None:
        self.pem, self.files, self.address = pem, files, address
        self.answers: list[Answer] = [Answer(Do.WAIT, number=12, wait=0)]
        self.plan: InstallPlan | None = None
        self.stop_reason = ""
        self.bend: Callable[[str, Any], tuple[int, bytes] | None] = lambda path, message: None
        self.hellos: list[Hello] = []
        self.asks: list[PlanAsk] = []
        self.nexts: list[Next] = []
        self.reports: list[Report] = []
        self.sessions: set[str] = set()
        self.heard = threading.Condition()
        self.port = self.http_port = 0
        self._running: list[_Server] = []

    def __enter__(self) -> SmallHead:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def start(self) -> None:
        """Listen; after `close` on the same ports."""
        for secure in (True, False):
            port = self.port if secure else self.http_port
            server = _Server((self.address, port), type("Handler", (_Handler,), {"head": self, "secure": secure}))
            if secure:
                context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
                context.load_cert_chain(self.pem)
                server.socket = context.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
                self.port = server.server_address[1]
            else:
                self.http_port = server.server_address[1]
            threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
            self._running.append(server)

    def close(self) -> None:
        """Stop listening and end every connection."""
        for server in self._running:
            server.shutdown()
            server.server_close()
            server.end_all()
        self._running.clear()

    def forget(self) -> None:
        """As after a restart with an empty memory."""
        self.sessions.clear()

    def wait(self, ready: Callable[[], bool], timeout: float = 20.0) -> None:
        """Until what was heard makes `ready` true."""
        with self.heard:
            assert self.heard.wait_for(ready, timeout), "the head never heard it"

    def lines(self) -> list[str]:
        """Every log line of every report."""
        return [line for report in self.reports for line in report.lines]

    def answer(self, path: str, body: bytes) -> tuple[int, bytes]:
        """One call of the node API."""
        kind = {HELLO: Hello, NEXT: Next, PLAN: PlanAsk, FILE: FileAsk, REPORT: Report}[path]
        message: Any = decode(kind, body)
        with self.heard:
            self.heard.notify_all()
            bent = self.bend(path, message)
            if bent is not None:
                return bent
            if path != HELLO and message.session not in self.sessions:
                return 401, b'{"error":"SessionUnknown","message":"the head does not know this session","hint":""}'
            if path == REPORT:
                self.reports.append(message)
                return 200, encode(Ack(self.stop_reason))
            if path == PLAN:
                self.asks.append(message)
                if self.plan is None:
                    return 403, b'{"error":"Refused","message":"no open order","hint":"make one"}'
                return 200, encode(self.plan)
            (self.hellos if path == HELLO else self.nexts).append(message)
            if path == HELLO:
                self.sessions.add(f"session{len(self.hellos)}")
            answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
            session = f"session{len(self.hellos)}"
            return 200, encode(Answer(answer.do, session, answer.node, answer.number, answer.token, answer.message, 0))


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    allow_reuse_address = True

    def __init__(self, *args: Any) -> None:
        self.open: set[Any] = set()
        super().__init__(*args)

    def process_request(self, request: Any, client_address: Any) -> None:
        self.open.add(request)
        super().process_request(request, client_address)

    def end_all(self) -> None:
        for request in list(self.open):
            try:
                request.shutdown(2)
            except OSError:
                continue

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Clients that hang up are what is being tested."""


class _Handler(BaseHTTPRequestHandler):
    head: SmallHead
    secure: bool
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self._send(*self.head.answer(self.path, body))

    def do_GET(self) -> None:
        found = None if self.secure else self.head.files(self.path)
        if found is None:
            return self._send(404, b"")
        data = found if isinstance(found, bytes) else found.read_bytes()
        span = self.headers.get("Range", "")
        if not span:
            return self._send(200, data)
        first, last = (int(word) for word in span.removeprefix("bytes=").split("-"))
        return self._send(206, data[first : last + 1], {"Content-Range": f"bytes {first}-{last}/{len(data)}"})

    def _send(self, status: int, body: bytes, headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **(headers or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002  # the name of the base class
        """Silent."""
