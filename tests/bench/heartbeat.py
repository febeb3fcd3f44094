"""Ten thousand nodes that report every ten seconds, for five minutes: memory has to stay flat, and a core half idle."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator
from typing import Any

from tests.bench.rig import Rig, Row, cpu_seconds, resident
from tests.bench.storm import fleet, ordered

COUNT = int(os.environ.get("BENCH_NODES", "10000"))
SECONDS = float(os.environ.get("BENCH_SECONDS", "300"))
EVERY = 10.0
ARRIVALS = 100  # nodes a second, until all are there


def run(rig: Rig) -> Iterator[Row]:
    """All of them are brought into the middle of an installation, and report from there."""
    told: dict[str, Any] = {}
    arriving = COUNT / ARRIVALS + 30
    with ordered(rig, COUNT) as head:

        def live() -> None:
            told.update(fleet(rig, COUNT, ARRIVALS, pauses=False, reports=arriving + SECONDS, every=EVERY))

        thread = threading.Thread(target=live)
        thread.start()
        time.sleep(arriving + 30)  # warm
        memory, cpu, begun = resident(head.pid), cpu_seconds(head.pid), time.monotonic()
        time.sleep(SECONDS - 60)
        grown = resident(head.pid) / memory * 100 - 100
        busy = (cpu_seconds(head.pid) - cpu) / (time.monotonic() - begun) * 100
        thread.join(900)
    failed = COUNT - int(told.get("up", 0))
    rig.say(f"{memory:.0f} MiB, {told.get('failures')}, {told.get('spans', {}).get('/node/report')} ms")
    yield Row("heartbeat", f"{COUNT} nodes, memory grows by", grown, None, None, "%", "< 5", grown < 5)
    yield Row("heartbeat", "of one core", busy, None, None, "%", "< 50", busy < 50)
    yield Row("heartbeat", "failures", failed, None, None, "nodes", "0", failed == 0)
