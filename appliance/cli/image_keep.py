"""gild image verify, rm: keeping what there is."""

from __future__ import annotations

import click

from appliance.cli import show
from appliance.cli.image_show import system
from appliance.cli.main import Site
from appliance.errors import NotServing, Wrong
from images.errors import ChunkInvalid
from images.store import GRACE


@click.command("verify")
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


@click.command("rm")
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
    show.ask(f"Remove {ref} ({used} of {system(manifest) or 'a system'})?", yes)
    site.store.remove(ref)
    # Nobody installs anything: what the version alone needed can go at once. Otherwise it goes a day later.
    freed = site.store.gc(grace=GRACE if busy else 0.0).freed
    print(f"{ref} is removed, {show.size(freed)} given back")
