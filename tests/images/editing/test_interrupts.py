"""Ctrl-C that is noted, not raised, while the block runs."""

from __future__ import annotations

import os
import signal
import threading

import pytest

from images.editing.interrupts import noted


def test_it_is_raised_where_it_is_looked_for() -> None:
    before = signal.getsignal(signal.SIGINT)
    with noted() as interrupts:
        os.kill(os.getpid(), signal.SIGINT)
        with pytest.raises(KeyboardInterrupt):
            interrupts.check(5)
        interrupts.forget()
        interrupts.check()
    assert signal.getsignal(signal.SIGINT) is before
    with pytest.raises(KeyboardInterrupt):
        os.kill(os.getpid(), signal.SIGINT)
        signal.sigtimedwait([], 1)


def test_other_threads_have_no_signals_to_take() -> None:
    before = signal.getsignal(signal.SIGINT)
    seen: list[object] = []

    def work() -> None:
        with noted() as interrupts:
            seen.append(signal.getsignal(signal.SIGINT))
            interrupts.check()

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [before]
