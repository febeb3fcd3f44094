"""The lab: a network namespace with a bridge, the one file serving in it, virtual machines and light hosts on it.

    with Lab() as lab:
        lab.head()
        machine = lab.machine("m1", firmware="uefi")
        machine.start()
        lab.wait(lambda: lab.gild("node", "list", "--json"), 60, "a machine in the waiting room")

Nothing reaches the interfaces of the machine it runs on, and everything is gone at the end, whatever happens.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import IO, Any

from tests.lab.machine import Firmware, Machine

__all__ = ["ADDRESS", "NETWORK", "PYZ", "ROOT", "Head", "Host", "Lab", "LabError", "Machine"]

ROOT = Path(__file__).resolve().parents[2]
PYZ = ROOT / "dist" / "gild.pyz"
ADDRESS = "10.77.0.1"
NETWORK = "10.77.0.0/24"
BRIDGE = "br0"
IMAGES = "store"  # the part of a state directory that is slow to make again
START_SECONDS = 30.0
_numbers = itertools.count(1)


class LabError(Exception):
    """Something in the lab did not happen; the message holds what is known about why."""


class Lab:
    """One network and all that is on it. `state` is the head's directory, a temporary one if not given; with
    `keep_images` an earlier run's images stay in it, and nothing else. `program` starts gild."""

    def __init__(
        self, state: Path | None = None, *, keep_images: bool = False, program: Sequence[str | Path] | None = None
    ) -> None:
        if os.geteuid() != 0:
            raise LabError("the lab needs root: it makes network namespaces")
        if program is None and not PYZ.exists():
            raise LabError(f"{PYZ} is not there; build it: python3 build.py app")
        self.program = [str(word) for word in program or (sys.executable, PYZ)]
        self.namespace = f"gild{os.getpid()}x{next(_numbers)}"
        self.folder = Path(tempfile.mkdtemp(prefix=f"{self.namespace}-"))
        self.state = state or self.folder / "state"
        self.keep_images = keep_images
        self.machines: list[Machine] = []
        self.heads: list[Head] = []
        self.hosts: list[Host] = []
        self._running: list[subprocess.Popen[str]] = []

    def __enter__(self) -> Lab:
        self._sweep_state()
        try:
            ip("netns", "add", self.namespace)
            ip("-n", self.namespace, "link", "set", "lo", "up")
            # Without forwarding delay: a bridge port would drop a machine's first DHCP packets while it learns.
            ip("-n", self.namespace, "link", "add", BRIDGE, "type", "bridge", "forward_delay", "0", "stp_state", "0")
            ip("-n", self.namespace, "addr", "add", f"{ADDRESS}/24", "dev", BRIDGE)
            # Duplicate address detection would keep the link-local address back for a second.
            self.inside("sh", "-c", f"echo 0 > /proc/sys/net/ipv6/conf/{BRIDGE}/accept_dad")
            ip("-n", self.namespace, "link", "set", BRIDGE, "up")
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, tb: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """End every process of the lab, remove its namespaces and files. Never raises."""
        for thing in self._things():
            with contextlib.suppress(Exception):
                thing.stop()
        for process in self._running:
            if process.poll() is None:
                process.kill()
        for name in (*(host.namespace for host in self.hosts), self.namespace):
            subprocess.run(["ip", "netns", "del", name], capture_output=True)
        shutil.rmtree(self.folder, ignore_errors=True)

    # The head.

    def head(self, *flags: str) -> Head:
        """Start `gild serve` on the lab's bridge and return once it answers."""
        head = Head(self, flags)
        self.heads.append(head)
        head.start()
        return head

    def gild(self, *args: str, text: bool = False, timeout: float = 60.0, show: bool = False) -> Any:
        """Run one command of gild on the head's state. Returns what it printed: parsed if `--json` is among `args`
        (and not `text`), else as text. With `show` its progress is seen. Raises LabError if it fails.

        It runs outside of the namespace, as building an image needs the machine's own network."""
        argv = [*self.program, "--state", str(self.state), *args]
        process = subprocess.Popen(
            argv,
            stdin=subprocess.DEVNULL,
            stdout=None if show else subprocess.PIPE,
            stderr=None if show else subprocess.PIPE,
            text=True,
        )
        self._running.append(process)
        try:
            out, err = process.communicate(timeout=timeout)
        except subprocess.TimeoutExpired:
            raise LabError(f"gild {shlex.join(args)} did not end within {timeout:.0f} s") from None
        finally:
            if process.poll() is None:
                process.kill()
                process.wait()
            self._running.remove(process)
        if process.returncode:
            raise LabError(f"gild {shlex.join(args)} failed ({process.returncode}): {err or ''}\n{self.story()}")
        if "--json" in args and not text and not show:
            return json.loads(out)
        return out or ""

    def command(self, *args: str) -> str:
        """The same as a line that a person can paste into a shell."""
        return shlex.join([*self.program, "--state", str(self.state), *args])

    # What is on the network.

    def machine(
        self,
        name: str,
        firmware: Firmware = "bios",
        disk_size: str = "6G",
        bus: str = "virtio",
        *,
        memory: int = 512,
        nic: str = "virtio-net-pci",
        mac: str = "",
        disk: Path | None = None,
        order: str = "nc",
    ) -> Machine:
        """A virtual machine on the bridge, switched off, with an empty disk of `disk_size` (or the file `disk`).

        `memory` in MiB. `bus` is virtio, ahci, nvme or scsi; `order` the firmware's: n the network, c the disk."""
        number = len(self.machines) + 1
        tap = f"tap{number}"
        ip("-n", self.namespace, "tuntap", "add", "dev", tap, "mode", "tap")
        ip("-n", self.namespace, "link", "set", tap, "master", BRIDGE, "up")
        if disk is None:
            disk = self.folder / f"{name}.img"
            subprocess.run(["truncate", "-s", disk_size, disk], check=True)
        machine = Machine(
            name=name, namespace=self.namespace, folder=self.folder, tap=tap, disk=disk, firmware=firmware, bus=bus,
            memory=memory, nic=nic, mac=mac or f"52:54:00:77:00:{number:02x}", order=order,
        )  # fmt: skip
        self.machines.append(machine)
        return machine

    def host(self, name: str, mac: str = "") -> Host:
        """A light host on the bridge: a namespace with an interface eth0, up and without an address."""
        host = Host(self, f"{self.namespace}{name}", f"v{len(self.hosts) + 1}", mac)
        self.hosts.append(host)
        host.join()
        return host

    def inside(self, *argv: str | Path, timeout: float = 60.0) -> str:
        """Run a program in the head's namespace; returns what it printed. Raises LabError if it fails."""
        return in_namespace(self.namespace, argv, timeout)

    # Waiting, and telling what happened.

    def wait(self, done: Callable[[], Any], timeout: float, what: str, *, every: float = 0.1) -> Any:
        """Ask `done` every `every` seconds until it returns something true, and return that.

        Raises LabError after `timeout` seconds, or as soon as a head or machine has ended by itself, with their logs.
        """
        end = time.monotonic() + timeout
        while True:
            if value := done():
                return value
            dead = [thing.name for thing in self._things() if thing.died()]
            if dead:
                raise LabError(f"waiting for {what}: {', '.join(dead)} ended\n{self.story()}")
            if time.monotonic() > end:
                raise LabError(f"waited {timeout:.0f} s in vain for {what}\n{self.story()}")
            time.sleep(every)

    def story(self, lines: int = 30) -> str:
        """The ends of all logs: the heads', the nodes' timelines, the machines' consoles."""
        parts = [f"--- {head.name}\n{tail(head.log, lines)}" for head in self.heads]
        if any(head.alive() for head in self.heads):
            parts += self._timelines(lines)
        parts += [f"--- console of {machine.name}\n{machine.console_tail(lines)}" for machine in self.machines]
        return "\n".join(parts)

    def _timelines(self, lines: int) -> list[str]:
        base = [*self.program, "--state", str(self.state), "node"]
        parts = []
        with contextlib.suppress(Exception):
            for row in json.loads(subprocess.run([*base, "list", "--json"], capture_output=True, timeout=20).stdout):
                name = row["name"] or row["mac"]
                log = subprocess.run([*base, "log", name], capture_output=True, timeout=20, text=True).stdout
                parts.append(f"--- {name}: {row['state']}\n" + "\n".join(log.splitlines()[-lines:]))
        return parts

    def _things(self) -> list[Machine | Head]:
        return [*self.machines, *self.heads]

    def _sweep_state(self) -> None:
        self.state.mkdir(parents=True, exist_ok=True)
        for entry in self.state.iterdir():
            if self.keep_images and entry.name == IMAGES:
                continue
            if entry.is_dir() and not entry.is_symlink():
                shutil.rmtree(entry)
            else:
                entry.unlink()


class Head:
    """One serving process. `log` holds what it printed."""

    def __init__(self, lab: Lab, flags: Sequence[str]) -> None:
        self.lab, self.flags = lab, flags
        self.name = f"head{len(lab.heads) + 1}"
        self.log = lab.folder / f"{self.name}.log"
        self.process: subprocess.Popen[bytes] | None = None
        self._wanted = False

    def start(self) -> None:
        """Start it and wait until it answers on its socket. Raises LabError with its log if it does not."""
        lab = self.lab
        argv = [*lab.program, "--state", str(lab.state), "serve", "--interface", BRIDGE, *self.flags]
        # One that was killed left its socket behind; it says nothing about the new one.
        (lab.state / "gild.sock").unlink(missing_ok=True)
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                ["ip", "netns", "exec", lab.namespace, *argv], stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )
        self._wanted = True
        lab.wait((lab.state / "gild.sock").exists, START_SECONDS, f"{self.name} to open its socket", every=0.02)
        lab.gild("status", "--json")

    @property
    def pid(self) -> int:
        """Its process id (`ip netns exec` replaces itself by the program)."""
        assert self.process is not None
        return self.process.pid

    def alive(self) -> bool:
        """Whether it runs."""
        return self.process is not None and self.process.poll() is None

    def died(self) -> bool:
        """Whether it ended and nobody had asked it to."""
        return self._wanted and not self.alive()

    def stop(self, seconds: float = 10.0) -> int:
        """Ask it to end (SIGTERM), insist after `seconds`; returns its exit status, 0 if it was never started."""
        self._wanted = False
        if self.process is None:
            return 0
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(seconds)
            except subprocess.TimeoutExpired:
                self.kill()
        return self.process.wait()

    def kill(self) -> None:
        """End it at once (SIGKILL), as a power cut would."""
        self._wanted = False
        if self.process is not None and self.process.poll() is None:
            self.process.kill()
            self.process.wait()


class Host:
    """A namespace with one interface, eth0, on the lab's bridge: for DHCP, TFTP, DNS and HTTP clients."""

    def __init__(self, lab: Lab, namespace: str, port: str, mac: str) -> None:
        self.lab, self.namespace, self.port, self.mac = lab, namespace, port, mac

    def join(self) -> None:
        """Make the namespace and plug it in."""
        ip("netns", "add", self.namespace)
        ip("-n", self.namespace, "link", "set", "lo", "up")
        peer = ["address", self.mac] if self.mac else []
        ip("-n", self.lab.namespace, "link", "add", self.port, "type", "veth",
           "peer", "name", "eth0", *peer, "netns", self.namespace)  # fmt: skip
        ip("-n", self.lab.namespace, "link", "set", self.port, "master", BRIDGE, "up")
        ip("-n", self.namespace, "link", "set", "eth0", "up")

    def run(self, *argv: str | Path, timeout: float = 60.0) -> str:
        """Run a program there; returns what it printed. Raises LabError if it fails."""
        return in_namespace(self.namespace, argv, timeout)

    def start(self, *argv: str | Path, log: IO[bytes] | int = subprocess.DEVNULL) -> subprocess.Popen[bytes]:
        """Start a program there; the caller ends it."""
        full = ["ip", "netns", "exec", self.namespace, *map(str, argv)]
        return subprocess.Popen(full, stdin=subprocess.DEVNULL, stdout=log, stderr=log)

    def address(self, with_prefix: str) -> None:
        """Give eth0 an address by hand, such as "10.77.0.9/24"."""
        ip("-n", self.namespace, "addr", "add", with_prefix, "dev", "eth0")


def ip(*args: str) -> None:
    """Run ip(8). Raises LabError with what it said."""
    done = subprocess.run(["ip", *args], capture_output=True, text=True, timeout=20)
    if done.returncode:
        raise LabError(f"ip {' '.join(args)}: {done.stderr.strip()}")


def in_namespace(namespace: str, argv: Sequence[str | Path], timeout: float) -> str:
    """Run a program in a network namespace to its end; returns its output. Raises LabError if it fails."""
    full = ["ip", "netns", "exec", namespace, *map(str, argv)]
    try:
        done = subprocess.run(full, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=timeout)
    except subprocess.TimeoutExpired:
        raise LabError(f"{shlex.join(full[4:])} did not end within {timeout:.0f} s") from None
    if done.returncode:
        raise LabError(f"{shlex.join(full[4:])} failed ({done.returncode}): {done.stderr or done.stdout}")
    return done.stdout


def tail(path: Path, lines: int) -> str:
    """The last lines of a log file."""
    try:
        return "\n".join(path.read_text(errors="replace").splitlines()[-lines:])
    except OSError as error:
        return f"({error})"
