from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from appliance.cluster import block

LINES = st.lists(st.text("ab #:=\t", max_size=12), max_size=6).map(lambda lines: "".join(f"{x}\n" for x in lines))


@given(LINES, LINES, LINES.filter(bool))
def test_what_is_around_it_stays(first: str, body: str, other: str) -> None:
    once = block.put(first, "hosts", other)
    assert block.put(once, "hosts", other) == once
    again = block.put(once, "hosts", body)
    assert block.split(once, "hosts").body == other and not block.split(once, "hosts").edited
    assert again.startswith(first.rstrip("\n"))
    assert block.put(once + "below\n", "hosts", body).endswith("below\n")
    assert (block.split(again, "hosts").body or "") == body


def test_taken_away_leaves_the_file() -> None:
    assert block.put(block.put("", "x", "a\n"), "x", "") == ""
    assert block.put(block.put("own\n", "x", "a\n") + "more\n", "x", "") == "own\n\nmore\n"
    assert block.put("own", "x", "a") == (
        f"own\n\n# gild x: begin {block.digest('a' + chr(10))} (gild.pyz cluster x writes what stands between these two"
        " lines)\na\n# gild x: end\n"
    )


def test_an_edit_by_hand_is_known() -> None:
    text = block.put("own\n", "x", "a\nb\n")
    assert block.split(text.replace("\nb\n", "\nB\n"), "x").edited
    assert block.split(text.replace("own", "OWN"), "x").edited is False
    assert block.split("# gild x: begin\na\n# gild x: end\n", "x").edited  # its digest was removed
    assert block.split(text, "y").body is None


@pytest.mark.parametrize(
    "text",
    [
        "# gild x: begin\n", "a\n# gild x: end\n", "# gild x: end\n# gild x: begin 01234567\n",
        "# gild x: begin\n# gild x: begin\n# gild x: end\n", "# gild x: begin\n# gild x: end\n# gild x: end\n",
    ],
)  # fmt: skip
def test_broken_marks_are_named(text: str) -> None:
    with pytest.raises(block.BlockBroken, match=r"'x' do not stand there as one pair \(line [12]") as caught:
        block.put(text, "x", "a\n")
    assert "remove these lines" in caught.value.hint
