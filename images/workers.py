"""Several threads on one list of work: the first error, or the caller's wish, ends them all."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

from images.errors import ImageError

T = TypeVar("T")


class Cancelled(ImageError):
    """The caller wants no more of it."""


class Workers:
    """Threads that share a list of work."""

    def __init__(self, count: int, what: str, cancel: threading.Event | None = None) -> None:
        """`count` threads at most; `what` they do, for the message of Cancelled; `cancel` is the caller's."""
        self.count, self._what, self._cancel = count, what, cancel
        self._lock = threading.Lock()
        self._errors: list[BaseException] = []

    def stopped(self) -> bool:
        """Whether what is being done is in vain: it was cancelled, or another worker failed."""
        return bool(self._errors) or (self._cancel is not None and self._cancel.is_set())

    def heed(self) -> None:
        """Raises Cancelled if stopped."""
        if self.stopped():
            raise Cancelled(f"{self._what} was cancelled")

    def share(self, items: Iterable[T], work: Callable[[Iterator[T]], None]) -> None:
        """Run `work` in every thread, each with an iterator that gives it the next of `items`, and wait for all.

        The first error of any thread is raised, after every thread has ended; Cancelled if the caller cancelled."""
        left = iter(items)
        begun: list[threading.Event] = []
        ended = [threading.Event() for _ in range(self.count)]

        def handed_out() -> Iterator[T]:
            while True:
                self.heed()
                with self._lock:
                    try:
                        item = next(left)
                    except StopIteration:
                        return
                yield item

        def body(number: int) -> None:
            try:
                with self._lock:
                    if self._errors:
                        return
                    begun.append(ended[number])
                work(handed_out())
            except BaseException as error:
                self._errors.append(error)
            finally:
                ended[number].set()

        threads = [
            threading.Thread(target=body, args=(n,), name=f"{self._what} {n}", daemon=True) for n in range(self.count)
        ]
        try:
            for thread in threads:
                thread.start()
            for event in ended:
                event.wait()
        except BaseException as error:  # Ctrl-C: the threads write to a disk that the caller is about to close
            with self._lock:
                self._errors.append(error)
            for event in begun:  # one that begins after this sees the error and does nothing
                event.wait()
            raise
        finally:
            # Not waited for by this: before Python 3.13 an interrupted join takes the thread for ended (bpo-45274).
            for thread in threads:
                if thread.ident is not None:
                    thread.join()
        if self._errors:
            raise self._errors[0]
