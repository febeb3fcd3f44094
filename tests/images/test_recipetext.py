"""Recipes as text: every mistake is named with its line."""

from __future__ import annotations

import tomllib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from images.errors import RecipeInvalid
from images.sources.recipetext import parse_recipe

GOOD = """name = "compute"
suite = "bookworm"
packages = ["linux-image-amd64", "libc6:amd64", "slurmd=22.05.8-4+deb12u3"]
mirror = "http://mirror.example/debian"
cmdline = "quiet"
scripts = ["true", { file = "setup.sh" }]

[files]
"/etc/motd" = { content = "hi\\n", mode = "0600", owner = "man:man" }
"/etc/copied" = { source = "copied" }
"""


def test_a_recipe_is_read() -> None:
    recipe = parse_recipe(GOOD)
    assert recipe.name == "compute" and recipe.mirrors == ("http://mirror.example/debian",)
    assert recipe.scripts == (("text", "true"), ("file", "setup.sh"))
    copied, motd = recipe.files
    assert (motd.path, motd.content, motd.mode, motd.owner) == ("/etc/motd", "hi\n", 0o600, "man:man")
    assert (copied.content, copied.source, copied.mode, copied.owner) == (None, "copied", 0o644, "root:root")


@pytest.mark.parametrize(
    ("change", "line", "text"),
    [
        (("packages", "packges"), 3, "unknown key 'packges' (did you mean 'packages'?)"),
        (("mode", "mdoe"), 9, "unknown key 'mdoe' (did you mean 'mode'?)"),
        (("cmdline", "zzzzz"), 5, "unknown key 'zzzzz' (known: name, "),
        (('"bookworm"', "12"), 2, "suite must be a text"),
        (('"bookworm"', '"Book worm"'), 2, "'Book worm' is not possible"),
        (('"linux-image-amd64"', "5"), 3, "packages must be a list of texts"),
        (('"linux-image-amd64"', '"--evil"'), 3, "'--evil' is not possible"),
        (('"compute"', '"../x"'), 1, "'../x' is not possible"),
        (('"/etc/motd"', '"etc/motd"'), 9, "must be absolute"),
        (('"/etc/motd"', '"/etc/../motd"'), 9, "must be absolute"),
        (('"0600"', '"0999"'), 9, "not octal"),
        (('"0600"', "384"), 9, "not octal"),
        (('"man:man"', '"man; rm"'), 9, "not user or user:group"),
        (('source = "copied"', 'mode = "0644"'), 10, "either content or source"),
        (('"quiet"', '"a\\nb"'), 5, "not possible"),
        (("{ file =", "{ fil ="), 6, "scripts must hold"),
        (('mirror = "http', 'mirrors = []\nmirror = "http'), 4, "cannot both"),
    ],
)
def test_mistakes_are_named_with_their_line(change: tuple[str, str], line: int, text: str) -> None:
    with pytest.raises(RecipeInvalid) as failure:
        parse_recipe(GOOD.replace(*change, 1))
    assert f"line {line}:" in str(failure.value) and text in str(failure.value)


def test_what_is_no_toml_says_where() -> None:
    with pytest.raises(RecipeInvalid, match="line 2"):
        parse_recipe('name = "x"\npackages = maybe\n')


@given(st.text(max_size=200))
def test_any_text_is_a_recipe_or_one_error(text: str) -> None:
    try:
        parse_recipe(text)
        tomllib.loads(text)
    except RecipeInvalid as error:
        assert "\n" not in error.message
