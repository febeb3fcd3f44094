"""A recipe, TOML text, becomes a version without a golden client: packages, then users, files, units and scripts."""

from __future__ import annotations

import hashlib
import os
import pkgutil
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from images import working
from images.disk import disk_errors
from images.editing import packages
from images.errors import CommandFailed, RecipeInvalid
from images.ext4 import EPOCH
from images.manifest import Manifest
from images.options import Options
from images.sources import debianbuild, rpmbuild
from images.sources.extends import Chain, resolved
from images.sources.furnish import furnish, gather
from images.sources.recipetext import Recipe
from images.sources.sets import Set, known_sets, with_sets
from images.store import Store

SHIPPED = ("debian", "debian-mpi", "debian-slurm")


def shipped_recipes() -> dict[str, str]:
    """The sample recipes that come with the program, name -> TOML text."""
    texts = {name: pkgutil.get_data("images.sources", f"recipes/{name}.toml") for name in SHIPPED}
    return {name: text.decode() for name, text in texts.items() if text is not None}


def read_recipe(text: str, *, base: Path | None = None, sets_dirs: Sequence[Path] = ()) -> Recipe:
    """A recipe as it will be built: with what it extends, and with its sets. Raises RecipeInvalid."""
    chain, known = resolved(text, base or Path(), shipped_recipes()), known_sets(sets_dirs)
    return with_sets(chain.recipe, known, chain.brought, text)


def build_recipe(
    store: Store,
    recipe_text: str,
    name: str = "",
    options: Options | None = None,
    *,
    base: Path | None = None,
    sets_dirs: Sequence[Path] = (),
) -> Manifest:
    """Build a recipe and publish the result as the next version of `name` (default: the recipe's own name).

    `base` is the directory that files named in the recipe are relative to; `sets_dirs` hold sets beside those that come
    with gild. The same recipe and the same package versions give the same chunks (RPM: see `images.sources.rpmbuild`).
    `options.progress` hears ("build", packages done, expected), ("script", done, all) and what publishing tells. Needs
    root. Raises RecipeInvalid, ToolMissing, CommandFailed, Busy, NoSpace; nothing is then left of it."""
    options = options or Options()
    chain, known = resolved(recipe_text, base or Path(), shipped_recipes()), known_sets(sets_dirs)
    recipe = with_sets(chain.recipe, known, chain.brought, recipe_text)
    lineage = name or recipe.name
    if not lineage:
        raise RecipeInvalid("the recipe has no name", 'write name = "compute", or give one')
    recipe = _require(recipe)
    what = gather(recipe, lineage)
    act = f"building {lineage}"

    def fill(tree: Path) -> dict[str, Any]:
        with disk_errors(act), tempfile.TemporaryDirectory(prefix="build-", dir=tree.parent) as scratch:
            build = debianbuild.fill if recipe.family == "debian" else rpmbuild.fill
            build(recipe, tree, Path(scratch), act, options.tell)
            furnish(tree, recipe, what, act, options.tell)
        return {**_said(recipe_text, chain, recipe, known), "packages": packages.packages(os.fspath(tree)) or {}}

    told = replace(options, message=options.message or recipe.message, cmdline=recipe.cmdline)
    return working.from_tree(store, lineage, fill, told, latest=EPOCH)


def _require(recipe: Recipe) -> Recipe:
    """What can be known to be missing before anything is touched; gives the recipe with the suite it will have."""
    if recipe.family == "debian":
        debianbuild.require()
        recipe = replace(recipe, suite=debianbuild.sources(recipe)[0])
    else:
        rpmbuild.require(recipe.family)
        rpmbuild.check(recipe)
    if os.geteuid() != 0:
        raise CommandFailed("building a recipe makes files of many owners", "run this as root")
    return recipe


def _said(text: str, chain: Chain, recipe: Recipe, known: dict[str, Set]) -> dict[str, Any]:
    """What the manifest says of where the version comes from."""
    said: dict[str, Any] = {"kind": "recipe", "recipe": text, "sha256": hashlib.sha256(text.encode()).hexdigest()}
    said |= {"family": recipe.family, "suite": recipe.suite}
    if chain.bases:
        said["extends"] = {name: hashlib.sha256(base.encode()).hexdigest() for name, base in chain.bases.items()}
    if recipe.sets:
        said["sets"] = {name: "site" if known[name].origin else "gild" for name in recipe.sets}
    if recipe.layout:
        said["layout"] = [dict(part) for part in recipe.layout]
    return said
