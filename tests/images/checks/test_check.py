"""The result of a check: bounded, printable, counted."""

from __future__ import annotations

from images.checks.check import MAX_FOUND, MAX_NAME, Check, finding, summary


def test_a_finding_is_cut_and_printable() -> None:
    check = finding("x", ["a\x1b[31mb", "y" * 999, *map(str, range(40))], "mend it", "warning")
    assert check.found[0] == "a?[31mb" and len(check.found[1]) == MAX_NAME
    assert len(check.found) == MAX_FOUND + 1 and check.found[-1] == "and 22 more"


def test_what_found_nothing_says_nothing() -> None:
    assert finding("x", [], "mend it", "error") == Check("x") == Check("x", (), "", "info")


def test_errors_and_warnings_are_counted_as_the_manifest_has_them() -> None:
    checks = [Check("a", ("b",), "c", severity).as_dict() for severity in ("error", "info", "warning", "warning")]
    assert summary([*checks, {"name": "of an old version"}]) == (1, 2) and summary([]) == (0, 0)
