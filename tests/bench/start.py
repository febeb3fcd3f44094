"""How soon the file answers, how soon it serves, what it costs to have it idle."""

from __future__ import annotations

import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from tests.bench.rig import PYZ, Rig, Row, at_most, median, resident


def run(rig: Rig) -> Iterator[Row]:
    """Cold: the file and Python's libraries are dropped from the page cache before each run."""
    yield at_most("start", "--version", median(version, 5), 0.4, "s")
    state, memory = rig.folder / "state", []

    def ready() -> float:
        shutil.rmtree(state, ignore_errors=True)
        cold()
        begun = time.monotonic()
        with rig.gild(state) as process:
            seconds = time.monotonic() - begun
            time.sleep(1)
            memory.append(resident(process.pid))
            return seconds

    yield at_most("start", "serve to ready, new state", median(ready, 5), 2.0, "s")
    yield at_most("start", "resident, idle", sorted(memory)[len(memory) // 2], 80, "MiB")


def version() -> float:
    """Seconds of one cold `gild.pyz --version`."""
    cold()
    begun = time.monotonic()
    subprocess.run([sys.executable, str(PYZ), "--version"], check=True, stdout=subprocess.DEVNULL)
    return time.monotonic() - begun


def cold() -> None:
    """Drop clean pages; needs root, and changes nothing but speed."""
    subprocess.run(["sync"], check=True)
    Path("/proc/sys/vm/drop_caches").write_text("3\n")
