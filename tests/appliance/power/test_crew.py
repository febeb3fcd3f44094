from __future__ import annotations

import subprocess
import sys
import threading
from functools import partial

import pytest

from appliance.power.crew import MOST, Crew


def test_so_many_at_once_and_no_more() -> None:
    crew, go, lock = Crew(), threading.Event(), threading.Lock()
    running, most = 0, 0

    def work() -> int:
        nonlocal running, most
        with lock:
            running += 1
            most = max(most, running)
        assert go.wait(30)
        with lock:
            running -= 1
        return 1

    futures = [crew.submit(work) for _ in range(3 * MOST)]
    assert not futures[0].done()
    go.set()
    assert sum(future.result(30) for future in futures) == 3 * MOST and most == MOST


def test_a_slow_one_holds_up_no_other() -> None:
    crew, go = Crew(), threading.Event()
    for _ in range(3):  # threads that have been idle in between
        assert crew.submit(lambda: 1).result(30) == 1
    slow = [crew.submit(lambda: go.wait(30)) for _ in range(MOST - 1)]
    assert [crew.submit(partial(int, n)).result(30) for n in range(20)] == list(range(20))
    go.set()
    assert all(future.result(30) for future in slow)


def test_errors_and_the_cancelled() -> None:
    crew, go = Crew(), threading.Event()
    bad = crew.submit(lambda: 1 // 0)
    with pytest.raises(ZeroDivisionError):
        bad.result(30)
    held = [crew.submit(lambda: go.wait(30)) for _ in range(MOST)]
    late = crew.submit(lambda: 1)
    assert late.cancel()
    go.set()
    assert all(future.result(30) for future in held) and crew.submit(lambda: 2).result(30) == 2


def test_a_process_that_ends_waits_for_none() -> None:
    text = "import time; from appliance.power.crew import Crew; Crew().submit(lambda: time.sleep(600)); print('over')"
    assert subprocess.run([sys.executable, "-c", text], capture_output=True, timeout=60).stdout == b"over\n"
