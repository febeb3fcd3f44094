from __future__ import annotations

import stat
import tomllib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from appliance.wizard.answers import load, parse, render, save, template
from appliance.wizard.reading import AnswerInvalid
from appliance.wizard.steps import STEPS, kept, validated
from images.errors import ImageError
from tests.appliance.wizard.plain import FRESH, Told

TEXT = st.text(st.characters(blacklist_categories=["Cs"]), max_size=30)
VALUE = st.one_of(TEXT, st.integers(0, 10**6), st.lists(TEXT, max_size=3))
ANSWERS = st.dictionaries(
    st.sampled_from(["network", "image"]), st.dictionaries(st.sampled_from("abc"), VALUE, min_size=1)
)


@given(ANSWERS)
def test_both_ways(answers: dict[str, dict[str, str | int | list[str]]]) -> None:
    assert parse(render(answers), "it") == answers


@pytest.mark.parametrize("text", ["a = 1", "[network", "[network]\nx = true", "[network]\nx = 1.5", "x = {}"])
def test_what_is_no_file_of_answers(text: str) -> None:
    if text == "x = {}":
        assert parse(text, "site.toml") == {"x": {}}
        return
    with pytest.raises(AnswerInvalid, match=r"site\.toml"):
        parse(text, "site.toml")


def test_the_file_is_private_and_whole(tmp_path: Path) -> None:
    path = tmp_path / "new" / "wizard.toml"
    assert load(path) == {}
    save(path, {"network": {"interface": "eth1"}})
    assert stat.S_IMODE(path.stat().st_mode) == 0o600 and load(path) == {"network": {"interface": "eth1"}}
    assert [entry.name for entry in path.parent.iterdir()] == ["wizard.toml"]
    path.write_bytes(b"\xff")
    with pytest.raises(AnswerInvalid, match="UTF-8"):
        load(path)
    with pytest.raises(ImageError, match="writing"):
        save(Path("/dev/null/wizard.toml"), {})


def test_a_printed_file_is_read_back_and_shows_what_else_is_asked() -> None:
    answers: Told = {"network": {"interface": "eth1"}, "nodes": {"expect": 12}}
    text = template(STEPS, FRESH, answers)
    found = parse(text, "it")
    assert {name: table for name, table in found.items() if table} == answers == validated(FRESH, answers)
    assert '# domain = "cluster.internal"' in text and '# how = "order"' in text
    # With the remarks taken away, the defaults are answers that are accepted.
    bare = "\n".join(line[2:] if line.startswith("# ") and " = " in line else line for line in text.splitlines())
    whole = tomllib.loads(bare)
    assert kept(FRESH, whole)["packages"]["profile"] == "default"
