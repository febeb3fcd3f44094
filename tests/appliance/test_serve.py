"""The process: what keeps it from starting, how it ends, and that nothing on the wire stops it."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import random
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from appliance.schema import MIGRATIONS
from appliance.serve import BootPieces
from netboot.bootfiles import BootFiles
from netboot.report import HELLO, NEXT, Answer, Facts, Hello, Next
from netboot.wire import decode, encode
from tests.appliance.process import CHECKOUT, MAC, PROGRAM, Served, clean_environment, rack_of_one, wait_for
from tests.netboot.lan import HEAD_IP

BIG = random.Random(9).randbytes(8_000_000)
root = pytest.mark.root


def test_boot_pieces_are_hashed_again_when_they_change(tmp_path: Path) -> None:
    (tmp_path / "core.img").write_bytes(b"one")
    pieces = BootPieces(BootFiles({}, str(tmp_path)))
    first = pieces("core.img")
    assert first is not None and first.size == 3 and pieces("core.img") is first and pieces("none") is None
    (tmp_path / "core.img").write_bytes(b"two")
    os.utime(tmp_path / "core.img", (5, 5))
    second = pieces("core.img")
    assert second is not None and second.sha256 != first.sha256 and len(pieces._known) == 1


@pytest.fixture(scope="module")
def idle() -> Iterator[Served]:
    """A cable and a state directory for processes that do not come up."""
    with rack_of_one() as served:
        yield served


@pytest.fixture
def head(idle: Served) -> Iterator[Served]:
    """Serving; ended after the test, with nothing known of any machine."""
    (idle.paths.boot).mkdir(exist_ok=True)
    (idle.paths.boot / "big").write_bytes(BIG)
    idle.start()
    yield idle
    idle.kill()
    for entry in idle.state.iterdir():
        shutil.rmtree(entry) if entry.is_dir() else entry.unlink()
    idle.logs.clear()


def one_line(said: subprocess.CompletedProcess[str]) -> str:
    """What an error looks like: a line, at most one more with the way out, and no traceback."""
    lines = [line for line in said.stderr.splitlines() if line.strip()]
    assert 1 <= len(lines) <= 2 and lines[0].startswith("gild: "), said.stderr
    assert len(lines) == 1 or lines[1].startswith("      ")
    return said.stderr


@root
def test_not_as_somebody_else(idle: Served) -> None:
    said = subprocess.run(
        ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", *PROGRAM, "--state", "/tmp/gild-nobody",
         "serve", "--interface", "head0"],
        cwd=CHECKOUT, env=clean_environment(), capture_output=True, text=True, timeout=30,
    )  # fmt: skip
    assert said.returncode == 5 and "needs root" in one_line(said)
    assert not Path("/tmp/gild-nobody").exists()


@root
@pytest.mark.parametrize(
    ("flags", "code", "words"),
    [
        ((), 5, ["which interface", "--interface", "head0"]),
        (("--interface", "eth99"), 5, ["eth99", "head0"]),
        (("--interface", "bare0"), 5, ["bare0", "ip address add"]),
        (("--interface", "x" * 40), 5, ["x" * 40]),
        (("--interface", "head0", "--range", "10.78.0.1-10.78.0.9"), 9, ["10.78.0.1", "head0"]),
        (("--interface", "head0", "--range", "10.77.0.9-10.77.0.5"), 9, ["--range"]),
        (("--interface", "head0", "--address", "10.9.9.9"), 9, ["10.9.9.9"]),
        (("--interface", "head0", "--address", "10.77.0.99"), 5, ["10.77.0.99"]),
        (("--interface", "head0", "--router", "1.1.1.1"), 9, ["router"]),
        (("--interface", "lo", "--range", "127.0.0.9-127.9.0.0"), 9, ["65536", "--range"]),
        (("--lease", "soon"), 9, ["lease", "120"]),
        (("--http-port", "99999"), 9, ["http_port", "65535"]),
    ],
)
def test_what_is_missing_or_wrong_is_named(idle: Served, flags: tuple[str, ...], code: int, words: list[str]) -> None:
    subprocess.run(
        ["ip", "-n", idle.lan.head, "link", "add", "bare0", "type", "veth", "peer", "name", "bare1"],
        capture_output=True,
        check=False,
    )
    said = idle.try_serve(*flags)
    assert said.returncode == code, said.stderr
    text = one_line(said)
    assert all(word in text for word in words), text


@root
@pytest.mark.parametrize(
    ("kind", "port"), [("tcp", 80), ("tcp", 443), ("tcp", 53), ("udp", 53), ("udp", 67), ("udp", 69)]
)
def test_a_port_in_use_is_named_with_its_owner(idle: Served, kind: str, port: int) -> None:
    with idle.lan.at_head():
        taken = socket.socket(socket.AF_INET, socket.SOCK_STREAM if kind == "tcp" else socket.SOCK_DGRAM)
    with taken:
        taken.bind(("", port))
        if kind == "tcp":
            taken.listen()
        said = idle.try_serve("--interface", "head0")
    assert said.returncode == 5, said.stderr
    text = one_line(said)
    assert f"{kind.upper()} port {port} " in text and f"PID {os.getpid()}" in text and "stop " in text
    assert ("--http-port" in text) == (port in (80, 443))
    assert not idle.paths.socket.exists()


@root
def test_settings_that_do_not_exist_are_refused(idle: Served) -> None:
    said = idle.try_serve("--interface", "head0", environ={"GILD_INTERFAC": "head0"})
    assert said.returncode == 9 and "GILD_INTERFAC" in said.stderr and "'interface'" in one_line(said)
    try:
        for text, word in (("colour = 'red'\n", "colour"), ("lease = [1]\n", "lease"), ("domain =\n", "gild.toml")):
            idle.paths.settings.write_text(text)
            said = idle.try_serve("--interface", "head0")
            assert said.returncode == 9 and word in one_line(said)
        idle.paths.settings.write_bytes(b"\xff\xfe")
        said = idle.try_serve("--interface", "head0")
        assert said.returncode == 9 and "gild.toml" in one_line(said)
    finally:
        idle.paths.settings.unlink()


@root
def test_a_state_that_cannot_be_used_is_named(idle: Served) -> None:
    place = idle.state / "file"
    place.write_text("")
    for state in (place, place / "below"):
        said = subprocess.run(
            ["ip", "netns", "exec", idle.lan.head, *PROGRAM, "--state", str(state), "serve", "--interface", "head0"],
            cwd=CHECKOUT, env=clean_environment(), capture_output=True, text=True, timeout=30,
        )  # fmt: skip
        assert said.returncode == 5 and str(place) in one_line(said) and "--state" in said.stderr
    place.unlink()
    # A path that a unix socket cannot have.
    deep = idle.state / ("d" * 60) / ("e" * 60)
    said = subprocess.run(
        ["ip", "netns", "exec", idle.lan.head, *PROGRAM, "--state", str(deep), "serve", "--interface", "head0"],
        cwd=CHECKOUT, env=clean_environment(), capture_output=True, text=True, timeout=30,
    )  # fmt: skip
    assert said.returncode == 5 and "shorter" in one_line(said)
    shutil.rmtree(idle.state / ("d" * 60))


@root
@pytest.mark.parametrize("harm", ["empty", "noise", "another's", "newer"])
def test_a_damaged_or_newer_database_is_left_alone(idle: Served, harm: str) -> None:
    database = idle.paths.database
    database.unlink(missing_ok=True)
    if harm == "empty":
        database.write_bytes(b"")
    elif harm == "noise":
        database.write_bytes(random.Random(1).randbytes(9000))
    elif harm == "another's":
        with sqlite3.connect(database) as other:
            other.execute("CREATE TABLE t (x)")
        other.close()
    else:
        idle.start()
        assert idle.stop() == 0
        with sqlite3.connect(database) as mine:
            mine.execute(f"PRAGMA user_version = {len(MIGRATIONS) + 1}")
        mine.close()
    before = database.read_bytes()
    said = idle.try_serve("--interface", "head0")
    assert said.returncode == 1 and str(database) in one_line(said) and len(said.stderr.splitlines()) == 2
    assert database.read_bytes() == before
    database.unlink()


# --- while it serves


@root
def test_a_second_one_on_the_same_state_is_sent_away(head: Served) -> None:
    assert head.process is not None
    said = head.try_serve("--interface", "head0")
    assert said.returncode == 7 and f"process {head.process.pid} " in one_line(said)
    assert head.client.get("status")["pid"] == head.process.pid


@root
def test_it_ends_at_once_whoever_waits_or_reads(head: Served) -> None:
    head.source = head.dhcp()
    session = decode(Answer, head.tls(HELLO, encode(Hello(MAC, Facts()))).body).session
    answers: list[int] = []

    def wait() -> None:
        with contextlib.suppress(http.client.HTTPException, OSError):
            answers.append(head.tls(NEXT, encode(Next(session, 25))).status)

    poll = threading.Thread(target=wait)
    with head.connect() as reader, head.connect(443), head.connect() as silent:
        reader.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        reader.sendall(b"GET /boot/big HTTP/1.1\r\nHost: h\r\n\r\n")
        assert reader.recv(100).startswith(b"HTTP/1.1 200")
        silent.sendall(b"GET /bo")
        poll.start()
        wait_for(lambda: len(head.client.get("nodes")) == 1)
        assert head.process is not None
        head.process.terminate()
        # A long poll lasts 25 s, a stalled reader 90: neither is waited for.
        assert head.process.wait(15) == 0
    poll.join(30)
    assert not head.paths.socket.exists()
    assert "Traceback" not in head.log and head.log.rstrip().endswith("stopping")
    head.source = "10.77.0.9"


@root
@pytest.mark.parametrize("clean", [True, False], ids=["stopped", "killed"])
def test_what_was_shown_is_still_known_after_a_restart(head: Served, clean: bool) -> None:
    head.source = head.dhcp()
    assert head.tls(HELLO, encode(Hello(MAC, Facts(vendor="Acme")))).status == 200
    (shown,) = head.client.post("nodes", "approve", all=True)
    head.client.post("profiles", "login", cmdline="quiet")
    certificate = (head.paths.keys / "head.pem").read_bytes()
    if clean:
        assert head.stop() == 0
    else:
        head.kill()
    head.start()
    (row,) = head.client.get("nodes")
    assert (row["name"], row["address"], row["mac"]) == ("node01", shown["address"], MAC)
    assert [profile["name"] for profile in head.client.get("profiles")] == ["default", "login"]
    assert (head.paths.keys / "head.pem").read_bytes() == certificate
    assert head.dhcp() == shown["address"] == head.source
    head.source = "10.77.0.9"


@contextmanager
def downloads(head: Served, count: int) -> Iterator[list[subprocess.Popen[bytes]]]:
    """That many endless downloads by machines on another cable: udhcpc looks at every packet of its own, and a card
    full of downloads drowns it, not the head."""
    name = head.lan.head + "x"
    head.lan.ip("netns", "add", name)
    running: list[subprocess.Popen[bytes]] = []
    try:
        head.lan.ip("-n", head.lan.head, "link", "add", "more0", "type", "veth", "peer", "name", "more1", "netns", name)
        for namespace, card, address in ((head.lan.head, "more0", "10.78.0.1/24"), (name, "more1", "10.78.0.2/24")):
            head.lan.ip("-n", namespace, "address", "add", address, "dev", card)
            head.lan.ip("-n", namespace, "link", "set", card, "up")
        head.lan.ip("-n", name, "route", "add", HEAD_IP, "via", "10.78.0.1")
        loop = f"while curl -sf -o /dev/null http://{HEAD_IP}/boot/big; do echo; done; exit 9"
        for _ in range(count):
            command = ["ip", "netns", "exec", name, "sh", "-c", loop]
            running.append(subprocess.Popen(command, stdout=subprocess.PIPE, start_new_session=True))
        yield running
    finally:
        for one in running:
            os.killpg(one.pid, signal.SIGKILL)
            one.communicate()
        head.lan.ip("netns", "delete", name)


@root
def test_dhcp_is_answered_while_many_download(head: Served) -> None:
    with downloads(head, 16) as running:
        for one in running:
            assert one.stdout is not None and one.stdout.read(1) == b"\n"  # each has had the file at least once
        assert len({head.dhcp() for _ in range(3)}) == 1
        assert all(one.poll() is None for one in running)
    assert head.client.get("status")["dhcp"].get("ACK", 0) >= 3


@root
@pytest.mark.parametrize("port", [53, 67, 69])
def test_no_datagram_keeps_the_next_good_one_from_its_answer(head: Served, port: int) -> None:
    chance = random.Random(port)
    with head.datagram_socket() as sock:
        for size in (0, 1, 2, 3, 4, 12, 239, 240, 241, 548, 1400):
            for first in (b"", b"\0\1", b"\1\1\6\0", b"\xff" * 8):
                sock.sendto((first + chance.randbytes(size))[:1472], (HEAD_IP, port))
    assert head.dhcp()
    assert head.http("GET", "/boot/big").body == BIG
    assert head.at_node("curl", "-sS", "-o", "/dev/null", f"tftp://{HEAD_IP}/big").returncode == 0
    said = head.at_node("dig", "+short", "+time=5", "+tries=2", f"@{HEAD_IP}", "head.cluster.internal")
    assert said.stdout.strip() == HEAD_IP
    assert "Traceback" not in head.log


@root
def test_everything_it_opens_is_the_heads_own(head: Served) -> None:
    status = head.client.get("status")
    assert (status["interface"], status["address"], status["network"]) == ("head0", HEAD_IP, "10.77.0.0/24")
    modes = {path.name: path.stat().st_mode & 0o777 for path in (head.paths.keys, head.paths.database)}
    assert modes == {"keys": 0o700, "gild.db": 0o600}
    for path in head.paths.keys.iterdir():
        assert path.stat().st_mode & 0o077 == 0, path


@root
def test_the_built_file_serves_its_payload_by_both_protocols(pyz: Path) -> None:
    with rack_of_one((sys.executable, str(pyz))) as served:
        served.start()
        kernel = served.http("GET", "/boot/vmlinuz")
        assert kernel.status == 200 and kernel.body[0x202:0x206] == b"HdrS"  # Linux x86 boot protocol, section 1.1
        part = served.http("GET", "/boot/vmlinuz", headers={"Range": "bytes=512-1023"})
        assert part.status == 206 and part.body == kernel.body[512:1024]
        got = served.state / "got"
        assert served.at_node("curl", "-sS", "-o", str(got), f"tftp://{HEAD_IP}/undionly.kpxe").returncode == 0
        assert got.read_bytes() == served.http("GET", "/boot/undionly.kpxe").body
        said = subprocess.run(
            [sys.executable, str(pyz), "--state", str(served.state), "status", "--json"],
            env=clean_environment(), capture_output=True, check=True, timeout=30,
        )  # fmt: skip
        assert json.loads(said.stdout)["address"] == HEAD_IP
        assert served.stop() == 0 and "Traceback" not in served.log
