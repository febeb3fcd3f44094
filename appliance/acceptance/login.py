"""Logging in to nodes as root, by ssh: no question is ever asked, and no host key believed but those the head gave."""

from __future__ import annotations

import os
import shutil
import tempfile
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from shlex import quote
from typing import IO

from appliance.acceptance.checks import Target
from appliance.acceptance.script import MAX_LINE, MAX_LINES, Told, read
from images.errors import GildError
from images.run import beside, pipe, run

CONNECT = 6  # seconds
LOOK = 0.25  # seconds between two looks whether a person has had enough


class Login:
    """ssh to the nodes of one test. `stop` ends whatever is running, from any thread."""

    def __init__(self, folder: str, key: str | None) -> None:
        """`folder` holds the file known_hosts; see `logins`."""
        self.stopped = threading.Event()
        self._known = os.path.join(folder, "known_hosts")
        self._key = key

    def ask(self, target: Target, script: str, seconds: float) -> Told:
        """What the node says to a script within that time. Raises ToolMissing, CommandFailed if there is no ssh."""
        lines: list[tuple[float, str]] = []

        def hear(line: str) -> None:
            if len(lines) < MAX_LINES:
                lines.append((time.time(), line[:MAX_LINE]))

        with beside(self._argv(target, script, "-n"), hear, act=f"asking {target.name}") as wait:
            end = time.monotonic() + seconds
            while wait(LOOK) is None and time.monotonic() < end and not self.stopped.is_set():
                pass
        return read(tuple(lines))

    def send(self, target: Target, script: str, data: bytes, seconds: float) -> Told:
        """What the node says on standard error to a script that is given `data`. Raises ToolMissing, CommandFailed if
        it does not end in time."""
        done = run(self._argv(target, script), input=data, timeout=seconds, check=False, act=f"asking {target.name}")
        return read((0.0, line) for line in done.stderr[: MAX_LINE * MAX_LINES].decode("utf-8", "replace").splitlines())

    @contextmanager
    def read(self, target: Target, script: str, seconds: float) -> Iterator[IO[bytes]]:
        """What a script prints on the node, as a stream. Raises ToolMissing, CommandFailed."""
        with pipe(self._argv(target, script, "-n"), timeout=seconds, act=f"asking {target.name}") as stream:
            yield stream

    def stop(self) -> None:
        """No more."""
        self.stopped.set()

    def _argv(self, target: Target, script: str, *flags: str) -> list[str]:
        """A person's ~/.ssh/config counts for nothing: it may name other keys, ports and proxies."""
        options = {
            "BatchMode": "yes", "StrictHostKeyChecking": "yes", "UserKnownHostsFile": self._known,
            "GlobalKnownHostsFile": "/dev/null", "HostKeyAlias": target.name, "CheckHostIP": "no",
            "UpdateHostKeys": "no", "ConnectTimeout": str(CONNECT), "ServerAliveInterval": "5",
            "ServerAliveCountMax": "3", "LogLevel": "ERROR", "Compression": "no", "ControlPath": "none",
        }  # fmt: skip
        if self._key is not None:
            options |= {"IdentityFile": self._key, "IdentitiesOnly": "yes", "IdentityAgent": "none"}
        words = [part for name, value in options.items() for part in ("-o", f"{name}={value}")]
        return ["ssh", "-F", "/dev/null", "-T", *flags, *words, "-l", "root", target.address,
                f"exec sh -c {quote(script)}"]  # fmt: skip


@contextmanager
def logins(targets: Iterable[Target], key: str | None) -> Iterator[Login]:
    """A Login with the host keys of these nodes, and of nobody else; what it needs on disk goes with it.
    Raises GildError if the key file cannot be read."""
    if key is not None and not os.access(key, os.R_OK):
        raise GildError(f"the key {key} cannot be read", "name the private one of a pair that ssh-keygen made")
    folder = tempfile.mkdtemp(prefix="gild-test-")
    try:
        with open(os.path.join(folder, "known_hosts"), "w", encoding="ascii") as file:
            file.writelines(f"{target.name} {line}\n" for target in targets for line in target.host_keys)
        yield Login(folder, key)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
