"""`watch` beside the real process: lines where nobody looks, a live picture and keys on a terminal."""

from __future__ import annotations

import json
import os
import pty
import select
import signal
import subprocess
import termios
import time
from collections.abc import Iterator

import pytest

from netboot.report import HELLO, Facts, Hello
from netboot.wire import encode
from tests.appliance.process import CHECKOUT, MAC, Served, clean_environment, rack_of_one

pytestmark = pytest.mark.root


@pytest.fixture(scope="module")
def head() -> Iterator[Served]:
    with rack_of_one() as served:
        served.start()
        served.source = served.dhcp()
        assert served.tls(HELLO, encode(Hello(MAC, Facts(vendor="Acme", product="Box")))).status == 200
        yield served


def command(head: Served, *words: str) -> list[str]:
    return [*head.program, "--state", str(head.state), "watch", *words]


def test_events_come_as_lines_while_it_runs(head: Served) -> None:
    argv = command(head, "--json")
    with subprocess.Popen(argv, cwd=CHECKOUT, env=clean_environment(), stdout=subprocess.PIPE) as watching:
        assert watching.stdout is not None
        event = json.loads(watching.stdout.readline())
        watching.kill()
    assert event["node_id"] == 1 and event["text"]


def test_once_without_a_terminal(head: Served) -> None:
    done = subprocess.run(
        command(head, "--once"), cwd=CHECKOUT, env=clean_environment(), capture_output=True, text=True
    )
    assert done.returncode == 0 and "#1" in done.stdout and "waiting" in done.stdout and "\x1b" not in done.stdout


class Terminal:
    """The program on a terminal of its own."""

    def __init__(self, argv: list[str], columns: int) -> None:
        self.fd, other = pty.openpty()
        termios.tcsetwinsize(self.fd, (24, columns))
        self.before = termios.tcgetattr(self.fd)
        env = {**clean_environment(), "TERM": "xterm"}
        self.process = subprocess.Popen(argv, cwd=CHECKOUT, env=env, stdin=other, stdout=other, stderr=other)
        os.close(other)
        self.said = b""

    def until(self, text: str, seconds: float = 20.0) -> None:
        """Read until `text` has come since the last call."""
        end, heard = time.monotonic() + seconds, b""
        while text.encode() not in heard:
            assert time.monotonic() < end, f"no {text!r} in {heard.decode(errors='replace')!r}"
            if select.select([self.fd], [], [], 0.1)[0]:
                heard += os.read(self.fd, 65536)

    def close(self) -> int:
        """What it ended with; the terminal must be as it was."""
        code = self.process.wait(20)
        assert termios.tcgetattr(self.fd) == self.before
        os.close(self.fd)
        return code


@pytest.mark.parametrize("columns", [40, 100])
def test_keys_on_a_terminal(head: Served, columns: int) -> None:
    terminal = Terminal(command(head), columns)
    terminal.until("waiting")
    for keys, text in (
        (b"\x1b[B\r", "first seen"),
        (b"q", "choose"),
        (b"/nobody\r", "no node fits"),
        (b"\x1b", "waiting"),
    ):
        os.write(terminal.fd, keys)
        terminal.until(text)
    os.write(terminal.fd, b"q")
    assert terminal.close() == 0


def test_ctrl_c_gives_the_terminal_back(head: Served) -> None:
    terminal = Terminal(command(head), 80)
    terminal.until("waiting")
    terminal.process.send_signal(signal.SIGINT)
    assert terminal.close() == 130
