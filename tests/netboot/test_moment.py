from __future__ import annotations

import time
from datetime import datetime

import pytest

from netboot.moment import MomentInvalid, moment

NOW = datetime(2026, 3, 28, 23, 30).timestamp()


@pytest.mark.parametrize(
    ("text", "when"),
    [
        ("23:45", datetime(2026, 3, 28, 23, 45)), ("02:00", datetime(2026, 3, 29, 2, 0)),
        ("23:30", datetime(2026, 3, 29, 23, 30)), ("2026-03-29T12:00", datetime(2026, 3, 29, 12, 0)),
    ],
)  # fmt: skip
def test_times_of_the_day_are_the_next_ones(text: str, when: datetime) -> None:
    assert moment(text, NOW) == when.timestamp()


@pytest.mark.parametrize(("text", "seconds"), [("+2h", 7200), ("+90m", 5400), ("+1h30m", 5400), ("+1d", 86400)])
def test_in_so_long(text: str, seconds: float) -> None:
    assert moment(text, NOW) == NOW + seconds


def test_a_night_in_which_the_clocks_change(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TZ", "Europe/Berlin")
    time.tzset()
    try:
        # 28 March 2026, 23:30 in Berlin; at 02:00 it becomes 03:00.
        night = 1774737000.0
        assert moment("06:00", night) - night == 5.5 * 3600
    finally:
        monkeypatch.undo()
        time.tzset()


@pytest.mark.parametrize(
    "text", ["", "+", "+2", "+h", "2h", "25:00", "12:60", "noon", "2026-03-01T00:00", "2027-03-01T00:00", "+99d",
             "1\x1b[2J", "+9999999d", "0000-00-00", "99999-01-01T00:00"]
)  # fmt: skip
def test_what_is_no_time_ahead_is_refused(text: str) -> None:
    with pytest.raises(MomentInvalid) as raised:
        moment(text, NOW)
    assert raised.value.message.isprintable() and "02:00" in raised.value.hint
