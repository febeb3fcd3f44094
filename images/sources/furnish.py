"""What a recipe puts into a system once its packages are there, whatever family they are of: users, files, units,
scripts. Scripts run in the tree as in a running system, see `editing.within`; nothing they start outlives them."""

from __future__ import annotations

import contextlib
import os
import string
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from images.distro import inits
from images.editing.chroot import KEPT, POLICY, RESOLV
from images.editing.within import within
from images.errors import CommandFailed, NoSpace, RecipeInvalid
from images.ext4 import EPOCH
from images.options import Progress
from images.sources.accounts import add_users, owner_of
from images.sources.recipetables import RecipeFile, Script
from images.sources.recipetext import Recipe
from images.strip import MOUNT_POINTS
from images.tree import Tree

POLICY_PLACE = "/usr/sbin/policy-rc.d"
SCRIPT_PLACE = "/.gild-script"
UNITS_LIMIT = 300  # seconds for systemctl; it takes less than one
MAX_FILE = 256 << 20  # bytes; more belongs into a package or on a share
FULL = ("No space left on device", "enough free space")


@dataclass(frozen=True, slots=True)
class Furnishing:
    """All that a recipe's files hold, read before anything is built."""

    files: tuple[tuple[RecipeFile, bytes], ...]
    scripts: tuple[tuple[Script, str], ...]


def gather(recipe: Recipe, name: str) -> Furnishing:
    """Read the files and scripts a recipe names and put the variables into its templates: those of the recipe, and
    name (of the image), suite, family. Raises RecipeInvalid naming file and variable."""
    values = {"name": name, "suite": recipe.suite, "family": recipe.family, **dict(recipe.variables)}
    files = []
    for file in recipe.files:
        data = file.content.encode() if file.content is not None else _read(Path(file.source), file.path)
        files.append((file, _filled(file.path, data, values) if file.template else data))
    scripts = []
    for script in recipe.scripts:
        data = script.text.encode() if script.text else _read(Path(script.file), "scripts")
        scripts.append((script, data.decode("utf-8", "surrogateescape")))
    return Furnishing(tuple(files), tuple(scripts))


def furnish(tree: Path, recipe: Recipe, what: Furnishing, act: str, tell: Progress) -> None:
    """Put users, files, enabled units and the work of the scripts into the tree. `act` says what for, in errors.
    Raises RecipeInvalid, CommandFailed naming the script, NoSpace, TreeInvalid, OSError."""
    root = os.fspath(tree)
    add_users(root, recipe.users, recipe.keys)
    inside = Tree(root)
    for file, data in what.files:
        inside.write(file.path, data, file.mode)
        place = inside.place(file.path, last=False)
        uid, gid = (0, 0) if file.owner in ("root", "root:root", "0:0") else owner_of(root, file.owner)
        os.chown(place, uid, gid, follow_symlinks=False)
        os.chmod(place, file.mode)  # chown has taken setuid bits away
    if recipe.enable or recipe.disable or what.scripts:
        with _lent(inside):
            _units(tree, inside, recipe, act)
            for number, (script, text) in enumerate(what.scripts, 1):
                tell("script", number - 1, len(what.scripts))
                _run(tree, inside, script, text, f"{act}: script {number}")
            if what.scripts:
                tell("script", len(what.scripts), len(what.scripts))


def _units(tree: Path, inside: Tree, recipe: Recipe, act: str) -> None:
    for unit in recipe.enable:
        if not _real(inside, unit):
            raise RecipeInvalid(
                f"{act}: enable: the system has no unit {unit}",
                "add the package that brings it; what a set enables, disable = [...] takes back",
            )
    for verb, units in (("enable", recipe.enable), ("disable", recipe.disable)):
        names = [name for unit in units if (name := _real(inside, unit))]
        if names:
            argv = ["systemctl", verb, "--", *dict.fromkeys(names)]
            within(tree, argv, act=f"{act}: {verb}", env=_environment(), timeout=UNITS_LIMIT)


def _real(inside: Tree, unit: str) -> str:
    """The name of the unit's own file, "" if there is none: systemctl enables nothing by a name that is a link."""
    name, at, rest = unit.partition("@")
    if at and inits.unit_path(inside, f"{name}@.{rest.rpartition('.')[2]}"):
        return unit
    return inside.resolve(inits.unit_path(inside, unit)).rpartition("/")[2]


def _run(tree: Path, inside: Tree, script: Script, text: str, act: str) -> None:
    """A script for sh stops at its first error; one for another interpreter is started as it is."""
    first = text.partition("\n")[0]
    words = first[2:].split()[:1] if first.startswith("#!") else []
    inside.write(SCRIPT_PLACE, text, 0o700)
    argv = [SCRIPT_PLACE] if words and os.path.basename(words[0]) != "sh" else ["/bin/sh", "-eu", SCRIPT_PLACE]
    try:
        within(tree, argv, act=act, env=_environment(), timeout=script.limit)
    except CommandFailed as error:
        if any(word in error.message for word in FULL):
            raise NoSpace(f"{act}: the disk is full", "free some space, or gild image gc") from None
        raise
    finally:
        inside.remove(SCRIPT_PLACE)


@contextlib.contextmanager
def _lent(inside: Tree) -> Iterator[None]:
    """The head's name servers, and a policy that no package starts its service, while programs run in the tree."""
    for name, mode in MOUNT_POINTS.items():
        inside.make_dir(name, mode)
    link, own = inside.link(RESOLV), inside.text(RESOLV) if inside.is_file(RESOLV) else None
    inside.remove(RESOLV)
    with contextlib.suppress(OSError):  # a head without name servers
        inside.write(RESOLV, Path(RESOLV).read_bytes()[:65536], 0o644)
    policy = inside.is_dir("/var/lib/dpkg") and not inside.lexists(POLICY_PLACE)
    if policy:
        inside.write(POLICY_PLACE, POLICY, 0o755)
    yield
    if policy:
        inside.remove(POLICY_PLACE)
    inside.remove(RESOLV)
    if link:
        inside.make_link(RESOLV, link)
    elif own is not None:
        inside.write(RESOLV, own, 0o644)


def _environment() -> dict[str, str]:
    found = {name: os.environ[name] for name in KEPT if name in os.environ and name != "TERM"}
    # SYSTEMD_OFFLINE: systemctl changes links only (systemd docs/ENVIRONMENT.md).
    fixed = {"DEBIAN_FRONTEND": "noninteractive", "SYSTEMD_OFFLINE": "1", "SOURCE_DATE_EPOCH": str(EPOCH)}
    return {**found, **fixed}


def _filled(path: str, data: bytes, values: Mapping[str, str]) -> bytes:
    try:
        return string.Template(data.decode()).substitute(values).encode()
    except KeyError as error:
        name = error.args[0]
        raise RecipeInvalid(
            f"template {path}: no variable {name!r}", f"known: {', '.join(values)}; $$ is a $"
        ) from None
    except UnicodeDecodeError:
        raise RecipeInvalid(f"template {path}: it is not UTF-8 text", "put it under files") from None
    except ValueError as error:
        raise RecipeInvalid(f"template {path}: {error}", "$$ is a $") from None


def _read(path: Path, what: str) -> bytes:
    try:
        if path.stat().st_size > MAX_FILE:
            raise RecipeInvalid(f"recipe: {what}: {path} is larger than {MAX_FILE} bytes", "make a package of it")
        return path.read_bytes()
    except OSError as error:
        raise RecipeInvalid(f"recipe: {what}: {path} cannot be read: {error.strerror}") from None
