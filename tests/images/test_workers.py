"""Threads on one list: all of it is done, and one error or wish ends it."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest

from images.workers import Cancelled, Workers


def test_every_item_is_handed_out_once() -> None:
    seen: list[int] = []
    Workers(4, "counting").share(range(1000), lambda items: seen.extend(items))
    assert sorted(seen) == list(range(1000))


def test_the_threads_run_side_by_side() -> None:
    meeting = threading.Barrier(3, timeout=20)

    def meet(items: Iterator[int]) -> None:
        for _ in items:
            meeting.wait()

    Workers(3, "meeting").share(range(3), meet)


def test_the_first_error_ends_all_and_is_the_one_raised() -> None:
    workers, failed, after = Workers(2, "failing"), threading.Event(), []

    def work(items: Iterator[int]) -> None:
        for item in items:
            if item == 0:
                failed.set()
                raise KeyError("first")
            failed.wait(20)
            while not workers.stopped():
                pass
            after.append(item)

    before = threading.active_count()
    with pytest.raises(KeyError, match="first"):
        workers.share(range(100), work)
    assert len(after) <= 1
    assert threading.active_count() == before


def test_a_cancelled_list_is_told_as_cancelled() -> None:
    cancel = threading.Event()
    seen: list[int] = []

    def work(items: Iterator[int]) -> None:
        for item in items:
            seen.append(item)
            if len(seen) == 5:
                cancel.set()

    workers = Workers(1, "writing /dev/x", cancel)
    with pytest.raises(Cancelled, match="writing /dev/x was cancelled"):
        workers.share(range(100), work)
    assert seen == [0, 1, 2, 3, 4]


def test_an_error_in_the_list_itself_is_raised() -> None:
    def broken() -> Iterator[int]:
        yield 1
        raise ValueError("no more")

    taken: list[int] = []
    with pytest.raises(ValueError, match="no more"):
        Workers(3, "reading").share(broken(), taken.extend)


def test_no_workers_for_no_work() -> None:
    Workers(0, "nothing").share([], lambda items: pytest.fail("nobody should run"))
