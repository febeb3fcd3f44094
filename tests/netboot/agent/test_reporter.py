"""Reports: in order, nothing that counts lost, everything bounded."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, field, replace

import pytest

from netboot.agent import reporter as module
from netboot.agent.link import HeadAway, HeadRefused
from netboot.agent.reporter import Reporter
from netboot.report import Ack, Phase, Report


@dataclass
class FakeLink:
    """Takes reports, or does what `bend` does first."""

    bend: Callable[[Report], None] = lambda report: None
    ack: Ack = field(default_factory=Ack)
    taken: list[Report] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def report(self, report: Report) -> Ack:
        self.bend(report)
        with self.lock:
            self.taken.append(replace(report, session="s"))
        return self.ack

    def lines(self) -> list[str]:
        return [line for report in self.taken for line in report.lines]


def reporting(link: FakeLink, every: float = 0.01) -> Reporter:
    reporter = Reporter(link, every)  # type: ignore[arg-type]
    reporter.start()
    return reporter


def test_phases_arrive_in_order_with_all_lines_between() -> None:
    link = FakeLink()
    reporter = reporting(link)
    for phase in Phase:
        reporter.say(f"now {phase}")
        reporter.event(Report("", phase=phase))
    reporter.event(Report("", finished=True, finish="kexec"))
    assert reporter.flush(10)
    assert [report.phase for report in link.taken if report.phase] == list(Phase)
    assert link.lines() == [f"now {phase}" for phase in Phase]
    assert link.taken[-1].finished
    reporter.close()


def test_lines_travel_in_batches() -> None:
    link = FakeLink()
    reporter = Reporter(link, 0.01)  # type: ignore[arg-type]
    for n in range(450):
        reporter.say(str(n))
    reporter.start()
    assert reporter.flush(10)
    assert [len(report.lines) for report in link.taken] == [200, 200, 50]


def test_only_the_newest_progress_is_told_and_a_new_phase_ends_it() -> None:
    link = FakeLink()
    reporter = Reporter(link, 0.01)  # type: ignore[arg-type]
    for done in range(5):
        reporter.progress(Phase.WRITE, done, 10, done)
    reporter.start()
    wait(lambda: bool(link.taken))
    assert [(report.done, report.total, report.fetched) for report in link.taken] == [(4, 10, 4)]
    reporter.progress(Phase.WRITE, 9, 10)
    reporter.event(Report("", phase=Phase.GROW))
    assert reporter.flush(10)
    assert link.taken[-1].phase is Phase.GROW


def test_a_busy_head_is_told_of_progress_less_often_and_of_events_at_once() -> None:
    link = FakeLink(ack=Ack(every=300.0))
    reporter = reporting(link)
    reporter.progress(Phase.WRITE, 1, 10)
    wait(lambda: bool(link.taken))
    wait(lambda: reporter.every == 10.0)
    reporter.progress(Phase.WRITE, 2, 10)
    reporter.event(Report("", phase=Phase.GROW))
    assert reporter.flush(5) and link.taken[-1].phase is Phase.GROW
    link.ack = Ack()
    reporter.event(Report("", phase=Phase.FIT))
    assert reporter.flush(5)
    wait(lambda: reporter.every == 0.01)
    reporter.close()


def test_a_head_that_is_away_hears_everything_that_counts_later(monkeypatch: pytest.MonkeyPatch) -> None:
    away = threading.Event()
    away.set()

    def bend(report: Report) -> None:
        if away.is_set():
            raise HeadAway("gone")

    monkeypatch.setattr("netboot.agent.reporter.FIRST_WAIT", 0.01)
    link = FakeLink(bend)
    reporter = reporting(link)
    reporter.event(Report("", phase=Phase.WRITE))
    reporter.progress(Phase.WRITE, 1, 2)
    for n in range(module.MAX_LINES + 700):
        reporter.say(f"line {n}")
    reporter.event(Report("", failed="the disk is gone"))
    assert not reporter.flush(0.05)
    away.clear()
    assert reporter.flush(20)
    assert [report.failed for report in link.taken if report.failed] == ["the disk is gone"]
    assert link.taken[0].phase is Phase.WRITE
    told = link.lines()
    assert told[-1] == f"line {module.MAX_LINES + 699}"
    (lost,) = [line for line in told if "were lost" in line]
    assert int(lost.split()[1]) + len(told) - 1 == module.MAX_LINES + 700
    reporter.close()


def test_a_report_the_head_does_not_like_does_not_block_the_next() -> None:
    def bend(report: Report) -> None:
        if report.phase is Phase.PLAN:
            raise HeadRefused("what?", status=400)

    link = FakeLink(bend)
    reporter = reporting(link)
    reporter.event(Report("", phase=Phase.PLAN))
    reporter.event(Report("", phase=Phase.WRITE))
    assert reporter.flush(10)
    assert [report.phase for report in link.taken] == [Phase.WRITE]


def test_stop_is_heard_once_and_cleared_by_a_new_order() -> None:
    link = FakeLink(ack=Ack("the order was taken back"))
    reporter = reporting(link)
    reporter.event(Report("", phase=Phase.PLAN))
    assert reporter.flush(10)
    assert reporter.stopped.is_set() and reporter.stop == "the order was taken back"
    link.ack = Ack()
    reporter.begin()
    assert not reporter.stopped.is_set() and reporter.stop == ""


def test_lines_are_made_printable_and_short() -> None:
    link = FakeLink()
    reporter = reporting(link)
    reporter.say("\x1b[2J\r\n" + "x" * 5000)
    assert reporter.flush(10)
    assert link.lines()[0].isprintable() and len(link.lines()[0]) == module.MAX_LINE


def test_seconds_count_from_the_order() -> None:
    times = iter([float(n) for n in range(100)])
    reporter = Reporter(FakeLink(), clock=lambda: next(times))  # type: ignore[arg-type]
    reporter.event(Report("", phase=Phase.PLAN))
    first = reporter._events[0].seconds
    reporter.begin()
    reporter.event(Report("", phase=Phase.PLAN))
    assert (first, reporter._events[1].seconds) == (1.0, 1.0)


def wait(ready: Callable[[], bool]) -> None:
    pause = threading.Event()
    for _ in range(500):
        if ready():
            return
        pause.wait(0.02)
    raise AssertionError("it never happened")


def test_phases_never_go_back_while_the_head_comes_and_goes() -> None:
    order = iter(range(1000))

    def bend(report: Report) -> None:
        if next(order) % 2:
            raise HeadAway("flapping")

    link = FakeLink(bend)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("netboot.agent.reporter.FIRST_WAIT", 0.001)
        reporter = reporting(link, 0.001)
        for phase in Phase:
            reporter.event(Report("", phase=phase))
            for done in range(20):
                reporter.progress(phase, done, 20)
                reporter.say(f"{phase} {done}")
        assert reporter.flush(20)
    told = [list(Phase).index(report.phase) for report in link.taken if report.phase is not None]
    assert told == sorted(told) and set(told) == set(range(len(Phase)))
    assert link.lines() == [f"{phase} {done}" for phase in Phase for done in range(20)]
