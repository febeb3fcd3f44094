"""gild image build, import, recipe: ways in that need no golden client."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TextIO

import click

from appliance.cli import show
from appliance.cli.image_show import published
from appliance.cli.main import Site
from images.errors import NotFound, RecipeInvalid
from images.options import CMDLINE, Options


@click.command("build")
@click.argument("recipe", type=click.File("r", encoding="utf-8"))
@click.option("--name", metavar="NAME", default="", help="Image name; otherwise the recipe's own.")
@click.option("--message", "-m", default="", help="What is new in this version.")
@click.pass_obj
def build(site: Site, /, recipe: TextIO, name: str, message: str) -> None:
    """Build a version from a recipe. RECIPE is a TOML file, or - for input; no golden client is needed."""
    from images.sources.recipe import build_recipe

    base = Path(recipe.name).parent if recipe.name != "<stdin>" else None
    try:
        text = recipe.read()
    except UnicodeDecodeError as error:
        raise RecipeInvalid(f"{recipe.name} is not UTF-8 text at byte {error.start}") from None
    with show.progress("build") as progress:
        manifest = build_recipe(site.store, text, name, Options(message=message, progress=progress), base=base)
    published(site, manifest.ref)


@click.command("import")
@click.argument("path")
@click.option("--name", metavar="NAME", required=True, help="Image name.")
@click.option("--message", "-m", default="", help="What is new in this version.")
@click.option("--cmdline", default="", help="Kernel arguments of the installed system.")
@click.pass_obj
def import_(site: Site, /, path: str, name: str, message: str, cmdline: str) -> None:
    """Make a version of a root file system. PATH: a directory or a tar archive (gz, xz, bz2, zst too; - for input)."""
    with show.progress("import") as progress:
        options = Options(message=message, cmdline=cmdline or CMDLINE, progress=progress)
        if path != "-" and Path(path).is_dir():
            from images.sources.directory import import_directory

            manifest = import_directory(site.store, name, Path(path), options)
        else:
            from images.sources.tar import import_tar

            source = sys.stdin.buffer if path == "-" else Path(path)
            manifest = import_tar(site.store, name, source, options)
    published(site, manifest.ref)


@click.command("recipe")
@click.argument("name", default="list")
def recipe(name: str) -> None:
    """Print a recipe that comes with gild. Save it and change it; without NAME, or with `list`, they are listed."""
    from images.sources.recipe import shipped_recipes

    known = shipped_recipes()
    if name == "list":
        rows = [[name, text.partition("\n")[0].lstrip("# ")] for name, text in sorted(known.items())]
        return show.table(["recipe", "what it makes"], rows, "")
    if name not in known:
        raise NotFound(f"there is no recipe {name!r}", f"there are: {', '.join(sorted(known))}")
    print(known[name], end="")
    return None
