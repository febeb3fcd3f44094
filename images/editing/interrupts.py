"""Ctrl-C while another thread has mounts: it is noted, and that thread ends where it can and is not left alone."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any


class Interrupts:
    """Whether Ctrl-C was typed since the last `forget`."""

    def __init__(self) -> None:
        self._noted = threading.Event()

    def check(self, count: int = 0) -> None:
        """Raise KeyboardInterrupt if it was; takes a count so that it can be told of progress."""
        if self._noted.is_set():
            raise KeyboardInterrupt

    def typed(self) -> bool:
        """Whether it was."""
        return self._noted.is_set()

    def forget(self) -> None:
        """What was typed was not for us."""
        self._noted.clear()

    def note(self, number: int = 0, frame: FrameType | None = None) -> None:
        """Take a signal."""
        self._noted.set()


@contextmanager
def noted() -> Iterator[Interrupts]:
    """Take Ctrl-C during the block; outside of the main thread, where no signal arrives, nothing is changed."""
    interrupts = Interrupts()
    if threading.current_thread() is not threading.main_thread():
        yield interrupts
        return
    before: Any = signal.signal(signal.SIGINT, interrupts.note)
    try:
        yield interrupts
    finally:
        signal.signal(signal.SIGINT, before)
