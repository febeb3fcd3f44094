"""Two hosts on a private network, processes with their processor time, and the rows of a result."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
PYZ = ROOT / "dist" / "gild.pyz"
HEAD, CLIENT = "10.78.0.1", "10.78.0.2"
TICKS = os.sysconf("SC_CLK_TCK")


@dataclass
class Row:
    """One line of the result. `ratio` is ours / peer; `goal` is what must be reached, in words; `ok` says whether."""

    bench: str
    case: str
    ours: float
    peer: float | None
    ratio: float | None
    unit: str
    goal: str
    ok: bool


def at_most(bench: str, case: str, ours: float, limit: float, unit: str) -> Row:
    """A row without a peer: `ours` may not exceed `limit`."""
    return Row(bench, case, ours, None, None, unit, f"<= {limit:g}", ours <= limit)


def against(bench: str, case: str, ours: float, peer: float, unit: str, goal: str) -> Row:
    """A row beside a peer; `goal` is "<= x" or ">= x" for the ratio, or "" where the row is only for information."""
    ratio = ours / peer if peer else float("inf")
    sign, _, limit = goal.partition(" ")
    ok = not goal or (ratio <= float(limit) if sign == "<=" else ratio >= float(limit))
    return Row(bench, case, ours, peer, ratio, unit, goal, ok)


def median(measure: Callable[[], float], runs: int = 3) -> float:
    """Median of several runs."""
    return statistics.median(measure() for _ in range(runs))


def paired(ours: Callable[[], float], peer: Callable[[], float], runs: int = 5) -> tuple[float, float]:
    """Both in turn, ours, peer, ours, peer ..., so that a drifting machine favours neither: (median, median)."""
    pairs = [(ours(), peer()) for _ in range(runs)]
    return statistics.median(a for a, _ in pairs), statistics.median(b for _, b in pairs)


def cpu_seconds(pid: int) -> float:
    """Processor time, user and system, of a process and its living children."""
    total = 0.0
    for entry in [pid, *_children(pid)]:
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            fields = Path(f"/proc/{entry}/stat").read_text().rpartition(")")[2].split()
            total += (int(fields[11]) + int(fields[12])) / TICKS
    return total


def resident(pid: int) -> float:
    """Resident memory of a process in MiB."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) / 1024
    raise ProcessLookupError(pid)


def _children(pid: int) -> list[int]:
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError, IndexError):
                if int((entry / "stat").read_text().rpartition(")")[2].split()[1]) == pid:
                    found.append(int(entry.name))
    return found


class Rig:
    """A head's and a client's namespace joined by a veth pair, and a scratch folder; all gone at the end."""

    def __init__(self, say: Callable[[str], None]) -> None:
        self.say = say
        self.head_ns, self.client_ns = f"gbh{os.getpid()}", f"gbc{os.getpid()}"
        self.folder = Path(tempfile.mkdtemp(prefix="gild-bench-"))
        self._started: list[subprocess.Popen[bytes]] = []

    def __enter__(self) -> Rig:
        h, c = self.head_ns, self.client_ns
        for line in (
            f"netns add {h}", f"netns add {c}",
            f"link add bh netns {h} type veth peer name bc netns {c}",
            f"-n {h} addr add {HEAD}/16 dev bh", f"-n {c} addr add {CLIENT}/16 dev bc",
            f"-n {h} link set bh up", f"-n {c} link set bc up",
            f"-n {h} link set lo up", f"-n {c} link set lo up",
        ):  # fmt: skip
            subprocess.run(["ip", *line.split()], check=True)
        return self

    def __exit__(self, *_: object) -> None:
        for process in self._started:
            self.stop(process)
        for name in (self.head_ns, self.client_ns):
            subprocess.run(["ip", "netns", "del", name], check=False)
        shutil.rmtree(self.folder, ignore_errors=True)

    def peer(self, package: str) -> Path:
        """The unpacked files of a Debian package, fetched once; nothing of it is installed or started."""
        place = ROOT / ".build" / "peers" / package
        if not place.exists():
            part = place.with_name(package + ".part")
            shutil.rmtree(part, ignore_errors=True)
            part.mkdir(parents=True)
            subprocess.run(["apt-get", "download", "-qq", package], cwd=part, check=True)
            for deb in part.glob("*.deb"):
                subprocess.run(["dpkg-deb", "-x", deb, part], check=True)
                deb.unlink()
            part.rename(place)
        return place

    def start(
        self, argv: Sequence[Any], *, where: str, core: int | None = None, **options: Any
    ) -> subprocess.Popen[bytes]:
        """Start a process in a namespace, pinned to one core if given. It is stopped at the end at the latest."""
        pin = ["taskset", "-c", str(core)] if core is not None else []
        options = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL, **options}
        process = subprocess.Popen([*self.inside(where), *pin, *map(str, argv)], **options)
        self._started.append(process)
        return process

    def run(self, argv: Sequence[Any], *, where: str, core: int | None = None, timeout: float = 180) -> str:
        """Run a program to its end in a namespace; returns what it printed."""
        pin = ["taskset", "-c", str(core)] if core is not None else []
        done = subprocess.run(
            [*self.inside(where), *pin, *map(str, argv)],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=timeout,
        )
        return done.stdout.decode("utf-8", "replace")

    @staticmethod
    def inside(where: str) -> list[str]:
        """The prefix that runs a command in a namespace."""
        return ["ip", "netns", "exec", where]

    def stop(self, process: subprocess.Popen[bytes]) -> None:
        """End a process that `start` started."""
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()

    @contextlib.contextmanager
    def gild(self, state: Path, *flags: str, core: int | None = None) -> Iterator[subprocess.Popen[bytes]]:
        """`gild.pyz serve` in the head's namespace, ready."""
        # Its peers do not look for other servers before they answer either.
        argv = [sys.executable, PYZ, "--state", state, "serve", "--interface", "bh", "--dhcp-check", "off", *flags]
        log = (self.folder / "serve.log").open("ab")
        process = self.start(argv, where=self.head_ns, core=core, stderr=log)
        self.wait_for(state / "gild.sock", process)
        try:
            yield process
        finally:
            self.stop(process)
            log.close()

    def wait_for(self, path: Path, process: subprocess.Popen[bytes], seconds: float = 20) -> None:
        """Until a file is there; fails at once if the process has ended."""
        end = time.monotonic() + seconds
        while not path.exists():
            if process.poll() is not None or time.monotonic() > end:
                raise RuntimeError(f"no {path.name}: {(self.folder / 'serve.log').read_text()[-500:]}")
            time.sleep(0.01)


def write_json(rows: Sequence[Row], path: str) -> None:
    """The result as a JSON list."""
    Path(path).write_text(json.dumps([asdict(row) for row in rows], indent=2) + "\n")
