from __future__ import annotations

from appliance.acceptance.checks import Target, failed, nothing, passed
from appliance.acceptance.report import Report

A, B = Target("a", "10.0.0.1"), Target("b", "10.0.0.2", profile="login")
REPORT = Report(
    (A, B),
    {
        "a": {"reach": passed(), "write": passed("100 MB/s", 100.4), "units": nothing("no systemd")},
        "b": {"reach": failed("does not answer", "look")},
    },
)


def test_the_table_has_the_columns_that_were_tested_in_their_order() -> None:
    titles, rows = REPORT.table()
    assert titles == ["node", "ssh", "units", "write"]
    assert rows == [
        [("", "a"), ("pass", "✓"), ("none", "·"), ("pass", "100")],
        [("", "b"), ("fail", "✖"), ("", ""), ("", "")],
    ]


def test_failures_and_notes() -> None:
    assert REPORT.failed == ["b"] and [(name, one.text) for name, one in REPORT.failures()] == [
        ("b", "does not answer")
    ]
    assert REPORT.notes() == [
        "units: not tested on 1 of 2: no systemd",
        "speeds: not compared for default, login, which has fewer than 4 nodes here",
    ]


def test_for_scripts() -> None:
    told = REPORT.as_dict()
    assert told["passed"] is False and [row["passed"] for row in told["nodes"]] == [True, False]
    assert told["nodes"][0]["checks"]["write"] == {"result": "pass", "text": "100 MB/s", "fix": "", "value": 100.4}
    assert Report((A,), {"a": {"reach": passed()}}).as_dict()["passed"] is True
