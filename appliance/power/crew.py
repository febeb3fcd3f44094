"""Threads that ask BMCs, a few at a time. A head that stops does not wait for them: a BMC may hang for minutes."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import TypeVar

T = TypeVar("T")

MOST = 16  # at work at once


class Crew:
    """Does pieces of work in the order in which they come, MOST at once, in threads that end with the process.
    (ThreadPoolExecutor's are waited for when the interpreter ends.)"""

    def __init__(self) -> None:
        self._work: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
        self._threads = 0
        self._idle = 0
        self._lock = threading.Lock()

    def submit(self, work: Callable[[], T]) -> Future[T]:
        """Have it done; the future has what it returns or raises, unless it was cancelled before its turn."""
        future: Future[T] = Future()

        def done() -> None:
            if future.set_running_or_notify_cancel():
                try:
                    future.set_result(work())
                except BaseException as error:
                    future.set_exception(error)

        with self._lock:
            self._work.put(done)
            fresh = not self._idle and self._threads < MOST
            if self._idle:
                self._idle -= 1
            elif fresh:
                self._threads += 1
        if fresh:
            threading.Thread(target=self._run, name="gild-power", daemon=True).start()
        return future

    def _run(self) -> None:
        while True:
            self._work.get()()
            with self._lock:
                # What is in the queue by now has found nobody idle: it is this thread's next work.
                self._idle += self._work.empty()
