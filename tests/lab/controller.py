"""A real Slurm controller beside the head: munged and slurmctld in the head's namespace, under the name `head`."""

from __future__ import annotations

import contextlib
import os
import secrets
import shlex
import subprocess
from collections.abc import Iterable
from pathlib import Path
from typing import IO

from tests.lab.lab import ADDRESS, Lab, LabError, tail

DOMAIN = "cluster.internal"
# Configless nodes take this file from the controller, so every path in it but the controller's own is one of theirs.
# linuxproc needs no cgroups, which a namespace of this kind does not show; config_overrides lets a node be smaller than
# its line says.
CONFIGURATION = """\
ClusterName=lab
SlurmctldHost=head
SlurmUser=root
SlurmctldParameters=enable_configless
StateSaveLocation={folder}/state
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdSpoolDir=/var/spool/slurmd
ProctrackType=proctrack/linuxproc
SlurmdParameters=config_overrides
ReturnToService=2
{more}
"""


class Controller:
    """Started with `start`, ended by leaving the context. `key` is the munge key every node needs."""

    def __init__(self, lab: Lab) -> None:
        self.lab = lab
        self.folder = lab.folder / "slurm"
        self.conf = self.folder / "slurm.conf"
        self.key = self.folder / "munge.key"
        self._processes: list[subprocess.Popen[bytes]] = []
        self._log: IO[bytes] | None = None

    def __enter__(self) -> Controller:
        for path in (self.folder, self.folder / "state", self.folder / "run"):
            path.mkdir(mode=0o755)
        # Both daemons refuse a way that others could write to; the lab's folder is closed to all but root.
        os.chmod(self.lab.folder, 0o755)
        self.key.write_bytes(secrets.token_bytes(1024))
        self.key.chmod(0o600)
        (self.folder / "hosts").write_text(f"127.0.0.1 localhost\n{ADDRESS} head.{DOMAIN} head\n")
        (self.folder / "resolv.conf").write_text(f"search {DOMAIN}\nnameserver {ADDRESS}\n")
        (self.folder / "cgroup.conf").write_text("CgroupPlugin=autodetect\n")
        self.conf.write_text(CONFIGURATION.format(folder=self.folder, more=""))
        self._log = (self.folder / "log").open("ab")
        return self

    def __exit__(self, *_: object) -> None:
        for process in reversed(self._processes):
            process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(10)
            if process.poll() is None:
                process.kill()
                process.wait()
        if self._log is not None:
            self._log.close()

    def munged(self) -> None:
        """Start munge's daemon, and wait for its socket."""
        words = ["munged", "-F", f"--key-file={self.key}"]
        words += [f"--{name}-file={self.folder}/munge.{name}" for name in ("seed", "log", "pid")]
        self._start(words)
        self.lab.wait((self.folder / "run/munge.socket.2").exists, 20, "munged's socket")

    def slurmctld(self) -> None:
        """Start the controller, and wait until it answers."""
        self._start(["slurmctld", "-D", "-f", str(self.conf)])
        self.lab.wait(lambda: "UP" in self.try_("scontrol", "ping"), 30, f"slurmctld\n{self.log()}", every=0.5)

    def run(self, *argv: str | Path, timeout: float = 60.0) -> str:
        """Run a program as on the head: its name, hosts file, munge socket, SLURM_CONF. Returns what it printed.
        Raises LabError if it fails."""
        done = self._run(argv, timeout)
        if done.returncode:
            raise LabError(
                f"{shlex.join(map(str, argv))} failed ({done.returncode}): {done.stderr}{done.stdout}\n{self.log()}"
            )
        return done.stdout

    def try_(self, *argv: str | Path) -> str:
        """What a program printed, whether it failed or not."""
        done = self._run(argv, 20)
        return done.stdout + done.stderr

    def log(self) -> str:
        """The end of what the daemons said."""
        return tail(self.folder / "log", 30)

    def _run(self, argv: tuple[str | Path, ...], timeout: float) -> subprocess.CompletedProcess[str]:
        try:
            return subprocess.run(
                self._inside(map(str, argv)), stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=timeout
            )
        except subprocess.TimeoutExpired:
            raise LabError(f"{shlex.join(map(str, argv))} did not end within {timeout:.0f} s\n{self.log()}") from None

    def _start(self, argv: list[str]) -> None:
        self._processes.append(
            subprocess.Popen(self._inside(argv), stdin=subprocess.DEVNULL, stdout=self._log, stderr=self._log)
        )

    def _inside(self, argv: Iterable[str]) -> list[str]:
        # `ip netns exec` gives a mount namespace of its own, so what is mounted here is seen by this program alone.
        mounts = {"run": "/run/munge", "hosts": "/etc/hosts", "resolv.conf": "/etc/resolv.conf"}
        script = "hostname head; mkdir -p /run/munge; cd /"
        for name, place in mounts.items():
            script += f"; mount --bind {shlex.quote(str(self.folder / name))} {place}"
        words = shlex.join(argv)
        script += f"; export SLURM_CONF={shlex.quote(str(self.conf))}; exec {words}"
        return ["ip", "netns", "exec", self.lab.namespace, "unshare", "-u", "sh", "-ec", script]
