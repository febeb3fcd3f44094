"""The picture of `watch` at every width, and what its keys do."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from appliance.cli.watching import KEYS, Rates, View, picture, shown

STATUS = {"interface": "eth1", "address": "10.1.0.1"}
ROW: dict[str, Any] = {
    "id": 1, "name": "node01", "state": "up", "address": "10.1.0.5", "image": "compute:1", "wanted": "", "reason": "",
    "phase": "", "done": 0, "total": 0, "seen_seconds": 5.0, "mac": "52:54:00:00:00:01", "machine": "Acme Box",
    "profile": "default", "ordered": False,
}  # fmt: skip
EVENT = {"id": 1, "at": 0.0, "node": "node01", "node_id": 1, "level": "info", "text": "asks"}
TABLE = View()


def rows(*states: str) -> list[dict[str, Any]]:
    return [{**ROW, "id": at, "name": f"node{at:02}", "state": state} for at, state in enumerate(states, 1)]


def drawn(nodes: list[dict[str, Any]], view: View = TABLE, *, width: int = 120, height: int = 40,
          rates: Rates | None = None, events: list[dict[str, Any]] | None = None) -> list[str]:  # fmt: skip
    console = Console(width=width, height=height, record=True, file=open("/dev/null", "w"), highlight=False)  # noqa: SIM115
    with console.file:
        console.print(picture(STATUS, nodes, rates or Rates(), events or [EVENT], view, width, height, "14:03:20"))
        return console.export_text().splitlines()


def test_who_needs_somebody_comes_first() -> None:
    states = ["up", "ready", "waiting", "failed", "installing", "lost", "installed"]
    lines = drawn(rows(*states))
    seen = [next(state for state in states if f" {state} " in line) for line in lines if line.startswith("node0")]
    assert seen == ["failed", "lost", "installing", "waiting", "installed", "ready", "up"]
    assert lines[0].startswith("eth1 10.1.0.1 · 14:03:20   1 up   1 ready")


def test_the_quiet_are_counted_and_shown_on_request() -> None:
    nodes = rows(*["up"] * 30, "failed", "ready")
    lines = drawn(nodes)
    assert [line.split()[0] for line in lines if line.startswith("node")] == ["node", "node31"]
    assert any("30 up and quiet; 1 ready and quiet  (a shows everybody)" in line for line in lines)
    view = View().key("a", [])
    assert view is not None and len(shown(nodes, view)[0]) == 32


@pytest.mark.parametrize("width", [40, 80, 120, 200])
@pytest.mark.parametrize("height", [10, 24, 50])
def test_it_fits_every_terminal_and_the_keys_are_never_cut(width: int, height: int) -> None:
    nodes = rows(*["failed"] * 60, *["installing"] * 20)
    nodes[0]["reason"] = "two disks fit the rule " * 20
    for view in (View(), View(only="failed"), View(chosen=5), View(page="timeline", chosen=3), View(page="keys")):
        lines = drawn(nodes, view, width=width, height=height, events=[EVENT] * 100)
        assert len(lines) <= height and all(len(line) <= width for line in lines)
        assert lines[-1].startswith(KEYS[:30])


def test_columns_fall_away_from_the_right() -> None:
    nodes = rows("installing")
    nodes[0] |= {"done": 50, "total": 100, "phase": "writing"}
    heads = {width: drawn(nodes, width=width)[1].split() for width in (40, 64, 84, 120)}
    assert heads[40] == ["node", "state", "progress"] and heads[64][3:] == ["left"]
    assert heads[84][3:] == ["rate", "left", "note"] and heads[120][3:] == ["rate", "left", "image", "seen", "note"]
    assert any("▓▓▓▓▓░░░░░  50%" in line for line in drawn(nodes, width=40))


@pytest.mark.parametrize(
    ("done", "total", "text"), [(0, 100, "0%"), (50, 100, "50%"), (300, 100, "100%"), (5, 0, "writing")]
)
def test_progress_is_a_share_whatever_the_machine_says(done: int, total: int, text: str) -> None:
    nodes = [{**ROW, "state": "installing", "phase": "writing", "done": done, "total": total}]
    assert any(text in line for line in drawn(nodes))


def test_rate_and_what_is_left() -> None:
    rates, node = Rates(), {**ROW, "state": "installing", "phase": "writing", "done": 0, "total": 1_000_000_000}
    rates.hear([node], 0.0)
    assert rates.of(node) == (0.0, None)
    for second in range(1, 11):
        node = {**node, "done": second * 50_000_000}
        rates.hear([node], float(second))
    rate, left = rates.of(node)
    assert rate == pytest.approx(50e6) and left == pytest.approx(10.0)
    assert any("50 MB/s" in line and "0:10" in line for line in drawn([node], rates=rates))
    rates.hear([{**node, "done": 5, "phase": "growing"}], 11.0)
    assert rates.of(node) == (0.0, None), "another phase begins anew"
    rates.hear([], 12.0)
    assert rates.of(node) == (0.0, None)


def test_keys_choose_open_filter_and_find() -> None:
    ids = [3, 1, 2]
    view = View().key("down", ids)
    assert view == View(chosen=3)
    view = view.key("down", ids)
    assert view == View(chosen=1)
    assert view.key("up", ids) == View(chosen=3) and View(chosen=2).key("down", ids) == View(chosen=2)
    opened = view.key("enter", ids)
    assert opened is not None and opened.page == "timeline" and opened.key("q", ids) == view
    assert view.key("l", ids) == View(chosen=1, page="log")
    assert View().key("enter", ids) == View(), "nobody is chosen"
    find = View().key("/", ids)
    for key in ("n", "o", "x", "back", "q", "enter"):
        assert find is not None
        find = find.key(key, ids)
    assert find == View(find="noq") and find.key("q", ids) == View()
    failed = View().key("f", ids)
    assert failed == View(only="failed") and View().key("q", ids) is None


@given(st.lists(st.sampled_from(["up", "down", "enter", "escape", "back", "q", "l", "/", "f", "a", "?", "x", " "])))
def test_no_key_breaks_it(keys: list[str]) -> None:
    nodes, view = rows("failed", "up", "installing"), View()
    for key in keys:
        after = view.key(key, [row["id"] for row in shown(nodes, view)[0]])
        view = after if after is not None else View()
        drawn(nodes, view, width=80, height=24)


def test_machine_text_is_shown_as_it_is() -> None:
    nodes = rows("failed")
    nodes[0] |= {"reason": "[red]\x1b[2J\u202e", "image": "[b]"}
    said = "\n".join(
        drawn(nodes) + drawn(nodes, View(chosen=1, page="timeline"), events=[{**EVENT, "text": "\x1b[1m"}])
    )
    assert "[red]\\x1b[2J\\x202e" in said and "\x1b" not in said and "\u202e" not in said
