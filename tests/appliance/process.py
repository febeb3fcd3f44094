"""The real process in a namespace of its own, a machine's namespace beside it, and ways to ask it things."""

from __future__ import annotations

import http.client
import os
import shutil
import socket
import ssl
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from appliance.cli.client import Client
from appliance.paths import Paths
from tests.netboot.lan import HEAD_IP, Lan, cable

CHECKOUT = Path(__file__).resolve().parents[2]
PROGRAM = (sys.executable, "-m", "appliance")
NODE_IP = "10.77.0.9"  # outside the range that is handed out by itself
MAC = "52:54:00:00:77:01"
PATIENCE = 30.0  # seconds: far more than anything here needs, so that a hang ends as a failure


@dataclass(frozen=True)
class Reply:
    """An HTTP answer, read to its end."""

    status: int
    headers: dict[str, str]
    body: bytes


@dataclass
class Served:
    """A state directory on one end of a cable, and the process that serves it while it runs."""

    lan: Lan
    state: Path
    program: tuple[str, ...] = PROGRAM
    process: subprocess.Popen[bytes] | None = None
    logs: list[Path] = field(default_factory=list)
    source: str = NODE_IP  # the machine's address as far as HTTP is concerned

    @property
    def paths(self) -> Paths:
        return Paths(self.state)

    @property
    def client(self) -> Client:
        """The operator's way in."""
        return Client(self.paths.socket)

    @property
    def log(self) -> str:
        """What the last process has printed so far."""
        return self.logs[-1].read_text()

    def start(self, *flags: str) -> None:
        """Start it, and wait until it says that it serves."""
        log = self.state / f"log{len(self.logs)}"
        self.logs.append(log)
        with log.open("wb") as out:
            self.process = subprocess.Popen(
                self.command("serve", "--interface", "head0", *flags),
                cwd=CHECKOUT, env=clean_environment(), stdin=subprocess.DEVNULL, stdout=out, stderr=out,
            )  # fmt: skip
        wait_for(lambda: "serving on" in self.log or self.process is None or self.process.poll() is not None)
        assert self.process.poll() is None, self.log

    def command(self, *arguments: str) -> list[str]:
        return ["ip", "netns", "exec", self.lan.head, *self.program, "--state", str(self.state), *arguments]

    def try_serve(self, *flags: str, environ: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
        """`serve` that is expected to end by itself."""
        return subprocess.run(
            self.command("serve", *flags), cwd=CHECKOUT, env={**clean_environment(), **(environ or {})},
            stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=PATIENCE,
        )  # fmt: skip

    def stop(self) -> int:
        """SIGTERM; its exit code."""
        assert self.process is not None
        self.process.terminate()
        return self.process.wait(PATIENCE)

    def kill(self) -> None:
        if self.process is not None and self.process.poll() is None:
            self.process.kill()
            self.process.wait(PATIENCE)

    # --- from the machine's side

    def http(
        self, method: str, path: str, body: bytes | None = None, headers: dict[str, str] | None = None, port: int = 80
    ) -> Reply:
        """One request over plain HTTP from the machine's end of the cable."""
        connection = http.client.HTTPConnection(HEAD_IP, port, timeout=PATIENCE, source_address=(self.source, 0))
        with self.lan.at_node():
            connection.connect()
        return ask(connection, method, path, body, headers)

    def tls(self, path: str, body: bytes, context: ssl.SSLContext | None = None) -> Reply:
        """One POST to the node API, as an agent that trusts the head's certificate alone."""
        connection = http.client.HTTPSConnection(
            HEAD_IP, 443, timeout=PATIENCE, source_address=(self.source, 0), context=context or self.pinned()
        )
        with self.lan.at_node():
            connection.connect()
        return ask(connection, "POST", path, body, {"Content-Type": "application/json"})

    def pinned(self) -> ssl.SSLContext:
        return ssl.create_default_context(cafile=str(self.paths.keys / "head.pem"))

    def raw(self, data: bytes, port: int = 80) -> bytes:
        """Everything the head says to these bytes until it ends the connection. They should be such that it does."""
        with self.connect(port) as sock:
            answer = b""
            try:
                sock.sendall(data)
                while piece := sock.recv(65536):
                    answer += piece
            except (ConnectionResetError, BrokenPipeError):
                pass
            return answer

    def connect(self, port: int = 80) -> socket.socket:
        with self.lan.at_node():
            return socket.create_connection((HEAD_IP, port), PATIENCE)

    def datagram_socket(self, port: int = 0) -> socket.socket:
        with self.lan.at_node():
            sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        sock.bind(("", port))
        sock.settimeout(PATIENCE)
        return sock

    def at_node(self, *command: str, **more: Any) -> subprocess.CompletedProcess[str]:
        """A command in the machine's namespace."""
        return subprocess.run(
            ["ip", "netns", "exec", self.lan.node, *command], capture_output=True, text=True, timeout=PATIENCE, **more
        )

    def tftp(self, name: str) -> subprocess.CompletedProcess[str]:
        """The file of that name by curl, to its standard output."""
        return self.at_node("curl", "-sS", "--globoff", "--path-as-is", f"tftp://{HEAD_IP}/{name}")

    def dhcp(self) -> str:
        """The address that udhcpc gets for the machine's card, which then has it."""
        script = self.state / "udhcpc.sh"
        script.write_text(
            '#!/bin/sh\n[ "$1" = bound ] && ip address replace $ip/24 dev $interface && echo got $ip\nexit 0\n'
        )
        script.chmod(0o755)
        said = self.at_node("busybox", "udhcpc", "-i", "node0", "-n", "-q", "-f", "-s", str(script))
        assert said.returncode == 0, said.stdout + said.stderr
        return next(line.split()[1] for line in said.stdout.splitlines() if line.startswith("got "))


def ask(
    connection: http.client.HTTPConnection,
    method: str,
    path: str,
    body: bytes | None = None,
    headers: dict[str, str] | None = None,
) -> Reply:
    """One request over a connection, which is closed."""
    try:
        connection.request(method, path, body, headers or {})
        answer = connection.getresponse()
        return Reply(answer.status, {key.lower(): value for key, value in answer.getheaders()}, answer.read())
    finally:
        connection.close()


def clean_environment() -> dict[str, str]:
    """The environment without settings of a gild that somebody runs here. A cable of one's own has no foreign server,
    and the look for one takes seconds; tests/appliance/test_foreign.py has it on."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith("GILD_")}
    return {**kept, "GILD_DHCP_CHECK": "off"}


def wait_for(happened: Any, seconds: float = PATIENCE) -> None:
    """Look again and again until it is so."""
    end = time.monotonic() + seconds
    while not happened():
        assert time.monotonic() < end, "it has not happened"
        time.sleep(0.02)


@contextmanager
def rack_of_one(program: tuple[str, ...] = PROGRAM) -> Iterator[Served]:
    """A cable and an empty state directory; nothing serves yet."""
    # Not below pytest's own folder: a unix socket's path has 107 characters at most.
    state = Path(tempfile.mkdtemp(prefix="gild-"))
    with cable() as lan:
        lan.ip("-n", lan.node, "address", "add", f"{NODE_IP}/24", "dev", "node0")
        served = Served(lan, state, program)
        try:
            yield served
        finally:
            served.kill()
            shutil.rmtree(state)
