"""gild image"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any, TextIO

import click

from appliance.cli import show
from appliance.cli.main import Noun, Site
from appliance.errors import NotServing, Wrong
from images.errors import ChunkInvalid, NotFound, RecipeInvalid
from images.manifest import Manifest
from images.store import GRACE


@click.group("image", cls=Noun)
def command() -> None:
    """Operating systems to install: build, import, list, verify."""


@command.command("build")
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
        manifest = build_recipe(site.store, text, name=name, base=base, message=message, progress=progress)
    _published(site, manifest.ref)


@command.command("import")
@click.argument("path")
@click.option("--name", metavar="NAME", required=True, help="Image name.")
@click.option("--message", "-m", default="", help="What is new in this version.")
@click.option("--cmdline", default="", help="Kernel arguments of the installed system.")
@click.pass_obj
def import_(site: Site, /, path: str, name: str, message: str, cmdline: str) -> None:
    """Make a version of a root file system. PATH: a directory or a tar archive (gz, xz, bz2, zst too; - for input)."""
    with show.progress("import") as progress:
        if path != "-" and Path(path).is_dir():
            from images.sources.directory import import_directory

            manifest = import_directory(
                site.store, name, Path(path), message=message, cmdline=cmdline, progress=progress
            )
        else:
            from images.sources.tar import import_tar

            source = sys.stdin.buffer if path == "-" else Path(path)
            manifest = import_tar(site.store, name, source, message=message, cmdline=cmdline, progress=progress)
    _published(site, manifest.ref)


@command.command("list")
@click.option("--json", "json_", is_flag=True, help="For scripts.")
@click.pass_obj
def list_(site: Site, /, json_: bool) -> None:
    """Every version of every image; the tagged one is what nodes get."""
    store = site.store
    rows: list[dict[str, Any]] = []
    for name in store.images():
        tag = store.tag(name)
        for number in store.versions(name):
            manifest, digest = store.load(f"{name}:{number}")
            rows.append(
                {
                    "image": name,
                    "version": number,
                    "tagged": number == tag,
                    "created": manifest.created,
                    "used": sum(part.used for part in manifest.partitions),
                    "arch": manifest.arch,
                    "system": _system(manifest),
                    "message": manifest.message,
                    "digest": digest,
                }
            )
    if json_:
        return show.as_json(rows)
    return show.table(
        ["image", "nodes get", "system", "used", "arch", "made", "message"],
        [
            [
                f"{row['image']}:{row['version']}",
                "●" if row["tagged"] else "",
                show.safe(row["system"]),
                show.size(row["used"]),
                row["arch"],
                show.clock(row["created"]),
                show.safe(row["message"]),
            ]
            for row in rows
        ],
        "there is no image yet; see: gild.pyz help images",
    )


@command.command("show")
@click.argument("ref")
@click.option("--json", "json_", is_flag=True, help="The whole manifest.")
@click.pass_obj
def show_(site: Site, /, ref: str, json_: bool) -> None:
    """One version. What is in it, what was checked and mended when it was published."""
    import json

    manifest, digest = site.store.load(ref)
    if json_:
        return show.as_json({"digest": digest, **json.loads(site.store.manifest_bytes(digest))})
    show.facts(
        [
            ("image", manifest.ref),
            ("digest", digest),
            ("made", f"{show.clock(manifest.created)} from {manifest.source.get('kind', '?')}"),
            ("message", show.safe(manifest.message)),
            ("system", show.safe(_system(manifest))),
            ("kernels", ", ".join(show.safe(kernel.get("version")) for kernel in manifest.system.get("kernels", []))),
            ("arguments", show.safe(manifest.cmdline)),
        ]
    )
    print()
    show.table(
        ["partition", "file system", "uuid", "size", "used"],
        [[p.role, p.fs, p.uuid, show.size(p.size), show.size(p.used)] for p in manifest.partitions],
        "",
    )
    print()
    show.table(
        ["check", "found", "done"],
        [
            [show.safe(check["name"]), show.safe(", ".join(check["found"])), show.safe(check["fix"])]
            for check in manifest.checks
            if check.get("found")
        ],
        f"{len(manifest.checks)} checks, nothing found",
    )
    return None


@command.command("verify")
@click.argument("refs", nargs=-1)
@click.pass_obj
def verify(site: Site, /, refs: tuple[str, ...]) -> None:
    """Hash every stored byte again; names what is damaged. Without REFS: everything."""
    store = site.store
    wanted = refs or tuple(f"{name}:{number}" for name in store.images() for number in store.versions(name))
    damages = []
    for ref in wanted:
        with show.progress(f"verify {ref}") as progress:
            damages += store.verify(ref, progress)
    if damages:
        for damage in damages:
            print(damage)
        raise ChunkInvalid(f"{len(damages)} damaged", "build or import the image again: what is damaged is not served")
    print(f"{len(wanted)} versions are sound")


@command.command("tag")
@click.argument("ref")
@click.pass_obj
def tag(site: Site, /, ref: str) -> None:
    """Let nodes get this version from now on. REF is NAME:NUMBER; this promotes or rolls back."""
    manifest, _ = site.store.load(ref)
    site.store.set_tag(manifest.name, manifest.version)
    print(f"nodes get {manifest.ref} from now on")


@command.command("rm")
@click.argument("ref")
@click.option("--yes", is_flag=True, help="Do not ask.")
@click.pass_obj
def rm(site: Site, /, ref: str, yes: bool) -> None:
    """Remove a version (NAME:NUMBER), and the packs nothing else needs."""
    manifest, digest = site.store.load(ref)
    if ":" not in ref:
        raise Wrong(f"which version of {ref}?", f"say {manifest.ref}, for instance; see: gild.pyz image list")
    try:
        busy = site.client.get("status")["installing"]
    except NotServing:
        busy = []
    if digest in busy:
        raise Wrong(f"{ref} is ordered for a node or being installed", "wait for it, or cancel: gild.pyz node cancel")
    used = show.size(sum(part.used for part in manifest.partitions))
    show.ask(f"Remove {ref} ({used} of {_system(manifest) or 'a system'})?", yes)
    site.store.remove(ref)
    # Nobody installs anything: what the version alone needed can go at once. Otherwise it goes a day later.
    freed = site.store.gc(grace=GRACE if busy else 0.0).freed
    print(f"{ref} is removed, {show.size(freed)} given back")


@command.command("recipe")
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


def _published(site: Site, /, ref: str) -> None:
    manifest, digest = site.store.load(ref)
    findings = [check for check in manifest.checks if check.get("severity") == "error"]
    print(f"{ref} is published ({digest[:12]}), {show.size(sum(p.used for p in manifest.partitions))} used")
    for check in findings:
        name, found, fix = (show.safe(text) for text in (check["name"], ", ".join(check["found"]), check["fix"]))
        print(f"  ! {name}: {found}. {fix}")
    if site.store.tag(manifest.name) != manifest.version:
        print(f"  nodes still get version {site.store.tag(manifest.name)}; change that: gild.pyz image tag {ref}")


def _system(manifest: Manifest) -> str:
    return str(manifest.system.get("pretty", ""))
