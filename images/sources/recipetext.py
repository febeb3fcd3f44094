"""The words of a recipe: TOML in, a checked Recipe out, and for every mistake the line it stands on."""

from __future__ import annotations

import difflib
import re
import tomllib
from dataclasses import dataclass
from typing import Any

from images.errors import RecipeInvalid
from images.options import CMDLINE

MAX_TEXT = 1 << 20  # bytes of a recipe
# Debian policy 5.6.1 with an optional version or release, as apt-get install takes them.
PACKAGE = re.compile(r"[a-z0-9][a-z0-9+.-]+(?::[a-z0-9]+)?(?:[=/][A-Za-z0-9.+:~-]+)?")
SUITE = re.compile(r"[a-z][a-z0-9.-]{0,40}")
NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,62}")
OWNER = re.compile(r"[a-z0-9_][a-z0-9_.-]*(?::[a-z0-9_][a-z0-9_.-]*)?")
KEYS = {
    "name": str,
    "suite": str,
    "packages": list,
    "mirror": str,
    "mirrors": list,
    "components": list,
    "cmdline": str,
    "exclude": list,
    "keep": list,
    "files": dict,
    "scripts": list,
    "message": str,
}
FILE_KEYS = ("content", "source", "mode", "owner")
TYPE_NAMES = {str: "a text", list: "a list of texts", dict: "a table"}


@dataclass(frozen=True, slots=True)
class RecipeFile:
    """One file of a recipe: either its content or the file it is copied from."""

    path: str
    content: str | None
    source: str
    mode: int
    owner: str


@dataclass(frozen=True, slots=True)
class Recipe:
    """A checked recipe; `scripts` are ("text", shell text) or ("file", path)."""

    name: str = ""
    suite: str = ""
    packages: tuple[str, ...] = ()
    mirrors: tuple[str, ...] = ()
    components: tuple[str, ...] = ()
    cmdline: str = CMDLINE
    exclude: tuple[str, ...] = ()
    keep: tuple[str, ...] = ()
    files: tuple[RecipeFile, ...] = ()
    scripts: tuple[tuple[str, str], ...] = ()
    message: str = ""


def parse_recipe(text: str) -> Recipe:
    """Read and check a recipe. Raises RecipeInvalid with the line and, for an unknown key, the nearest known one."""
    if len(text.encode()) > MAX_TEXT:
        raise RecipeInvalid(f"a recipe of more than {MAX_TEXT} bytes is not read")
    try:
        body = tomllib.loads(text)
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        raise RecipeInvalid(f"recipe is not TOML: {error}") from None
    for key, value in body.items():
        where = f"recipe, line {line_of(text, key)}"
        if key not in KEYS:
            raise _unknown(where, key, list(KEYS))
        if not isinstance(value, KEYS[key]):
            raise RecipeInvalid(f"{where}: {key} must be {TYPE_NAMES[KEYS[key]]}")
        if KEYS[key] is list and key != "scripts" and not all(isinstance(item, str) and item for item in value):
            raise RecipeInvalid(f"{where}: {key} must be a list of texts")
    _match(text, body, "name", NAME, "a-z, 0-9, '.', '_', '-', at most 63 characters")
    _match(text, body, "suite", SUITE, 'a release, such as "bookworm"')
    _match(text, body, "packages", PACKAGE, "see apt-cache search")
    _match(text, body, "components", re.compile(r"[a-z0-9/-]+"), 'such as "main", "non-free-firmware"')
    _match(text, body, "exclude", re.compile(r"/[^\n\x00]*"), "patterns of absolute paths, as in dpkg's path-exclude")
    _match(text, body, "keep", re.compile(r"/[^\n\x00]*"), "patterns of absolute paths, as in dpkg's path-include")
    _match(text, body, "cmdline", re.compile(r"[\x20-\x7e]*"), "kernel arguments on one line")
    if "mirror" in body and "mirrors" in body:
        raise RecipeInvalid(f"recipe, line {line_of(text, 'mirrors')}: mirror and mirrors cannot both be given")
    return Recipe(
        name=body.get("name", ""),
        suite=body.get("suite", ""),
        packages=tuple(body.get("packages", ())),
        mirrors=(body["mirror"],) if "mirror" in body else tuple(body.get("mirrors", ())),
        components=tuple(body.get("components", ())),
        cmdline=body.get("cmdline", CMDLINE),
        exclude=tuple(body.get("exclude", ())),
        keep=tuple(body.get("keep", ())),
        files=tuple(_file(text, path, value) for path, value in sorted(body.get("files", {}).items())),
        scripts=tuple(_script(text, script) for script in body.get("scripts", ())),
        message=body.get("message", ""),
    )


def line_of(text: str, key: str) -> int:
    """Number of the first line that sets `key`, from 1; 1 if it cannot be found (a dotted or escaped key)."""
    quoted = re.escape(key)
    pattern = re.compile(rf"""(?m)(?:^\s*|[{{,]\s*|\[|\.)["']?{quoted}["']?\s*(?:[.=\]])""")
    match = pattern.search(text)
    return text.count("\n", 0, match.start() + len(match[0]) - len(match[0].lstrip())) + 1 if match else 1


def _unknown(where: str, key: str, known: list[str]) -> RecipeInvalid:
    near = difflib.get_close_matches(key, known, 1)
    return RecipeInvalid(
        f"{where}: unknown key {key!r}", f"did you mean {near[0]!r}?" if near else f"known: {', '.join(known)}"
    )


def _match(text: str, body: dict[str, Any], key: str, pattern: re.Pattern[str], hint: str) -> None:
    values = body.get(key, ())
    for value in values if isinstance(values, list) else [values] if key in body else []:
        if not pattern.fullmatch(value):
            raise RecipeInvalid(f"recipe, line {line_of(text, key)}: {key}: {value!r} is not possible", hint)


def _file(text: str, path: str, value: Any) -> RecipeFile:
    where = f"recipe, line {line_of(text, path)}: file {path!r}"
    if not path.startswith("/") or path.endswith("/") or ".." in path.split("/") or "\0" in path or "\n" in path:
        raise RecipeInvalid(f"{where}: the path must be absolute and without '..'")
    if not isinstance(value, dict):
        raise RecipeInvalid(f"{where}: must be a table", '{ content = "...", mode = "0644" }')
    for key in value:
        if key not in FILE_KEYS:
            raise _unknown(f"recipe, line {line_of(text, key)}: file {path!r}", key, list(FILE_KEYS))
    content, source, owner, mode = (value.get(key) for key in ("content", "source", "owner", "mode"))
    if (content is None) == (source is None):
        raise RecipeInvalid(f"{where}: needs either content or source")
    if not isinstance(content if source is None else source, str):
        raise RecipeInvalid(f"{where}: content and source are texts")
    owner = "root:root" if owner is None else owner
    if not isinstance(owner, str) or not OWNER.fullmatch(owner):
        raise RecipeInvalid(f"{where}: owner {owner!r} is not user or user:group")
    mode = "0644" if mode is None else mode
    if not isinstance(mode, str) or not re.fullmatch(r"[0-7]{3,4}", mode):
        raise RecipeInvalid(f"{where}: mode {mode!r} is not octal digits in quotes", 'mode = "0755"')
    return RecipeFile(path, content, source or "", int(mode, 8), owner)


def _script(text: str, script: Any) -> tuple[str, str]:
    where = f"recipe, line {line_of(text, 'scripts')}: scripts"
    if isinstance(script, str) and script.strip():
        return "text", script
    if isinstance(script, dict) and list(script) == ["file"] and isinstance(script["file"], str):
        return "file", script["file"]
    raise RecipeInvalid(f"{where} must hold shell texts or {{ file = '...' }}")
