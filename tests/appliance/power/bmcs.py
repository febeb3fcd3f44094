"""BMCs to test against: the real emulators of IPMI and Redfish, and one that does whatever a test wants."""

from __future__ import annotations

import contextlib
import importlib.util
import json
import os
import shutil
import socket
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

USER, PASSWORD = "admin", "s3cret"
needs_ipmi = pytest.mark.skipif(
    not (shutil.which("ipmi_sim") and shutil.which("ipmitool")), reason="needs ipmi_sim (openipmi) and ipmitool"
)
needs_sushy = pytest.mark.skipif(importlib.util.find_spec("sushy_tools") is None, reason="needs sushy-tools")
_LAN = """\
name "n1"
set_working_mc 0x20
startlan 1
  addr 127.0.0.1 {port}
  priv_limit admin
  allowed_auths_admin none md2 md5 straight
  guid a123456789abcdefa123456789abcdef
endlan
chassis_control "{chassis}"
user 2 true "{user}" "{password}" admin 10 none md2 md5 straight
"""
_EMU = "mc_setbmc 0x20\nmc_add 0x20 0 no-device-sdrs 0x23 9 8 0x9f 0x1291 0xf02 persist_sdr\nmc_enable 0x20\n"
_CHASSIS = """\
#!/bin/sh
echo "$*" >> {folder}/told
case "$1 $2" in
"get power") echo power:$(cat {folder}/power) ;;
"set power") echo $3 > {folder}/power; [ $3 = 0 ] || {{ {boots} >/dev/null 2>&1 </dev/null & }} ;;
"get boot") echo boot:default ;;
esac
"""


def free_port(kind: socket.SocketKind = socket.SOCK_STREAM) -> int:
    with socket.socket(socket.AF_INET, kind) as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


@dataclass(frozen=True)
class Simulated:
    """One ipmi_sim. Its chassis program keeps the power switch in a file, and notes what it is told."""

    folder: Path
    port: int

    @property
    def power(self) -> str:
        return {"0": "off", "1": "on"}[(self.folder / "power").read_text().strip()]

    @property
    def told(self) -> list[str]:
        path = self.folder / "told"
        return [line for line in path.read_text().splitlines() if line.startswith("set")] if path.exists() else []

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"


@contextlib.contextmanager
def ipmi_sim(folder: Path, inside: Sequence[str] = (), boots: str = "true") -> Iterator[Simulated]:
    """Debian's simulator of a BMC; `inside` are words before its command, for a namespace, and `boots` is what a shell
    does when the machine gets power."""
    folder.mkdir()
    (folder / "state").mkdir()
    made = Simulated(folder, free_port(socket.SOCK_DGRAM))
    chassis = folder / "chassis"
    chassis.write_text(_CHASSIS.format(folder=folder, boots=boots))
    chassis.chmod(0o755)
    (folder / "power").write_text("0\n")
    (folder / "lan.conf").write_text(_LAN.format(port=made.port, chassis=chassis, user=USER, password=PASSWORD))
    (folder / "sim.emu").write_text(_EMU)
    argv = [*inside, "ipmi_sim", "-n", "-c", "lan.conf", "-f", "sim.emu", "-s", str(folder / "state")]
    with _running(argv, folder, lambda: (folder / "log").stat().st_size > 0 or _bound(made.port, inside)):
        yield made


def _bound(port: int, inside: Sequence[str]) -> bool:
    said = subprocess.run([*inside, "cat", "/proc/net/udp"], capture_output=True, text=True, check=True)
    return f":{port:04X} " in said.stdout


# The delays of the fake driver are random, up to 11 s; a test that wants them leaves them in.
_SUSHY = """\
import random, sys
if {quick}: random.randint = lambda a, b: 0
sys.argv = ["sushy-emulator", "--config", {config!r}]
from sushy_tools.emulator import main
main.main()
"""


@contextlib.contextmanager
def sushy(
    folder: Path, systems: Sequence[dict[str, object]], quick: bool = True, tls: Path | None = None
) -> Iterator[str]:
    """OpenStack's emulator of Redfish with made-up systems; gives its URL. `tls` is a PEM of certificate and key."""
    folder.mkdir()
    port = free_port()
    settings: dict[str, object] = {
        "LISTEN_IP": "127.0.0.1", "LISTEN_PORT": port, "FAKE_DRIVER": True, "STATE_DIR": str(folder),
        "FAKE_SYSTEMS": list(systems),
    }  # fmt: skip
    if tls is not None:
        settings |= {"SSL_CERT": str(tls), "SSL_KEY": str(tls)}
    config = folder / "sushy.conf"
    config.write_text("".join(f"SUSHY_EMULATOR_{key} = {value!r}\n" for key, value in settings.items()))
    argv = [sys.executable, "-c", _SUSHY.format(quick=quick, config=str(config))]
    with _running(argv, folder, lambda: _listens(port)):
        yield f"{'https' if tls else 'http'}://127.0.0.1:{port}"


def system(number: int, power: str = "Off", **more: object) -> dict[str, object]:
    """A system of `sushy` that is machine `number` of tests.appliance.rack."""
    return {
        "uuid": f"4c4c4544-0042-3510-8051-0000000000{number:02x}", "name": f"n{number}", "power_state": power,
        "external_notifier": False, "nics": [{"mac": f"52:54:00:00:00:{number:02x}", "ip": f"10.1.0.{number}"}], **more,
    }  # fmt: skip


def _listens(port: int) -> bool:
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
        return True
    return False


@contextlib.contextmanager
def _running(argv: Sequence[str], folder: Path, ready: Callable[[], bool]) -> Iterator[None]:
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(argv, cwd=folder, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
    try:
        end = time.monotonic() + 30
        while not ready():
            assert process.poll() is None and time.monotonic() < end, (folder / "log").read_text()
            time.sleep(0.02)
        yield
    finally:
        process.kill()
        process.wait()


def certificate(folder: Path, name: str = "bmc") -> Path:
    """A certificate that nobody signed, and its key, in one file."""
    path = folder / f"{name}.pem"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", f"/CN={name}", "-days", "2",
         "-keyout", path.with_suffix(".key"), "-out", path.with_suffix(".crt")],
        check=True, capture_output=True,
    )  # fmt: skip
    path.write_bytes(path.with_suffix(".key").read_bytes() + path.with_suffix(".crt").read_bytes())
    return path


class Scripted:
    """A Redfish BMC that answers as the test says: `answer(method, path)` gives status and body, or raw bytes."""

    def __init__(self, answer: Callable[[str, str], object], tls: Path | None = None) -> None:
        self.answer = answer
        self.asked: list[tuple[str, str, dict[str, str], bytes]] = []
        self._tls = None
        if tls is not None:
            self._tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            self._tls.load_cert_chain(tls)
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._socket.getsockname()[1])
        self._over = threading.Event()
        threading.Thread(target=self._serve, daemon=True).start()

    @property
    def url(self) -> str:
        return f"{'https' if self._tls else 'http'}://127.0.0.1:{self.port}"

    def close(self) -> None:
        self._over.set()
        self._socket.close()

    def _serve(self) -> None:
        while not self._over.is_set():
            with contextlib.suppress(OSError):
                plain, _ = self._socket.accept()
                threading.Thread(target=self._one, args=(plain,), daemon=True).start()

    def _one(self, plain: socket.socket) -> None:
        with contextlib.suppress(OSError, ValueError), plain:
            sock = self._tls.wrap_socket(plain, server_side=True) if self._tls else plain
            with sock, sock.makefile("rb") as stream:
                method, path, _ = stream.readline().decode().split()
                headers = {}
                while line := stream.readline().decode().strip():
                    key, _, value = line.partition(":")
                    headers[key.lower()] = value.strip()
                body = stream.read(int(headers.get("content-length", "0")))
                self.asked.append((method, path, headers, body))
                said = self.answer(method, path)
                if isinstance(said, tuple):
                    status, value = said
                    data = value if isinstance(value, bytes) else json.dumps(value).encode()
                    said = b"HTTP/1.1 %d X\r\nContent-Length: %d\r\n\r\n" % (status, len(data)) + data
                if isinstance(said, bytes):
                    sock.sendall(said)
                    return
                # Anything else: a byte now and then, for ever.
                while not self._over.wait(0.05):
                    sock.sendall(b"H")


def in_path(name: str, folder: Path, script: str) -> dict[str, str]:
    """A program of that name before all others: an environment for it."""
    path = folder / name
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    return {"PATH": f"{folder}:{os.environ['PATH']}"}
