from __future__ import annotations

import io

import pytest

from appliance.cli import show
from appliance.errors import Declined, Wrong


@pytest.mark.parametrize(
    ("count", "text"), [(0, "0 B"), (1023, "1023 B"), (1536, "1.5 KiB"), (5 << 30, "5.0 GiB"), (3 << 40, "3072.0 GiB")]
)
def test_sizes(count: int, text: str) -> None:
    assert show.size(count) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(None, ""), (0.4, "0 s"), (-3, "0 s"), (119, "119 s"), (180, "3 min"), (9000, "2 h"), (400000, "5 d")],
)
def test_ages(seconds: float | None, text: str) -> None:
    assert show.ago(seconds) == text


def test_what_a_machine_says_cannot_colour_move_or_reverse_the_screen(capsys: pytest.CaptureFixture[str]) -> None:
    hostile = "a\x1b[31mb\r\n[red]c\u202ed"
    show.table(["x"], [[show.safe(hostile)]], "")
    out = capsys.readouterr().out
    assert "\x1b" not in out and "\r" not in out and "\u202e" not in out
    assert "[red]c" in out and "\\x1b" in out


def test_addresses_are_not_turned_into_pictures(capsys: pytest.CaptureFixture[str]) -> None:
    show.table(["MAC"], [["52:54:ab:cd:00:01"], ["00:a:b:m:00:01"]], "")
    show.facts([("MAC", "52:54:ab:cd:00:01")])
    out = capsys.readouterr().out
    assert out.count("52:54:ab:cd:00:01") == 2 and "00:a:b:m:00:01" in out


def test_a_question_needs_a_yes(monkeypatch: pytest.MonkeyPatch) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    show.ask("sure?", yes=True)
    monkeypatch.setattr("sys.stdin", Terminal("y\n"))
    show.ask("sure?", yes=False)
    monkeypatch.setattr("sys.stdin", Terminal("\n"))
    with pytest.raises(Declined):
        show.ask("sure?", yes=False)
    monkeypatch.setattr("sys.stdin", io.StringIO("y\n"))
    with pytest.raises(Wrong) as caught:
        show.ask("sure?", yes=False)
    assert "--yes" in caught.value.hint


def test_progress_without_a_terminal_is_a_line_a_phase(capsys: pytest.CaptureFixture[str]) -> None:
    with show.progress("build") as report:
        for done in range(50):
            report("packages", done, 50)
        report("hashing", 0, 0)
    assert capsys.readouterr().err.splitlines() == ["build: packages", "build: hashing"]
