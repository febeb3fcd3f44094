"""Recipes that extend others."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from images.errors import RecipeInvalid
from images.sources.extends import merged, resolved
from images.sources.recipetables import Script

BASE = """name = "base"
message = "the base"
suite = "bookworm"
packages = ["one", "two"]
mirror = "http://one.example"
scripts = ["true", { file = "run.sh" }]
cmdline = "quiet"
[files]
"/etc/a" = { content = "base" }
"/etc/b" = { source = "b.txt" }
[variables]
x = "1"
y = "1"
[[users]]
name = "anna"
uid = 2000
[[layout]]
name = "root"
size = "rest"
mount = "/"
"""
OWN = """name = "own"
extends = "base"
packages = ["-two", "three"]
mirrors = ["http://two.example"]
scripts = ["true"]
cmdline = "debug"
[templates]
"/etc/a" = { content = "own $x" }
[variables]
y = 2
[[users]]
name = "anna"
uid = 2001
[[users]]
name = "bert"
"""


def test_lists_are_added_values_override_tables_are_merged(tmp_path: Path) -> None:
    chain = resolved(OWN, tmp_path, {"base": BASE})
    recipe = chain.recipe
    assert (recipe.name, recipe.message, recipe.suite, recipe.cmdline) == ("own", "", "bookworm", "debug")
    assert recipe.packages == ("one", "three") and recipe.without == ("two",)
    assert recipe.mirrors == ("http://one.example", "http://two.example")
    assert recipe.scripts == (Script("true"), Script(file=str(tmp_path / "run.sh")))
    assert [(file.path, file.template) for file in recipe.files] == [("/etc/a", True), ("/etc/b", False)]
    assert dict(recipe.variables) == {"x": "1", "y": "2"}
    assert [(user.name, user.uid) for user in recipe.users] == [("anna", 2001), ("bert", None)]
    assert len(recipe.layout) == 1 and chain.bases == {"base": BASE} and "two" in chain.brought


def test_files_are_found_from_where_their_recipe_lies(tmp_path: Path) -> None:
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep/base.toml").write_text(BASE.replace('name = "base"', 'extends = "../lowest.toml"'))
    (tmp_path / "lowest.toml").write_text('name = "lowest"\nfiles."/etc/c" = { source = "c.txt" }\n')
    text = 'name = "top"\nextends = "deep/base.toml"\nfiles."/etc/d" = { source = "d.txt" }\n'
    sources = {file.path: file.source for file in resolved(text, tmp_path, {}).recipe.files}
    assert sources["/etc/b"] == str(tmp_path / "deep/b.txt")
    assert sources["/etc/c"] == str(tmp_path / "c.txt") and sources["/etc/d"] == str(tmp_path / "d.txt")


def test_a_circle_is_named(tmp_path: Path) -> None:
    (tmp_path / "a.toml").write_text('extends = "./b.toml"\n')
    (tmp_path / "b.toml").write_text('extends = "./a.toml"\n')
    with pytest.raises(RecipeInvalid, match=r"circle.*a\.toml -> .*b\.toml -> .*a\.toml"):
        resolved('name = "x"\nextends = "./a.toml"\n', tmp_path, {})


def test_a_long_chain_is_refused(tmp_path: Path) -> None:
    shipped = {f"r{n}": f'extends = "r{n + 1}"\n' for n in range(20)}
    with pytest.raises(RecipeInvalid, match="more than 8 recipes"):
        resolved('name = "x"\nextends = "r0"\n', tmp_path, shipped)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('\nextends = "bsae"\n', "recipe, line 2: extends 'bsae': no recipe of that name"),
        ('extends = "./none.toml"\n', "cannot be read: No such file"),
        ('extends = "base"\nfamily = "dnf"\n', "line 2: the recipe it extends is for debian"),
        ('extends = "bad"\n', "recipe bad, line 2: unknown key 'packges'"),
        ('extends = "./a\\nb.toml"\n', "extends './a\\nb.toml': is not a name"),
        ("extends = 5\n", "line 1: extends must be a text"),
        ('extends = "rpm"\nmirror = "http://x"\n', "line 2: mirror means nothing for family dnf"),
    ],
)
def test_mistakes_name_the_recipe_and_the_line(tmp_path: Path, text: str, message: str) -> None:
    shipped = {"base": BASE, "bad": "\npackges = []\n", "rpm": 'family = "dnf"\n'}
    with pytest.raises(RecipeInvalid) as failure:
        resolved(text, tmp_path, shipped)
    assert message in str(failure.value)


def test_a_word_taken_away_can_come_back(tmp_path: Path) -> None:
    shipped = {"base": BASE, "less": 'extends = "base"\npackages = ["-two"]\n'}
    chain = resolved('extends = "less"\npackages = ["two"]\n', tmp_path, shipped)
    assert chain.recipe.packages == ("one", "two") and chain.recipe.without == ()


def test_one_mirror_overrides_those_below(tmp_path: Path) -> None:
    shipped = {"base": 'mirrors = ["http://one.example"]\n'}
    assert resolved('extends = "base"\nmirror = "file:/srv"\n', tmp_path, shipped).recipe.mirrors == ("file:/srv",)


words = st.lists(st.sampled_from(["a", "b", "c", "-a", "-b", "-c"]), max_size=8)


@given(words, words, words)
def test_no_word_is_both_there_and_away(one: list[str], two: list[str], three: list[str]) -> None:
    body = merged(merged(merged({}, {"packages": one}), {"packages": two}), {"packages": three})["packages"]
    assert len(set(body)) == len(body) and not any(f"-{word}" in body for word in body)
    for word in three[-1:]:
        assert word in body
