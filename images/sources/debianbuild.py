"""Debian's packages into an empty tree, by mmdebstrap: one run, no services started, and with SOURCE_DATE_EPOCH the
same bytes each time."""

from __future__ import annotations

import os
import re
import shutil
from pathlib import Path

from images.errors import RecipeInvalid, ToolMissing
from images.ext4 import EPOCH
from images.options import Progress
from images.sources.aptsources import (
    as_copies,
    host_sources,
    host_suite,
    local_sources_out,
    mirror_sources,
    sources_for,
)
from images.sources.installing import Speech, install
from images.sources.recipetext import Recipe

HOOKS = Path("/usr/share/mmdebstrap/hooks/maybe-merged-usr")
SOURCES = "gild.sources"
SPEECH = Speech(
    unknown=re.compile(r"E: Unable to locate package (\S+)|E: Package '(\S+)' has no installation candidate"),
    step=re.compile(r"^(?:Unpacking|Setting up) "),
    count=re.compile(r"(\d+) newly installed"),
    steps=2,
    # Unreachable, unsigned, of another time: apt names the source, mmdebstrap does not.
    refused=re.compile(r"^(?:W: GPG error|E: (?:The repository|Failed to fetch|Release file) )"),
)


def require() -> None:
    """Raises ToolMissing if this machine cannot build Debian."""
    if shutil.which("mmdebstrap") is None:
        raise ToolMissing(
            "building a recipe: mmdebstrap is not installed", "apt install mmdebstrap, or use gild image import"
        )


def sources(recipe: Recipe) -> tuple[str, str]:
    """The suite of a recipe and its sources, as apt reads them: the recipe's mirrors or the head's own sources.
    Raises RecipeInvalid."""
    suite = recipe.suite or host_suite()
    if not suite:
        raise RecipeInvalid("this machine is no Debian, so the recipe must name its suite", 'write suite = "bookworm"')
    if recipe.mirrors:
        return suite, mirror_sources(suite, list(recipe.mirrors), list(recipe.components))
    return suite, sources_for(suite, host_suite(), host_sources(), list(recipe.components))


def fill(recipe: Recipe, tree: Path, scratch: Path, act: str, tell: Progress) -> None:
    """Install the recipe's packages into the empty directory `tree`; `scratch` is an empty one on the same disk. The
    lists of the archive stay, for the scripts; sources that lie on the head's disk are taken out, no node has them.
    Raises RecipeInvalid, NoSpace, CommandFailed, ToolMissing."""
    suite, text = sources(recipe)
    (scratch / SOURCES).write_text(as_copies(text))
    argv = ["mmdebstrap", "--mode=root", "--format=directory", "--variant=apt", "--verbose", "--skip=cleanup/apt/lists"]
    argv += ['--aptopt=APT::Install-Recommends "false"', '--aptopt=Acquire::Languages "none"']
    # Later rules win in dpkg(1), so what is kept follows what is left out.
    argv += [f"--dpkgopt=path-exclude={pattern}" for pattern in recipe.exclude]
    argv += [f"--dpkgopt=path-include={pattern}" for pattern in recipe.keep]
    if HOOKS.is_dir():  # else the package usrmerge merges /usr, and brings 46 MB of perl
        argv.append(f"--hook-dir={HOOKS}")
    packages = [*recipe.packages]
    if any(user.sudo for user in recipe.users):
        packages.append("sudo")
    if packages:
        argv.append(f"--include={','.join(dict.fromkeys(packages))}")
    argv += [suite, os.fspath(tree), os.fspath(scratch / SOURCES)]
    environment = {
        "SOURCE_DATE_EPOCH": str(EPOCH),
        "TMPDIR": os.fspath(scratch),
        "DEBIAN_FRONTEND": "noninteractive",
    }
    install(argv, tree, SPEECH, act=act, env=environment, tell=tell)
    local_sources_out(tree)
