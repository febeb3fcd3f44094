"""The words of a recipe: TOML in, a checked Recipe out, and for every mistake the line it stands on."""

from __future__ import annotations

import re
import tomllib
from dataclasses import dataclass
from typing import Any

from images.errors import RecipeInvalid
from images.options import CMDLINE
from images.sources.recipelines import Where
from images.sources.recipetables import (
    RecipeFile,
    Repo,
    Script,
    User,
    file_of,
    layout_of,
    public_key,
    repo_of,
    script_of,
    user_of,
)

MAX_TEXT = 1 << 20  # bytes of a recipe
FAMILIES = ("debian", "dnf", "zypper")
# Debian policy 5.6.1 with an optional version or release, as apt-get install takes them; what dnf(8) and zypper(8)
# take: names, @groups, patterns, versions. A leading "-" takes away what the recipe below brought.
PACKAGE = {"debian": re.compile(r"-?[a-z0-9][a-z0-9+.-]+(?::[a-z0-9]+)?(?:[=/][A-Za-z0-9.+:~-]+)?")}
RPM_PACKAGE = re.compile(r"-?@?(?:(?:pattern|product):)?[A-Za-z0-9_][A-Za-z0-9_+.:=~^-]*")
SUITE = {"debian": re.compile(r"[a-z][a-z0-9.-]{0,40}")}
RPM_SUITE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,40}")
NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,62}")
SET = re.compile(r"-?[a-z0-9][a-z0-9._-]{0,62}")
CHOICE = re.compile(r"[a-z0-9][a-z0-9._-]{0,50}")
UNIT = re.compile(r"[A-Za-z0-9@_.\\:-]{1,200}\.(?:service|socket|timer|target|path|mount|automount)")
VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,62}")  # string.Template's identifiers
PATTERN = re.compile(r"/[^\n\x00]*")
KEYS: dict[str, type] = {
    "name": str,
    "extends": str,
    "family": str,
    "suite": str,
    "packages": list,
    "sets": list,
    "mpi": str,
    "scheduler": str,
    "mirror": str,
    "mirrors": list,
    "components": list,
    "repos": dict,
    "cmdline": str,
    "exclude": list,
    "keep": list,
    "files": dict,
    "templates": dict,
    "variables": dict,
    "users": list,
    "keys": list,
    "enable": list,
    "disable": list,
    "scripts": list,
    "layout": list,
    "message": str,
}
TYPE_NAMES: dict[type, str] = {str: "a text", list: "a list of texts", dict: "a table"}
TABLES = ("scripts", "users", "layout")  # lists that hold more than texts
OF_FAMILY = {
    "mirror": ("debian",),
    "mirrors": ("debian",),
    "components": ("debian",),
    "exclude": ("debian",),
    "keep": ("debian",),
    "repos": ("dnf", "zypper"),
}


@dataclass(frozen=True, slots=True)
class Recipe:
    """A checked recipe. `packages` and `without` are what the words of `packages` come to; `layout` is a suggestion."""

    name: str = ""
    family: str = "debian"
    suite: str = ""
    packages: tuple[str, ...] = ()
    without: tuple[str, ...] = ()
    sets: tuple[str, ...] = ()
    mirrors: tuple[str, ...] = ()
    components: tuple[str, ...] = ()
    repos: tuple[Repo, ...] = ()
    cmdline: str = CMDLINE
    exclude: tuple[str, ...] = ()
    keep: tuple[str, ...] = ()
    files: tuple[RecipeFile, ...] = ()
    variables: tuple[tuple[str, str], ...] = ()
    users: tuple[User, ...] = ()
    keys: tuple[str, ...] = ()
    enable: tuple[str, ...] = ()
    disable: tuple[str, ...] = ()
    scripts: tuple[Script, ...] = ()
    layout: tuple[dict[str, str], ...] = ()
    message: str = ""


def parse_recipe(text: str, what: str = "recipe") -> Recipe:
    """Read and check a recipe that stands alone; `extends` and sets are not looked up. Raises RecipeInvalid with the
    line and, for an unknown key, the nearest known one."""
    return recipe_of(checked(load(text, what), Where(what, text)))


def load(text: str, what: str = "recipe") -> dict[str, Any]:
    """The TOML of a recipe. Raises RecipeInvalid."""
    if len(text.encode("utf-8", "replace")) > MAX_TEXT:
        raise RecipeInvalid(f"a {what} of more than {MAX_TEXT} bytes is not read")
    try:
        return tomllib.loads(text)
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        raise RecipeInvalid(f"{what} is not TOML: {error}") from None


def checked(body: dict[str, Any], where: Where, family: str = "debian") -> dict[str, Any]:
    """Every key of a recipe by itself; `family` is that of the recipe it extends. Gives the body back.
    Raises RecipeInvalid."""
    for key, value in body.items():
        if key not in KEYS:
            raise where.unknown(key, list(KEYS))
        kind = KEYS[key]
        texts = not isinstance(value, list) or key in TABLES or all(isinstance(item, str) and item for item in value)
        if not isinstance(value, kind) or not texts:
            raise RecipeInvalid(f"{where.key(key)}: {key} must be {TYPE_NAMES[kind]}")
    family = body.get("family", family)
    if family not in FAMILIES:
        raise RecipeInvalid(f"{where.key('family')}: family {family!r} is not known", f"one of {', '.join(FAMILIES)}")
    for key, families in OF_FAMILY.items():
        if key in body and family not in families:
            hint = "[repos.NAME] says where packages come from" if "mirror" in key else ""
            hint = 'mirrors = ["..."] says where packages come from' if key == "repos" else hint
            raise RecipeInvalid(f"{where.key(key)}: {key} means nothing for family {family}", hint)
    _match(where, body, "name", NAME, "a-z, 0-9, '.', '_', '-', at most 63 characters")
    _match(where, body, "suite", SUITE.get(family, RPM_SUITE), 'a release, such as "bookworm"')
    _match(where, body, "packages", PACKAGE.get(family, RPM_PACKAGE), "see apt-cache search")
    _match(where, body, "sets", SET, "gild image recipe --sets lists them")
    _match(where, body, "mpi", CHOICE, '"openmpi", "mpich" or "none"')
    _match(where, body, "scheduler", CHOICE, '"slurm", "gridengine", "pbs" or "none"')
    _match(where, body, "components", re.compile(r"[a-z0-9/-]+"), 'such as "main", "non-free-firmware"')
    _match(where, body, "exclude", PATTERN, "patterns of absolute paths, as in dpkg's path-exclude")
    _match(where, body, "keep", PATTERN, "patterns of absolute paths, as in dpkg's path-include")
    _match(where, body, "cmdline", re.compile(r"[\x20-\x7e]*"), "kernel arguments on one line")
    _match(where, body, "enable", UNIT, 'units of systemd with their ending, such as "chrony.service"')
    _match(where, body, "disable", UNIT, 'units of systemd with their ending, such as "chrony.service"')
    if "mirror" in body and "mirrors" in body:
        raise RecipeInvalid(f"{where.key('mirrors')}: mirror and mirrors cannot both be given")
    twice = sorted(set(body.get("files", {})) & set(body.get("templates", {})))
    if twice:
        raise RecipeInvalid(f"{where.key(twice[0])}: {twice[0]!r} is both in files and in templates")
    for name, value in body.get("variables", {}).items():
        if not VARIABLE.fullmatch(name) or type(value) not in (str, int):
            raise RecipeInvalid(f"{where.key(name)}: variable {name!r} must be a text or a number with a plain name")
    _tables(body, where)
    return body


def recipe_of(body: dict[str, Any]) -> Recipe:
    """The recipe that a checked, merged body says."""
    tables = _tables(body, Where())
    words: list[str] = body.get("packages", [])
    choices = [f"{key}-{body[key]}" for key in ("mpi", "scheduler") if body.get(key, "none") != "none"]
    sets = [name for name in body.get("sets", ()) if not name.startswith("-")]
    return Recipe(
        name=body.get("name", ""),
        family=body.get("family", "debian"),
        suite=body.get("suite", ""),
        packages=tuple(word for word in words if not word.startswith("-")),
        without=tuple(word[1:] for word in words if word.startswith("-")),
        sets=tuple(dict.fromkeys([*sets, *choices])),
        mirrors=(body["mirror"],) if "mirror" in body else tuple(body.get("mirrors", ())),
        components=tuple(body.get("components", ())),
        cmdline=body.get("cmdline", CMDLINE),
        exclude=tuple(body.get("exclude", ())),
        keep=tuple(body.get("keep", ())),
        variables=tuple((name, str(value)) for name, value in body.get("variables", {}).items()),
        enable=tuple(body.get("enable", ())),
        disable=tuple(body.get("disable", ())),
        message=body.get("message", ""),
        **tables,
    )


def _tables(body: dict[str, Any], where: Where) -> dict[str, Any]:
    files = [file_of(where, path, value) for path, value in body.get("files", {}).items()]
    files += [file_of(where, path, value, template=True) for path, value in body.get("templates", {}).items()]
    users = [user_of(where, value) for value in body.get("users", ())]
    names, uids = [user.name for user in users], [str(user.uid) for user in users if user.uid is not None]
    for what, seen in (("name", names), ("uid", uids)):
        if twice := [word for word in seen if seen.count(word) > 1]:
            raise RecipeInvalid(f"{where.key('users')}: two users have the {what} {twice[0]}")
    return {
        "files": tuple(sorted(files, key=lambda file: file.path)),
        "users": tuple(users),
        "keys": tuple(public_key(key, f"{where.key('keys')}: keys") for key in body.get("keys", ())),
        "scripts": tuple(script_of(where, value) for value in body.get("scripts", ())),
        "repos": tuple(repo_of(where, name, value) for name, value in body.get("repos", {}).items()),
        "layout": layout_of(where, body.get("layout", [])),
    }


def _match(where: Where, body: dict[str, Any], key: str, pattern: re.Pattern[str], hint: str) -> None:
    values = body.get(key, ())
    for value in values if isinstance(values, list) else [values] if key in body else []:
        if not pattern.fullmatch(value):
            raise RecipeInvalid(f"{where.key(key)}: {key}: {value!r} is not possible", hint)
