"""Starting the probe and reading what it says. The probe is a process of its own: this one never imports scapy."""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Generator
from contextlib import closing
from queue import Empty, SimpleQueue
from typing import Any

from appliance.bundled import again
from appliance.errors import Environment
from appliance.sightings import Frame, Server, Servers, frame, server
from images.run import beside, tail

TURN = 0.25  # seconds between two chances to show something
ASK_SECONDS = 5.0  # a server that first pings the address it would offer takes 3 s (dnsmasq, measured)
START_SECONDS = 30.0  # Python and scapy from a slow disk


def command(interface: str, what: str, seconds: float, every: float) -> tuple[list[str], dict[str, str]]:
    """argv and environment of a probe: `what` is "requests" or "replies", `seconds` how long (0: until it is ended),
    `every` the seconds between two questions (0: it only listens)."""
    argv, environ = again()
    return [*argv, "probe-child", interface, what, str(seconds), str(every)], environ


def message(text: str) -> dict[str, Any]:
    """A line of the probe's; what Python prints when it fails is {"trouble": text}. Raises Environment for what the
    probe says went wrong."""
    try:
        line = json.loads(text)
    except ValueError:
        line = None
    if not isinstance(line, dict):
        return {"trouble": text}
    if "error" in line:
        raise Environment(str(line["error"]), str(line.get("hint", "")))
    return line


def lines(
    interface: str, what: str, *, seconds: float = 0, every: float = 0
) -> Generator[dict[str, Any] | None, None, None]:
    """What a probe says, line by line, and None about every TURN seconds, whether it says much or nothing. Closing it
    ends the probe. Raises Environment if it cannot listen there."""
    heard: SimpleQueue[str] = SimpleQueue()
    try:
        socket.socket(socket.AF_PACKET, socket.SOCK_RAW).close()
    except PermissionError:
        raise Environment(f"looking at what passes on {interface} needs root", "run it with sudo") from None
    trouble = ""
    argv, environ = command(interface, what, seconds, every)
    with beside(argv, heard.put, env=environ, act=f"listening on {interface}") as wait:
        code: int | None = None
        turn = time.monotonic() + TURN
        while True:
            if time.monotonic() >= turn:
                turn = time.monotonic() + TURN
                yield None
            try:
                text = heard.get(timeout=0 if code is not None else TURN)
            except Empty:
                if code is not None:
                    break
                code = wait(0)
                continue
            line = message(text)
            trouble = str(line.get("trouble", trouble))
            yield line
    if code:
        raise Environment(f"the probe on {interface} ended with {code}: {tail(trouble.encode())}")


def frames(interface: str, what: str, *, seconds: float = 0, every: float = 0) -> Generator[Frame | None, None, None]:
    """The DHCP messages that a probe sees; None now and then. Raises Environment."""
    with closing(lines(interface, what, seconds=seconds, every=every)) as said:
        for line in said:
            yield None if line is None else frame(line)


def ask(interface: str, seconds: float = ASK_SECONDS) -> list[Server]:
    """Every DHCP server that offers something on that interface within `seconds`, asked as a machine that boots from
    the network would. No offer is taken. Raises Environment."""
    found, mac = Servers(), ""
    end = time.monotonic() + START_SECONDS + seconds
    with closing(lines(interface, "replies", seconds=seconds, every=seconds)) as said:
        for line in said:
            if time.monotonic() > end:
                raise Environment(f"the probe on {interface} does not end")
            if line is None:
                continue
            mac = str(line.get("mac")) if "ready" in line else mac
            seen = frame(line)
            answer = server(seen, mac) if seen is not None else None
            if answer is not None:
                found.saw(answer)
    return found.rows()
