"""Named sets of packages and settings, TOML files: those that come with gild, and those a site keeps in a directory.

description = "..."                     conflicts = ["other-set"]
[packages]  debian, redhat, suse: lists          [missing]  family = where to get it instead
[enable]    debian, redhat, suse: units, or enable = [...] for all
files, scripts, keep: as in a recipe
"""

from __future__ import annotations

import difflib
import pkgutil
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from images.errors import RecipeInvalid
from images.sources.recipelines import Where
from images.sources.recipetables import RecipeFile, Script, file_of, script_of
from images.sources.recipetext import PACKAGE, PATTERN, RPM_PACKAGE, SET, UNIT, Recipe, load

SHIPPED = (
    "containers",
    "gpu-ready",
    "infiniband",
    "monitoring",
    "monitoring-ganglia",
    "mpi-mpich",
    "mpi-openmpi",
    "nfs-client",
    "nfs-server",
    "ntp",
    "scheduler-gridengine",
    "scheduler-pbs",
    "scheduler-slurm",
    "ssh-cluster",
    "tools",
)
MAX_SETS = 1000  # of a site's own directory
# The word for a family of distributions in a set, by the family of a recipe.
WORDS = {"debian": "debian", "dnf": "redhat", "zypper": "suse"}
KEYS: dict[str, type | tuple[type, ...]] = {
    "description": str,
    "packages": dict,
    "enable": (dict, list),
    "missing": dict,
    "conflicts": list,
    "files": dict,
    "scripts": list,
    "keep": list,
}


@dataclass(frozen=True, slots=True)
class Set:
    """One set. `packages`, `enable` and `missing` go by the words of WORDS; `origin` is "" for one that comes with
    gild, else the file it was read from."""

    name: str
    description: str
    packages: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    enable: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    missing: Mapping[str, str] = field(default_factory=dict)
    conflicts: tuple[str, ...] = ()
    files: tuple[RecipeFile, ...] = ()
    scripts: tuple[Script, ...] = ()
    keep: tuple[str, ...] = ()
    origin: str = ""

    @property
    def families(self) -> tuple[str, ...]:
        """The families of a recipe it can be used in."""
        return tuple(family for family, word in WORDS.items() if word in self.packages)


def known_sets(dirs: Sequence[Path] = ()) -> dict[str, Set]:
    """All sets, by name, in alphabetical order: those that come with gild, and NAME.toml of each directory, the later
    ones over the earlier. A directory that is not there holds none. Raises RecipeInvalid for a file that is no set."""
    found = {}
    for name in SHIPPED:
        text = pkgutil.get_data("images.sources", f"sets/{name}.toml")
        assert text is not None, "it lies beside this file"
        found[name] = parse_set(name, text.decode())
    for path in _files(dirs):
        try:
            text_ = path.read_text(encoding="utf-8")
        except OSError as error:
            raise RecipeInvalid(f"set {path.stem}: {path} cannot be read: {error.strerror}") from None
        except UnicodeDecodeError:
            raise RecipeInvalid(f"set {path.stem}: {path} is not UTF-8 text") from None
        found[path.stem] = parse_set(path.stem, text_, origin=str(path), folder=path.parent)
    return dict(sorted(found.items()))


def parse_set(name: str, text: str, *, origin: str = "", folder: Path | None = None) -> Set:
    """Read and check a set; files it names lie relative to `folder`. Raises RecipeInvalid with the line."""
    where = Where(f"set {name}", text)
    if not SET.fullmatch(name) or name.startswith("-"):
        raise RecipeInvalid(f"{origin or name}: a set cannot have that name", "a-z, 0-9, '.', '_', '-', and .toml")
    body = load(text, where.what)
    for key, value in body.items():
        if key not in KEYS:
            raise where.unknown(key, list(KEYS))
        if not isinstance(value, KEYS[key]):
            raise RecipeInvalid(f"{where.key(key)}: {key} is of the wrong kind", "see the sets that come with gild")
    if not body.get("description") or "\n" in body["description"]:
        raise RecipeInvalid(f"{where.key('description')}: a set needs a description of one line")
    patterns = {word: PACKAGE["debian"] if word == "debian" else RPM_PACKAGE for word in WORDS.values()}
    enable = body.get("enable", {})
    enable = dict.fromkeys(WORDS.values(), enable) if isinstance(enable, list) else enable
    for word, reason in body.get("missing", {}).items():
        if word not in WORDS.values() or not isinstance(reason, str):
            raise RecipeInvalid(f"{where.key(word)}: missing: {word!r} must be a family and a text")
    files = tuple(file_of(where, path, value) for path, value in body.get("files", {}).items())
    scripts = tuple(script_of(where, value) for value in body.get("scripts", ()))
    if folder is None and (any(file.source for file in files) or any(script.file for script in scripts)):
        raise RecipeInvalid(f"{where.what}: names files, and lies in no directory")
    lies = folder or Path()
    return Set(
        name,
        body["description"],
        {word: _words(where, "packages", word, value, patterns) for word, value in body.get("packages", {}).items()},
        {word: _words(where, "enable", word, value, dict.fromkeys(patterns, UNIT)) for word, value in enable.items()},
        body.get("missing", {}),
        _words(where, "conflicts", "", body.get("conflicts", []), {"": SET}),
        tuple(replace(file, source=str(lies.absolute() / file.source)) if file.source else file for file in files),
        tuple(
            replace(script, file=str(lies.absolute() / script.file)) if script.file else script for script in scripts
        ),
        _words(where, "keep", "", body.get("keep", []), {"": PATTERN}),
        origin,
    )


def with_sets(
    recipe: Recipe, known: Mapping[str, Set], brought: frozenset[str] = frozenset(), text: str = ""
) -> Recipe:
    """The recipe with what its sets bring: packages, units and files of its own count more, its scripts run last.
    `brought` are packages that recipes named; one that is taken away must be among them or in a set. `text` is the
    recipe's, for the lines in errors.
    Raises RecipeInvalid for a set that is unknown, has nothing for the family, or conflicts with another one."""
    word = WORDS[recipe.family]
    chosen = [_chosen(name, known, text) for name in recipe.sets]
    for one in chosen:
        if word not in one.packages:
            raise RecipeInvalid(
                f"{_at(one.name, text)}: set {one.name} has no packages for family {recipe.family}",
                one.missing.get(word, "write them into packages, with a mirror that has them"),
            )
        for other in chosen:
            if other.name != one.name and (other.name in one.conflicts or one.name in other.conflicts):
                raise RecipeInvalid(
                    f"{_at(one.name, text)}: the sets {one.name} and {other.name} cannot be in one system", "choose one"
                )
    packages = dict.fromkeys(recipe.packages)
    for one in chosen:
        packages |= dict.fromkeys(one.packages[word])
    for name in recipe.without:
        if name not in brought and name not in packages:
            raise RecipeInvalid(
                f'{_at(f"-{name}", text)}: packages: "-{name}" takes away what nothing brings', "check the spelling"
            )
    files = {file.path: file for one in chosen for file in one.files} | {file.path: file for file in recipe.files}
    enable = [unit for one in chosen for unit in one.enable.get(word, ()) if unit not in recipe.disable]
    return replace(
        recipe,
        packages=tuple(name for name in packages if name not in recipe.without),
        files=tuple(files[path] for path in sorted(files)),
        enable=tuple(dict.fromkeys([*enable, *recipe.enable])),
        scripts=(*(script for one in chosen for script in one.scripts), *recipe.scripts),
        keep=tuple(dict.fromkeys([*recipe.keep, *(pattern for one in chosen for pattern in one.keep)])),
    )


def _chosen(name: str, known: Mapping[str, Set], text: str) -> Set:
    if name in known:
        return known[name]
    kind, _, value = name.partition("-")
    if kind in ("mpi", "scheduler"):
        words = [other.partition("-")[2] for other in known if other.startswith(f"{kind}-")]
        raise RecipeInvalid(
            f"{_at(name, text)}: {kind} {value!r} is not known", f"one of {', '.join([*words, 'none'])}"
        )
    near = difflib.get_close_matches(name, known, 1)
    raise RecipeInvalid(
        f"{_at(name, text)}: there is no set {name!r}",
        f"did you mean {near[0]!r}?" if near else f"known: {', '.join(known)}",
    )


def _at(word: str, text: str) -> str:
    """The line of the recipe that has the word, or the choice it comes from; a recipe below may have it instead."""
    kind, _, value = word.partition("-")
    where = Where(text=text)
    if f'"{word}"' in text or f"'{word}'" in text:
        return where.value(word, "sets")
    return (
        where.key(kind) if re.search(rf"""(?m)^\s*{re.escape(kind)}\s*=\s*["']{re.escape(value)}""", text) else "recipe"
    )


def _files(dirs: Sequence[Path]) -> Iterator[Path]:
    for folder in dirs:
        paths = sorted(path for path in folder.glob("*.toml") if not path.name.startswith("."))
        if len(paths) > MAX_SETS:
            raise RecipeInvalid(f"{folder} holds more than {MAX_SETS} sets")
        yield from paths


def _words(where: Where, key: str, word: str, value: Any, patterns: Mapping[str, Any]) -> tuple[str, ...]:
    if word not in patterns:
        raise where.unknown(word, list(patterns), key)
    if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
        raise RecipeInvalid(f"{where.key(word or key)}: {key} must be a list of texts")
    for item in value:
        if not patterns[word].fullmatch(item) or item.startswith("-"):
            raise RecipeInvalid(f"{where.value(item, word or key)}: {key}: {item!r} is not possible")
    return tuple(value)
