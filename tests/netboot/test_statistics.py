from __future__ import annotations

from netboot.statistics import Installed, summary


def made(node: str, written: float = 100.0, outcome: str = "up", **given: object) -> Installed:
    spans = {"hello": 30.0, "written": written, "up": written + 20} if outcome == "up" else {}
    return Installed(node, "compute", "debian:3", ("rack1",), outcome, spans=spans, **given)  # type: ignore[arg-type]


def test_a_row_for_each_image() -> None:
    installs = [made(f"n{n}", 100.0 + n) for n in range(9)] + [
        made("n9", 400.0),
        made("n10", outcome="failed", reason="no disk"),
    ]
    (row,) = summary(installs, "image")
    assert (row["key"], row["count"], row["good"], row["failed"]) == ("debian", 11, 10, 1)
    assert row["spans"]["written"] == {"median": 104.5, "p90": 400.0} and row["slow"] == ["n9"]
    assert row["reasons"] == [("no disk", 1)]


def test_by_what_else() -> None:
    assert [row["key"] for row in summary([made("a"), made("b")], "node")] == ["a", "b"]
    assert [row["key"] for row in summary([made("a"), Installed("b")], "group")] == ["-", "rack1"]
    assert summary([], "node") == [] and summary([made("a", outcome="failed")], "profile")[0]["spans"] == {}
