"""A rack hall is switched on: 5,000 machines at 500 a second, from their first packet to "up", without disks."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from appliance import keys, rows
from appliance.paths import Paths
from appliance.store import Store
from netboot.node import State
from tests.bench.lightnodes import mac_of
from tests.bench.rig import CLIENT, HEAD, PYZ, ROOT, Rig, Row, cpu_seconds, resident

COUNT = int(os.environ.get("BENCH_NODES", "5000"))
RATE = int(os.environ.get("BENCH_RATE", "500"))
RANGE = "10.78.32.0-10.78.95.250"


def run(rig: Rig) -> Iterator[Row]:
    """Declared, ordered, and all switched on."""
    yield from _storm(rig, "", pauses=True)
    # Machines that need no time to load anything do not exist; this is what the head does with all of it at once.
    yield from _storm(rig, "without pauses, ", pauses=False)


def _storm(rig: Rig, case: str, *, pauses: bool) -> Iterator[Row]:
    with ordered(rig, COUNT) as head:
        before = cpu_seconds(head.pid)
        begun = time.monotonic()
        with watched(head.pid) as memory:
            told = fleet(rig, COUNT, RATE, pauses=pauses)
        seconds, cpu = time.monotonic() - begun, cpu_seconds(head.pid) - before
    failed = COUNT - told["up"]
    rig.say(f"{case}{told['up']} of {COUNT} up in {seconds:.0f} s, {cpu:.1f} CPU s of the head, {told['failures']}")
    for kind, (half, most, longest) in sorted(told["spans"].items()):
        rig.say(f"{kind:14} {half:8.1f} {most:8.1f} {longest:8.1f} ms (50, 99, 100 of 100)")
    yield Row("storm", f"{case}{COUNT} at {RATE}/s, failures", failed, None, None, "nodes", "0", failed == 0)
    yield Row("storm", f"{case}99 of 100 answers within", told["p99"], None, None, "ms", "< 250", told["p99"] < 250)
    yield Row("storm", f"{case}resident memory", max(memory), None, None, "MiB", "< 300", max(memory) < 300)
    yield Row("storm", f"{case}CPU of the head for a node", cpu / COUNT * 1000, None, None, "ms", "", True)


@contextmanager
def ordered(rig: Rig, count: int) -> Iterator[subprocess.Popen[bytes]]:
    """A head with an image and `count` declared nodes, each with an order and its host keys; they are made beforehand,
    as they are in life while a machine is being approved."""
    state, tree = rig.folder / "state", rig.folder / "tree"
    for old in (state, tree):
        shutil.rmtree(old, ignore_errors=True)
    for name in ("etc", "usr/bin"):
        (tree / name).mkdir(parents=True)
    shutil.copy("/usr/bin/true", tree / "usr" / "bin" / "true")  # what tells its architecture
    (tree / "etc" / "os-release").write_text("ID=debian\nVERSION_ID=12\n")
    (rig.folder / "list.csv").write_text("name,mac\n" + "".join(f"n{n:05},{mac_of(n)}\n" for n in range(count)))
    gild(rig, state, "image", "import", tree, "--name", "tiny")
    with rig.gild(state, "--range", RANGE):
        gild(rig, state, "node", "load", rig.folder / "list.csv")
    paths = Paths(state)
    store = Store(paths.database, paths.lock)
    made = json.dumps(keys.host_keys("bench"))
    store.write([rows.host_keys_row(node.id, made) for node in rows.load_nodes(store) if node.state is State.READY])
    store.close()
    # Every address of the range is the client's own, and the head sends to all of them by way of its first: the
    # kernel's table of neighbours is one for all namespaces, holds 1024 and is not the bench's to enlarge.
    for net in ("10.78.32.0/19", "10.78.64.0/19"):
        subprocess.run(["ip", "-n", rig.client_ns, "route", "replace", "local", net, "dev", "lo"], check=True)
        subprocess.run(["ip", "-n", rig.head_ns, "route", "replace", net, "via", CLIENT], check=True)
    with rig.gild(state, "--range", RANGE) as head:
        gild(rig, state, "node", "install", "--all", "--yes")
        yield head


def fleet(
    rig: Rig, count: int, rate: int, *, pauses: bool, reports: float = 0.0, every: float = 10.0
) -> dict[str, Any]:
    """Switch them on; what they measured (see lightnodes)."""
    pem = rig.folder / "state" / "keys" / "head.pem"
    argv = [sys.executable, "-m", "tests.bench.lightnodes", HEAD, pem, count, rate, int(pauses), reports, every]
    process = rig.start(argv, where=rig.client_ns, stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=ROOT)
    out, err = process.communicate(timeout=600 + reports)
    if process.returncode:
        raise RuntimeError(f"the machines broke down: {err.decode()[-800:]}")
    told: dict[str, Any] = json.loads(out)
    return told


def gild(rig: Rig, state: Path, *words: Any) -> None:
    """A command of gild that has to succeed."""
    argv = [*rig.inside(rig.head_ns), sys.executable, PYZ, "--state", state, *words]
    done = subprocess.run([str(word) for word in argv], capture_output=True, text=True, timeout=300)
    if done.returncode:
        raise RuntimeError(f"gild {' '.join(map(str, words))}: {done.stderr[-500:]}")


@contextmanager
def watched(pid: int, every: float = 0.5) -> Iterator[list[float]]:
    """Resident memory of a process in MiB, looked at `every` so many seconds."""
    found, over = [resident(pid)], threading.Event()

    def look() -> None:
        while not over.wait(every):
            found.append(resident(pid))

    thread = threading.Thread(target=look)
    thread.start()
    try:
        yield found
    finally:
        over.set()
        thread.join()
