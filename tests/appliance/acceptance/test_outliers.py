from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from appliance.acceptance.outliers import LEAST, outliers


def test_one_slow_among_alike_is_named_with_what_the_others_have() -> None:
    assert outliers({"a": 100, "b": 101, "c": 99, "d": 40}) == {"d": 99.5}
    assert outliers({"a": 110.0, "b": 110.0, "c": 110.0, "d": 110.0, "e": 11.0}) == {"e": 110.0}


def test_small_differences_and_fast_ones_are_none() -> None:
    assert outliers({"a": 100, "b": 100, "c": 100, "d": 76}) == {}
    assert outliers({"a": 100, "b": 100, "c": 100, "d": 1000}) == {}


def test_of_three_nobody_is_odd() -> None:
    assert outliers({"a": 100, "b": 100, "c": 1}) == {}


def test_where_all_differ_nobody_is_odd() -> None:
    assert outliers({"a": 10, "b": 40, "c": 70, "d": 100, "e": 130}) == {}


@given(st.dictionaries(st.text(max_size=3), st.floats(0, 1e6), max_size=12))
def test_never_half_of_them(values: dict[str, float]) -> None:
    found = outliers(values)
    assert len(found) * 2 <= len(values) and (not found or len(values) >= LEAST)
    assert all(values[name] < middle for name, middle in found.items())
