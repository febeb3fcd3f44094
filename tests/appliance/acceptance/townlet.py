"""A head and nodes on one switch, each in a namespace with a name, an /etc and a root of its own, sshd among them."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from appliance import keys, rows
from appliance.paths import Paths
from appliance.store import Store
from netboot.node import Node, State
from netboot.report import Facts
from tests.appliance.process import CHECKOUT, PATIENCE, clean_environment, wait_for

HEAD = "10.78.0.1"
DIGEST = "e" * 64
SSHD = """\
Port 22
HostKey /etc/ssh/ssh_host_ed25519_key
AuthorizedKeysFile /root/.ssh/authorized_keys
PermitRootLogin yes
StrictModes no
UsePAM no
PidFile none
PasswordAuthentication no
"""


def address(number: int) -> str:
    return f"10.78.0.{10 + number}"


@dataclass
class Townlet:
    """`folder` holds everything; nodes are numbered from 1."""

    folder: Path
    head: str
    running: list[subprocess.Popen[bytes]] = field(default_factory=list)
    names: list[str] = field(default_factory=list)
    host_keys: dict[int, dict[str, str]] = field(default_factory=dict)

    @property
    def state(self) -> Path:
        return self.folder / "state"

    @property
    def key(self) -> str:
        return str(self.folder / "id")

    def key_pair(self, path: Path) -> str:
        """An ssh key; its public line."""
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(path)], check=True)
        return path.with_name(path.name + ".pub").read_text()

    def etc(self, number: int, name: str, let_in: str, host_keys: dict[str, str]) -> Path:
        """What a node has of its own: /etc and /root."""
        own = self.folder / f"n{number}"
        etc, ssh = own / "etc", own / "root/.ssh"
        own.mkdir()
        subprocess.run(["cp", "-a", "/etc", str(etc)], check=True)
        ssh.mkdir(parents=True, mode=0o700)
        for file in ("resolv.conf", "ssh/ssh_known_hosts"):
            (etc / file).unlink(missing_ok=True)
        (etc / "hostname").write_text(name + "\n")
        (etc / "hosts").write_text("127.0.0.1 localhost\n")
        (etc / "resolv.conf").write_text(f"search cluster.internal\nnameserver {HEAD}\n")
        (etc / "nsswitch.conf").write_text("passwd: files\ngroup: files\nshadow: files\nhosts: files dns\n")
        (etc / "gild-release").write_text(f"IMAGE=compute:3\nMANIFEST={DIGEST}\nPROFILE=default\n")
        (etc / "ssh/sshd_config").write_text(SSHD)
        for file, text in host_keys.items():
            (etc / "ssh" / file).write_text(text)
            (etc / "ssh" / file).chmod(0o600)
        (ssh / "authorized_keys").write_text(let_in)
        shutil.copy(self.folder / "ring", ssh / "id_ed25519")
        known = [f"node{n:02} {kept['ssh_host_ed25519_key.pub']}" for n, kept in self.host_keys.items()]
        (etc / "ssh/ssh_known_hosts").write_text("".join(known))
        return own

    def journal(self, count: int) -> None:
        """What the head knows of the nodes."""
        self.state.mkdir()
        paths = Paths(self.state)
        store = Store(paths.database, paths.lock)
        statements = []
        for n in range(1, count + 1):
            self.host_keys[n] = keys.host_keys(f"node{n:02}")
            facts = Facts(threads=os.cpu_count() or 1, memory=1 << 20)
            node = Node(
                n, State.UP, name=f"node{n:02}", address=address(n), macs=(f"02:00:00:00:01:{n:02x}",),
                image="compute:3", digest=DIGEST, facts=facts,
            )  # fmt: skip
            statements += [rows.node_row(node), rows.facts_row(n, facts)]
            statements.append(rows.host_keys_row(n, json.dumps(self.host_keys[n])))
        store.write(statements)
        store.close()

    def node(self, number: int, *, says: str = "", let_in: str, stranger: bool = False) -> None:
        """Switch one on."""
        namespace = f"{self.head[:-1]}{number}"
        name = says or f"node{number:02}"
        own = self.etc(number, name, let_in, keys.host_keys(name) if stranger else self.host_keys[number])
        self.names.append(namespace)
        ip("netns", "add", namespace)
        ip("link", "add", "eth0", "netns", namespace, "type", "veth", "peer", "name", f"p{number}", "netns", self.head)
        ip("-n", self.head, "link", "set", f"p{number}", "master", "br0", "up")
        ip("-n", namespace, "link", "set", "lo", "up")
        ip("-n", namespace, "address", "add", f"{address(number)}/24", "dev", "eth0")
        ip("-n", namespace, "link", "set", "eth0", "up")
        inside = (
            f"hostname {name} && mount --bind {own}/etc /etc && mount --bind {own}/root /root"
            " && mount -t tmpfs run /run && mount -t tmpfs tmp /tmp && mkdir -p /run/sshd"
            " && exec /usr/sbin/sshd -D -e -f /etc/ssh/sshd_config"
        )
        with (self.folder / f"sshd{number}.log").open("wb") as log:
            self.running.append(
                subprocess.Popen(
                    ["ip", "netns", "exec", namespace, "unshare", "-u", "sh", "-c", inside],
                    stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                )
            )  # fmt: skip

    def serve(self) -> None:
        """The real head, on the switch."""
        log = self.folder / "serve.log"
        with log.open("wb") as out:
            self.running.append(
                subprocess.Popen(
                    self.command("serve", "--interface", "br0"), cwd=CHECKOUT, env=clean_environment(),
                    stdin=subprocess.DEVNULL, stdout=out, stderr=out,
                )
            )  # fmt: skip
        wait_for(lambda: "serving on" in log.read_text())
        for number in range(1, len(self.running)):
            told = self.folder / f"sshd{number}.log"
            wait_for(lambda told=told: not told.exists() or "listening" in told.read_text())

    def command(self, *words: str) -> list[str]:
        return ["ip", "netns", "exec", self.head, sys.executable, "-m", "appliance", "--state", str(self.state), *words]

    def gild(self, *words: str, path: str = "") -> subprocess.CompletedProcess[str]:
        """A command on the head; `path` comes before the PATH."""
        environment = {**clean_environment(), "PATH": f"{path}:{os.environ['PATH']}".strip(":"), "SSH_AUTH_SOCK": ""}
        return subprocess.run(
            self.command(*words), cwd=CHECKOUT, env=environment, stdin=subprocess.DEVNULL, capture_output=True,
            text=True, timeout=4 * PATIENCE,
        )  # fmt: skip

    def down(self) -> None:
        for process in self.running:
            process.terminate()
        for process in self.running:
            process.wait(PATIENCE)
        for name in [self.head, *self.names]:
            # What still runs there: the sessions of an sshd.
            pids = subprocess.run(["ip", "netns", "pids", name], capture_output=True, text=True, check=False).stdout
            for pid in pids.split():
                subprocess.run(["kill", "-9", pid], check=False, capture_output=True)
            subprocess.run(["ip", "netns", "delete", name], check=False, capture_output=True)


def ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True, capture_output=True)


@contextmanager
def townlet() -> Iterator[Townlet]:
    """A switch with the head on it, and no node yet."""
    folder = Path(tempfile.mkdtemp(prefix="gild-"))
    folder.chmod(0o755)
    made = Townlet(folder, f"gild-{os.getpid()}-{time.monotonic_ns() % 10**6}t0")
    try:
        ip("netns", "add", made.head)
        ip("-n", made.head, "link", "set", "lo", "up")
        ip("-n", made.head, "link", "add", "br0", "type", "bridge")
        ip("-n", made.head, "address", "add", f"{HEAD}/24", "dev", "br0")
        ip("-n", made.head, "link", "set", "br0", "up")
        yield made
    finally:
        made.down()
        shutil.rmtree(folder)
