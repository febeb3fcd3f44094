"""A recipe, TOML text, becomes a version: packages by mmdebstrap, then files, then scripts, without a golden client."""

from __future__ import annotations

import hashlib
import io
import os
import pkgutil
import re
import shlex
import shutil
import tarfile
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

from images import working
from images.disk import disk_errors
from images.errors import CommandFailed, RecipeInvalid, ToolMissing
from images.ext4 import EPOCH
from images.manifest import Manifest
from images.options import Options, Progress
from images.run import stream
from images.sources.aptsources import host_sources, host_suite, mirror_sources, sources_for
from images.sources.recipetext import Recipe, parse_recipe
from images.store import Store

SHIPPED = ("debian", "debian-mpi", "debian-slurm")
HOOKS = Path("/usr/share/mmdebstrap/hooks/maybe-merged-usr")
UNKNOWN = re.compile(r"E: Unable to locate package (\S+)|E: Package '(\S+)' has no installation candidate")
STEP = re.compile(r"^(?:Unpacking|Setting up) ")
COUNT = re.compile(r"(\d+) newly installed")
BUILD_LIMIT = 4 * 3600  # seconds; the sample takes one minute, a slow mirror and a thousand packages some hours


def shipped_recipes() -> dict[str, str]:
    """The sample recipes that come with the program, name -> TOML text."""
    texts = {name: pkgutil.get_data("images.sources", f"recipes/{name}.toml") for name in SHIPPED}
    return {name: text.decode() for name, text in texts.items() if text is not None}


def build_recipe(
    store: Store,
    recipe_text: str,
    name: str = "",
    options: Options | None = None,
    *,
    base: Path | None = None,
) -> Manifest:
    """Build a recipe and publish the result as the next version of `name` (default: the recipe's own name).

    `base` is the directory that `source` files of the recipe are relative to. The same recipe and the same package
    versions give the same chunks. `progress` hears ("build", packages unpacked and set up, expected) and what
    publishing tells. Needs root. Raises RecipeInvalid, ToolMissing, CommandFailed, Busy, NoSpace."""
    options = options or Options()
    recipe = parse_recipe(recipe_text)
    lineage = name or recipe.name
    if not lineage:
        raise RecipeInvalid("the recipe has no name", 'write name = "compute", or give one')
    if shutil.which("mmdebstrap") is None:
        raise ToolMissing(
            "building a recipe: mmdebstrap is not installed", "apt install mmdebstrap, or use gild image import"
        )
    if os.geteuid() != 0:
        raise CommandFailed("building a recipe makes files of many owners", "run this as root")
    overlay, owners = _overlay(recipe, base or Path("."))
    scripts = [_script(script, base or Path(".")) for script in recipe.scripts]

    def fill(staging: Path) -> dict[str, Any]:
        with (
            tempfile.TemporaryDirectory(prefix="build-", dir=staging.parent) as temporary,
            disk_errors(f"building {lineage}"),
        ):
            argv = _argv(recipe, Path(temporary), staging, overlay, owners, scripts)
            _mmdebstrap(argv, Path(temporary), lineage, options.tell)
        return {
            "kind": "recipe",
            "recipe": recipe_text,
            "sha256": hashlib.sha256(recipe_text.encode()).hexdigest(),
            "packages": installed_packages(staging),
        }

    told = replace(options, message=options.message or recipe.message, cmdline=recipe.cmdline)
    return working.from_tree(store, lineage, fill, told, latest=EPOCH)


def installed_packages(tree: Path) -> dict[str, str]:
    """Packages of a Debian tree, name -> version, from dpkg's status file; empty if there is none."""
    path = tree / "var/lib/dpkg/status"
    if path.is_symlink() or not path.is_file():
        return {}
    found = {}
    for block in path.read_text(errors="replace").split("\n\n"):
        fields = dict(re.findall(r"(?m)^(Package|Status|Version): (.*)$", block))
        if fields.get("Status", "").endswith(" installed"):
            found[fields.get("Package", "")] = fields.get("Version", "")
    return found


def _argv(
    recipe: Recipe, temporary: Path, staging: Path, overlay: bytes, owners: list[tuple[str, str]], scripts: list[str]
) -> list[str]:
    suite = recipe.suite or host_suite()
    if not suite:
        raise RecipeInvalid("this machine is no Debian, so the recipe must name its suite", 'write suite = "bookworm"')
    if recipe.mirrors:
        sources = mirror_sources(suite, list(recipe.mirrors), list(recipe.components))
    else:
        sources = sources_for(suite, host_suite(), host_sources(), list(recipe.components))
    (temporary / "gild.sources").write_text(sources)
    argv = ["mmdebstrap", "--mode=root", "--format=directory", "--variant=apt", "--verbose"]
    argv += ['--aptopt=APT::Install-Recommends "false"', '--aptopt=Acquire::Languages "none"']
    # Later rules win in dpkg(1), so what is kept follows what is left out.
    argv += [f"--dpkgopt=path-exclude={pattern}" for pattern in recipe.exclude]
    argv += [f"--dpkgopt=path-include={pattern}" for pattern in recipe.keep]
    if HOOKS.is_dir():  # else the package usrmerge merges /usr, and brings 46 MB of perl
        argv.append(f"--hook-dir={HOOKS}")
    if recipe.packages:
        argv.append(f"--include={','.join(recipe.packages)}")
    if overlay:
        (temporary / "files.tar").write_bytes(overlay)
        argv.append(f"--customize-hook=tar-in {shlex.quote(os.fspath(temporary / 'files.tar'))} /")
    for owner, path in owners:
        argv.append(f'--customize-hook=chroot "$1" chown -h {shlex.quote(owner)} {shlex.quote(path)}')
    for number, script in enumerate(scripts, 1):
        place = temporary / f"script-{number}"
        place.write_text(script)
        argv.append(f'--customize-hook=chroot "$1" /bin/sh -eu < {shlex.quote(os.fspath(place))}')
    return [*argv, suite, os.fspath(staging), os.fspath(temporary / "gild.sources")]


def _mmdebstrap(argv: list[str], temporary: Path, name: str, tell: Progress) -> None:
    unknown: list[str] = []
    done = expected = 0

    def line(text: str) -> None:
        nonlocal done, expected
        if match := UNKNOWN.search(text):
            unknown.append(match[1] or match[2])
        elif match := COUNT.search(text):
            expected += 2 * int(match[1])
        elif STEP.match(text):
            done += 1
            tell("build", min(done, expected), expected)

    tell("build", 0, 1)
    try:
        environment = {
            "SOURCE_DATE_EPOCH": str(EPOCH),
            "TMPDIR": os.fspath(temporary),
            "DEBIAN_FRONTEND": "noninteractive",
        }
        stream(argv, line, env=environment, timeout=BUILD_LIMIT, act=f"building {name}")
    except CommandFailed:
        if unknown:
            names = ", ".join(dict.fromkeys(unknown))
            raise RecipeInvalid(
                f"building {name}: the archive has no package {names}",
                "check the spelling, the suite and the components",
            ) from None
        raise


def _overlay(recipe: Recipe, base: Path) -> tuple[bytes, list[tuple[str, str]]]:
    """The recipe's files as a tar archive, and (owner, path) of those that belong to somebody else than root."""
    if not recipe.files:
        return b"", []
    buffer, owners = io.BytesIO(), []
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.GNU_FORMAT) as archive:
        for file in recipe.files:
            data = file.content.encode() if file.content is not None else _read(base / file.source, file.path)
            entry = tarfile.TarInfo(file.path.lstrip("/"))
            entry.size, entry.mode, entry.mtime = len(data), file.mode, EPOCH
            archive.addfile(entry, io.BytesIO(data))
            if file.owner not in ("root", "root:root", "0:0"):
                owners.append((file.owner, file.path))
    return buffer.getvalue(), owners


def _script(script: tuple[str, str], base: Path) -> str:
    kind, value = script
    return value if kind == "text" else _read(base / value, value).decode("utf-8", "surrogateescape")


def _read(path: Path, what: str) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise RecipeInvalid(f"recipe: {what}: {path} cannot be read: {error.strerror}") from None
