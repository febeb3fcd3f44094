"""How an installation goes, told to the head from a thread of its own, in order and without loss of what counts."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import replace

from images.errors import GildError
from netboot.agent.link import FIRST_WAIT, LAST_WAIT, TIMEOUT, HeadRefused, Link
from netboot.report import Ack, Phase, Report

MAX_LINES = 2000  # log lines kept while the head is away
LINES_AT_ONCE = 200
MAX_LINE = 500  # characters


class Reporter:
    """Sends reports from a thread of its own: the newest progress, all phases in order, log lines in batches.

    Bounded: while the head is away the oldest log lines go, and their number is told. `stop` holds the head's reason
    to give up, `stopped` is set with it (a restore takes it as its cancel event).
    """

    def __init__(self, link: Link, every: float = 1.0, clock: Callable[[], float] = time.monotonic) -> None:
        self.link, self.every, self.clock = link, every, clock
        self._shortest = every
        self.begun = clock()
        self.stop = ""
        self.stopped = threading.Event()
        self._lock = threading.Condition()
        self._lines: deque[str] = deque(maxlen=MAX_LINES)
        self._lost = 0
        self._events: deque[Report] = deque(maxlen=64)
        self._progress: Report | None = None
        self._busy = self._event_out = False
        self._closing = False
        self._thread = threading.Thread(target=self._send_all, name="reporter", daemon=True)

    def start(self) -> None:
        """Begin to send."""
        self._thread.start()

    def begin(self) -> None:
        """A new order: its time begins, and an earlier order's `stop` no longer counts."""
        with self._lock:
            self.begun, self.stop, self._progress = self.clock(), "", None
            self.stopped.clear()

    def say(self, line: str) -> None:
        """A log line for the head; control characters do not survive."""
        text = "".join(c if c.isprintable() else " " for c in line)[:MAX_LINE]
        with self._lock:
            self._lost += len(self._lines) == MAX_LINES
            self._lines.append(text)

    def progress(self, phase: Phase, done: int, total: int, fetched: int = 0) -> None:
        """How far `phase` is, in bytes. Only the newest is sent."""
        with self._lock:
            self._progress = Report("", phase=phase, done=done, total=total, fetched=fetched, seconds=self._seconds())

    def event(self, report: Report) -> None:
        """A phase, a failure or the end: sent in order, each until it is taken. Its session is filled in."""
        with self._lock:
            self._progress = None
            self._events.append(replace(report, seconds=self._seconds()))
            self._lock.notify_all()

    def flush(self, timeout: float) -> bool:
        """Wait until everything is with the head, at most `timeout` seconds. False if the head did not take it."""
        deadline = self.clock() + timeout
        with self._lock:
            self._lock.notify_all()
            while self._events or self._lines or self._busy:
                if self.clock() >= deadline or not self._thread.is_alive():
                    return False
                self._lock.wait(min(1.0, max(0.0, deadline - self.clock())))
            return True

    def close(self) -> None:
        """Stop sending after what is in hand."""
        with self._lock:
            self._closing = True
            self._lock.notify_all()
        if self._thread.is_alive():
            self._thread.join(TIMEOUT)

    def _seconds(self) -> float:
        return round(self.clock() - self.begun, 3)

    def _send_all(self) -> None:
        wait = FIRST_WAIT
        while True:
            with self._lock:
                if not self._events and not self._closing:
                    self._lock.wait(self.every)
                report = self._take()
                if report is None:
                    if self._closing:
                        return
                    continue
            try:
                self._heed(self.link.report(report))
                wait = FIRST_WAIT
            except GildError as error:
                if isinstance(error, HeadRefused) and 400 <= error.status < 500 and error.status not in (401, 404, 429):
                    self._done()  # the head will not like this report any better the next time
                    continue
                with self._lock:
                    self._return(report)
                    if self._closing:
                        return
                    self._lock.wait_for(lambda: self._closing, wait)
                wait = min(wait * 2, LAST_WAIT)
            else:
                self._done()

    def _take(self) -> Report | None:
        """The next report, with the log lines up to now; None if there is nothing to tell."""
        lines = tuple(self._lines.popleft() for _ in range(min(len(self._lines), LINES_AT_ONCE)))
        if self._lost:
            lines, self._lost = (f"... {self._lost} lines were lost while the head was away", *lines), 0
        self._event_out = bool(self._events)
        if self._events:
            report = self._events.popleft()
        elif self._progress is not None:
            report, self._progress = self._progress, None
        elif lines:
            report = Report("", seconds=self._seconds())
        else:
            return None
        self._busy = True
        return replace(report, lines=report.lines + lines)

    def _return(self, report: Report) -> None:
        """Put a report that was not taken back in front of the queue."""
        self._busy = False
        if self._event_out:
            self._events.appendleft(report)
        else:
            self._lines.extendleft(reversed(report.lines))
            # An event that came meanwhile is of a later phase: this progress is of no use then.
            if report.phase is not None and not self._events:
                self._progress = self._progress or replace(report, lines=())

    def _done(self) -> None:
        with self._lock:
            self._busy = False
            self._lock.notify_all()

    def _heed(self, ack: Ack) -> None:
        self.every = min(max(self._shortest, ack.every), LAST_WAIT)
        if ack.stop and not self.stop:
            self.stop = ack.stop[:MAX_LINE]
            self.stopped.set()
