"""Real daemons in a network namespace of a test, each under the name of the machine that it plays."""

from __future__ import annotations

import contextlib
import os
import shlex
import signal
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from appliance.rows import facts_row, node_row
from appliance.store import Store
from netboot.node import Node, State
from netboot.report import Facts
from tests.appliance.process import CHECKOUT, NODE_IP, PROGRAM, Served, clean_environment, rack_of_one, wait_for
from tests.netboot.lan import HEAD_IP

SECONDS = 30.0  # for any one command
ADDRESSES = ("10.77.0.31", "10.77.0.32")
FACTS = Facts(cores=1, threads=1, sockets=1, memory=256 << 20)


@dataclass
class Room:
    """What a machine's programs see: a namespace, a name, files of their own mounted over those of this machine."""

    namespace: str
    name: str
    mounts: Mapping[str, Path] = field(default_factory=dict)
    env: Mapping[str, str] = field(default_factory=dict)

    def argv(self, *words: str | Path) -> list[str]:
        # `ip netns exec` gives a mount namespace of its own: what is mounted here is seen by this program alone.
        script = f"hostname {self.name}; cd {shlex.quote(str(CHECKOUT))}"
        for place, path in self.mounts.items():
            script += f"; [ -e {place} ] || mkdir -p {place}; mount --bind {shlex.quote(str(path))} {place}"
        script += f"; exec {shlex.join(map(str, words))}"
        return ["ip", "netns", "exec", self.namespace, "unshare", "-u", "sh", "-ec", script]

    def start(self, log: Path, *words: str | Path) -> subprocess.Popen[bytes]:
        with log.open("ab") as out:
            return subprocess.Popen(
                self.argv(*words), env={**clean_environment(), **self.env}, stdin=subprocess.DEVNULL, stdout=out,
                stderr=out,
            )  # fmt: skip

    def run(self, *words: str | Path) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            self.argv(*words), env={**clean_environment(), **self.env}, stdin=subprocess.DEVNULL, capture_output=True,
            text=True, timeout=SECONDS,
        )  # fmt: skip

    def say(self, *words: str | Path) -> str:
        done = self.run(*words)
        assert done.returncode == 0, f"{words}: {done.stdout}{done.stderr}"
        return done.stdout


def end(namespace: str, daemons: list[subprocess.Popen[bytes]]) -> None:
    """End what was started, and what that has started in its namespace."""
    for daemon in daemons:
        daemon.terminate()
    for daemon in daemons:
        with contextlib.suppress(subprocess.TimeoutExpired):
            daemon.wait(5)
        daemon.kill()
        daemon.wait(5)
    left = subprocess.run(["ip", "netns", "pids", namespace], capture_output=True, text=True, check=False)
    for pid in left.stdout.split():
        with contextlib.suppress(ProcessLookupError):
            os.kill(int(pid), signal.SIGKILL)


@contextmanager
def head_with_nodes(
    profile: str = "compute", program: tuple[str, ...] = PROGRAM, flags: tuple[str, ...] = ()
) -> Iterator[Served]:
    """A head that serves and knows two nodes, node01 and node02, whose addresses the other end of its cable has."""
    with rack_of_one(program) as served:
        store = Store(served.paths.database, served.paths.lock)
        for number, address in enumerate(ADDRESSES, 1):
            node = Node(
                number, State.UP, name=f"node0{number}", macs=(f"52:54:00:00:77:3{number}",), address=address,
                profile="default", groups=(profile,), facts=FACTS,
            )  # fmt: skip
            store.write([node_row(node), facts_row(number, FACTS)])
            served.lan.ip("-n", served.lan.node, "address", "add", f"{address}/24", "dev", "node0")
        store.close()
        served.start(*flags)
        yield served


__all__ = ["ADDRESSES", "HEAD_IP", "NODE_IP", "Room", "end", "head_with_nodes", "wait_for"]
