from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from netboot.naming import NameInvalid, check_name, fill, is_pattern, next_names


@pytest.mark.parametrize("name", ["node01", "n", "a-b", "x" * 63, "login"])
def test_names(name: str) -> None:
    assert check_name(name) == name


@pytest.mark.parametrize(
    "name",
    [
        "",
        "7",
        "10-0-0-1",
        "-a",
        "a-",
        "A",
        "a.b",
        "a_b",
        "x" * 64,
        "head",
        "all",
        "a\n",
        "a b",
        "a${x}",
        "nodé",
        "a\x00",
    ],
)
def test_what_is_no_name(name: str) -> None:
    with pytest.raises(NameInvalid):
        check_name(name)


@pytest.mark.parametrize(
    ("pattern", "number", "name"), [("node{n:02}", 7, "node07"), ("node{n:02}", 107, "node107"), ("r1-{n}", 3, "r1-3")]
)
def test_patterns(pattern: str, number: int, name: str) -> None:
    assert is_pattern(pattern) and fill(pattern, number) == name


@pytest.mark.parametrize("pattern", ["node", "{n}", "{n}-{n}x", "x{n.__class__}", "x{n:99999999}", "x{0}", "{n!r}a"])
def test_what_is_no_pattern(pattern: str) -> None:
    with pytest.raises(NameInvalid):
        fill(pattern, 1)


@given(st.text())
def test_a_pattern_gives_a_name_or_says_why(pattern: str) -> None:
    with contextlib.suppress(NameInvalid):
        assert check_name(fill(pattern, 5))


def test_the_next_names_fill_the_gaps() -> None:
    assert next_names("node{n:02}", {"node01", "node03", "login"}, 3) == ["node02", "node04", "node05"]
    assert next_names("node{n:02}", set(), 0) == []
