"""A recipe that extends another one: lists are added, single values override, tables are merged.

Three things differ. A recipe's name and message are its own and not handed down; a layout counts as one thing and
replaces the other; users are told apart by name, the later one counts. "-word" in packages or sets takes away what the
recipe below brought.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from images.errors import RecipeInvalid
from images.sources.recipelines import Where
from images.sources.recipetext import Recipe, checked, load, recipe_of

MAX_DEPTH = 8
ADDED = ("packages", "sets", "mirrors", "components", "exclude", "keep", "keys", "enable", "disable", "scripts")
MERGED = ("files", "templates", "variables", "repos")
OWN = ("name", "message", "extends")
MINUS = ("packages", "sets")


@dataclass(frozen=True, slots=True)
class Chain:
    """A recipe with what it extends put in; `bases` are those recipes, name -> text, nearest first; `brought` is every
    package that one of them named."""

    recipe: Recipe
    bases: dict[str, str]
    brought: frozenset[str]


def resolved(text: str, folder: Path, shipped: dict[str, str]) -> Chain:
    """Read a recipe and all it extends: a name of `shipped`, or a file relative to `folder`, where the recipe lies.
    Names of files in the recipes become absolute. Raises RecipeInvalid, naming recipe and line."""
    bases: dict[str, str] = {}
    brought: set[str] = set()
    body = _read(text, "recipe", folder, shipped, [], bases, brought)
    return Chain(recipe_of(body), bases, frozenset(brought))


def merged(base: dict[str, Any], own: dict[str, Any]) -> dict[str, Any]:
    """The body of a recipe put over that of the one it extends."""
    body = {key: value for key, value in base.items() if key not in OWN}
    for key, value in own.items():
        if key in ADDED:
            body[key] = _added(body.get(key, []), value) if key in MINUS else _joined(body.get(key, []), value)
        elif key in MERGED:
            body[key] = {**body.get(key, {}), **value}
        elif key == "users":
            body[key] = list({user["name"]: user for user in (*body.get(key, ()), *value)}.values())
        else:
            body[key] = value
    # The later word counts, whichever of the two tables or keys it stands in.
    for key, other in (("files", "templates"), ("templates", "files")):
        if key in own and other in body:
            body[other] = {path: value for path, value in body[other].items() if path not in own[key]}
    if "mirror" in own:
        body.pop("mirrors", None)
    elif "mirrors" in own and "mirror" in body:
        body["mirrors"] = _joined([body.pop("mirror")], body["mirrors"])
    return body


def _read(
    text: str,
    what: str,
    folder: Path,
    shipped: dict[str, str],
    above: list[str],
    bases: dict[str, str],
    brought: set[str],
) -> dict[str, Any]:
    own, where = load(text, what), Where(what, text)
    extends = own.get("extends")
    base: dict[str, Any] = {}
    if isinstance(extends, str):
        at = f"{where.key('extends')}: extends {extends!r}"
        key, below = _find(extends, folder, shipped, at)
        if key in above:
            raise RecipeInvalid(f"{at}: goes round in a circle", " -> ".join([*above[above.index(key) :], key]))
        if len(above) >= MAX_DEPTH:
            raise RecipeInvalid(f"{at}: more than {MAX_DEPTH} recipes extend one another")
        bases[extends] = below
        lies = folder if key.startswith("shipped ") else Path(key).parent
        base = _read(below, f"recipe {extends}", lies, shipped, [*above, key], bases, brought)
    checked(own, where, base.get("family", "debian"))
    if base and own.get("family", base.get("family", "debian")) != base.get("family", "debian"):
        raise RecipeInvalid(f"{where.key('family')}: the recipe it extends is for {base.get('family', 'debian')}")
    brought.update(word for word in own.get("packages", ()) if not word.startswith("-"))
    return merged(base, _absolute(own, folder))


def _find(extends: str, folder: Path, shipped: dict[str, str], at: str) -> tuple[str, str]:
    """What tells the recipe from others, and its text."""
    if not extends or not extends.isprintable():
        raise RecipeInvalid(f"{at}: is not a name", f"{', '.join(shipped)}; or ./x.toml")
    if "/" not in extends and not extends.endswith(".toml"):
        if extends not in shipped:
            raise RecipeInvalid(f"{at}: no recipe of that name comes with gild", f"{', '.join(shipped)}; or ./x.toml")
        return f"shipped {extends}", shipped[extends]
    path = os.fspath(folder / extends)
    try:
        path = os.path.realpath(path)
        with open(path, encoding="utf-8") as file:
            return path, file.read(1 << 21)
    except (OSError, UnicodeDecodeError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
        raise RecipeInvalid(f"{at}: {path} cannot be read: {reason}") from None


def _absolute(own: dict[str, Any], folder: Path) -> dict[str, Any]:
    """Names of files are meant from where the recipe that names them lies."""
    body = dict(own)
    for key in ("files", "templates"):
        if key in body:
            body[key] = {path: _placed(value, "source", folder) for path, value in body[key].items()}
    if "scripts" in body:
        body["scripts"] = [_placed(value, "file", folder) for value in body["scripts"]]
    if "repos" in body:
        body["repos"] = {name: _placed(value, "key", folder) for name, value in body["repos"].items()}
    return body


def _placed(value: Any, key: str, folder: Path) -> Any:
    if not isinstance(value, dict) or key not in value or "://" in value[key] or not value[key]:
        return value
    return {**value, key: os.path.abspath(folder / value[key])}


def _added(words: list[str], more: list[str]) -> list[str]:
    """Words with more of them, "-x" taking x away and x taking "-x" back."""
    result = list(words)
    for word in more:
        opposite = word[1:] if word.startswith("-") else f"-{word}"
        result = [kept for kept in result if kept not in (opposite, word)] + [word]
    return result


def _joined(values: list[Any], more: list[Any]) -> list[Any]:
    """Both lists, texts that are in both once. A script may be meant to run twice."""
    return [*values, *(value for value in more if not isinstance(value, str) or value not in values)]
