from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from appliance import timeline
from appliance.store import Store
from appliance.timeline import MAX_TEXT, Timeline, clean
from tests.appliance.rack import FakeClock


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[Store]:
    opened = Store(tmp_path / "gild.db", tmp_path / "lock")
    yield opened
    opened.close()


@given(st.text(max_size=3000))
def test_a_line_is_one_printable_line(text: str) -> None:
    line = clean(text)
    assert len(line) <= MAX_TEXT and all(c.isprintable() for c in line)
    line.encode()


def test_lines_of_memory_and_journal_make_one_story(journal: Store, clock: FakeClock) -> None:
    told = Timeline(journal, clock.wall, clock.steady)
    told.add(1, "one")
    told.add(2, "another node")
    journal.write(told.rows())
    told.add(1, "two")
    assert [entry.text for entry in told.of_node(1, 0)] == ["one", "two"]
    after = Timeline(journal, clock.wall, clock.steady)
    after.add(1, "three")
    assert [entry.text for entry in after.of_node(1, 0)] == ["one", "three"]
    assert [entry.text for entry in after.of_node(1, 1)] == ["three"]
    assert [entry.text for entry in after.of_node(1, 0, 1)] == ["three"]
    assert after.last == 3


def test_what_memory_has_forgotten_the_journal_knows(
    journal: Store, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(timeline, "RECENT", 10)
    told = Timeline(journal, clock.wall, clock.steady)
    for number in range(40):
        told.add(1, f"line {number}")
        journal.write(told.rows())
    assert len(told.recent) == 10
    assert [entry.text for entry in told.of_node(1, 0)] == [f"line {n}" for n in range(40)]
    assert [entry.text for entry in told.after(0)] == [f"line {n}" for n in range(30, 40)]


def test_a_timeline_is_bounded_on_disk(journal: Store, clock: FakeClock, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(timeline, "EVENTS_KEPT", 50)
    monkeypatch.setattr("appliance.rows.EVENTS_KEPT", 50)
    monkeypatch.setattr(timeline, "SLACK", 10)
    told = Timeline(journal, clock.wall, clock.steady)
    for number in range(500):
        told.add(1, f"line {number}")
        journal.write(told.rows())
    assert 50 <= journal.read("SELECT count(*) FROM events")[0][0] <= 61


def test_pending_lines_are_bounded_while_the_disk_is_full(
    journal: Store, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(timeline, "RECENT", 10)
    told = Timeline(journal, clock.wall, clock.steady)
    for number in range(1000):
        told.add(1, f"line {number}")
    assert len(told._pending) <= 11


def test_the_clock_of_people_may_jump(journal: Store, clock: FakeClock) -> None:
    told = Timeline(journal, clock.wall, clock.steady)
    told.note(1, "same")
    clock.jump(-86400)
    told.note(1, "same")
    assert len(told.recent) == 1
    told.add(1, "later")
    assert told.recent[1].at < told.recent[0].at and told.recent[1].id > told.recent[0].id


def test_nobody_waits_longer_than_asked(journal: Store, clock: FakeClock) -> None:
    told = Timeline(journal, clock.wall, clock.steady)

    async def two() -> None:
        await told.news(0.01)
        waiting = [asyncio.create_task(told.news(20)) for _ in range(2)]
        await asyncio.sleep(0)
        told.add(1, "news")
        await asyncio.wait_for(asyncio.gather(*waiting), 5)

    asyncio.run(two())
