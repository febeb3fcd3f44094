"""gild image build, import, recipe: ways in that need no golden client."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import IO, Any, TextIO

import click

from appliance.cli import show
from appliance.cli.image_show import published
from appliance.cli.main import Site
from appliance.errors import Wrong
from images.errors import NotFound, RecipeInvalid
from images.manifest import Manifest
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
        manifest = build_recipe(
            site.store, text, name, Options(message=message, progress=progress), base=base, sets_dirs=[site.paths.sets]
        )
    published(site, manifest.ref)


@click.command("import")
@click.argument("path")
@click.option("--name", metavar="NAME", default="", help="Image name; another head's file brings its own.")
@click.option("--message", "-m", default="", help="What is new in this version.")
@click.option("--cmdline", default="", help="Kernel arguments of the installed system.")
@click.option("--whole", is_flag=True, help="A disk bit for bit, whatever is on it.")
@click.option("--reference", default="", help="Which one, of a container archive with several.")
@click.option("--platform", default="linux/amd64", show_default=True, help="Which build of a container image.")
@click.option("--json", "json_", is_flag=True, help="For scripts.")
@click.pass_obj
def import_(site: Site, /, path: str, name: str, json_: bool, **said: Any) -> None:
    """Make a version of what there is. PATH (or - for input) is one of many things, known by its first bytes.

    A directory; a tar archive (gz, xz, bz2, zst); a container image (OCI layout, docker save); a disk (raw, qcow2,
    vmdk, vdi, vhdx); or what another head has exported.
    """
    from images.sources.kind import looks_like, looks_like_stream

    stream: IO[bytes] | None = None
    if path == "-":
        if sys.stdin.isatty():
            raise Wrong("there is nothing on the input", "for instance: docker export ID | gild.pyz image import -")
        kind, stream = looks_like_stream(sys.stdin.buffer)
    else:
        kind = looks_like(Path(path))
    if kind == "bundle":
        from appliance.cli.image_carry import import_bundle

        return import_bundle(site, path, stream, json=json_)
    if not name:
        raise Wrong("the image needs a name", f"for instance: --name {Path(path).name.partition('.')[0] or 'compute'}")
    with show.progress("import") as progress:
        options = Options(message=said["message"], cmdline=said["cmdline"] or CMDLINE, progress=progress)
        manifest = _imported(site, kind, name, stream or Path(path), options, **said)
    if json_:
        return show.as_json({"image": manifest.ref, "kind": kind})
    return published(site, manifest.ref)


def _imported(
    site: Site,
    kind: str,
    name: str,
    source: Path | IO[bytes],
    options: Options,
    *,
    whole: bool,
    reference: str,
    platform: str,
    **_: str,
) -> Manifest:
    if kind.startswith("disk") or whole:
        from images.sources.disk import import_disk

        if not isinstance(source, Path) or source.is_dir():
            raise Wrong("a disk is imported from a file or a device", "not from standard input or a directory")
        return import_disk(site.store, name, source, options, whole=whole)
    if kind in ("oci", "docker"):
        from images.sources.oci import import_oci

        return import_oci(site.store, name, source, options, reference=reference, platform=platform)
    if isinstance(source, Path) and kind == "directory":
        from images.sources.directory import import_directory

        return import_directory(site.store, name, source, options)
    from images.sources.tar import import_tar

    # What is not known is most likely a damaged archive: its reader tells what is wrong with it.
    return import_tar(site.store, name, source, options)


@click.command("recipe")
@click.argument("name", default="list")
@click.option("--sets", is_flag=True, help="The package sets a recipe can name.")
def recipe(name: str, sets: bool) -> None:
    """Print a recipe that comes with gild. Save it and change it; without NAME, or with `list`, they are listed."""
    from images.sources.recipe import shipped_recipes

    if sets:
        return _sets()
    known = shipped_recipes()
    if name == "list":
        rows = [[name, text.partition("\n")[0].lstrip("# ")] for name, text in sorted(known.items())]
        return show.table(["recipe", "what it makes"], rows, "")
    if name not in known:
        raise NotFound(f"there is no recipe {name!r}", f"there are: {', '.join(sorted(known))}")
    print(known[name], end="")
    return None


@click.pass_obj
def _sets(site: Site) -> None:
    from images.sources.sets import known_sets

    rows = [
        [known.name, show.safe(known.description), ", ".join(known.families), "gild" if not known.origin else "here"]
        for known in known_sets([site.paths.sets]).values()
    ]
    return show.table(["set", "what it brings", "families", "from"], rows, "")
