"""gild image verify, repair, gc, rm: keeping what there is."""

from __future__ import annotations

from typing import Any

import click

from appliance.cli import show
from appliance.cli.image_show import system
from appliance.cli.main import Site
from appliance.errors import NotServing, Wrong
from images.errors import Busy, ChunkInvalid, ImageError
from images.keeping.damage import Report
from images.keeping.garbage import GRACE, collect, dead

ROWS = 40  # lines of a preview; the rest is counted


@click.command("verify")
@click.argument("refs", nargs=-1)
@click.option("--json", "json_", is_flag=True, help="For scripts.")
@click.pass_obj
def verify(site: Site, /, refs: tuple[str, ...], json_: bool) -> None:
    """Hash every stored byte again; names what is damaged. Without REFS: everything. Says which versions are touched:
    they are not installed on anything until they are repaired."""
    from images.keeping.verify import verify as verify_store

    with show.progress("verify") as progress:
        report = verify_store(site.store, refs, progress)
    if json_:
        show.as_json(_report(report))
    else:
        _show(report)
        if report.strays:
            print(f"{len(report.strays)} files no version needs; see: gild.pyz image gc --dry-run")
    _refuse(report, "gild.pyz image repair --from a bundle, another head or a directory")


@click.command("repair")
@click.argument("refs", nargs=-1)
@click.option("--from", "from_", metavar="WHERE", default="", help="A bundle, http://HEAD, or another store's folder.")
@click.option("--json", "json_", is_flag=True, help="For scripts.")
@click.pass_obj
def repair(site: Site, /, refs: tuple[str, ...], from_: str, json_: bool) -> None:
    """Fetch what is damaged or missing, and only that. Every byte is verified before it replaces another. Without
    REFS: everything."""
    from images.keeping.repair import repair as repair_store
    from images.keeping.spares import spare_at

    spare = spare_at(from_) if from_ else None
    with show.progress("repair") as progress:
        done = repair_store(site.store, refs, spare, progress)
    if json_:
        show.as_json({"healed": done.healed, "fetched": done.fetched, **_report(done.left)})
    else:
        for file in done.healed[:ROWS]:
            print(f"healed: {file}")
        if len(done.healed) > ROWS:
            print(f"and {len(done.healed) - ROWS} more")
        if done.healed:
            print(f"{len(done.healed)} files are right again, {show.size(done.fetched)} fetched")
        _show(done.left)
    _refuse(done.left, "try another source, or build or import the image again")


@click.command("gc")
@click.option("--dry-run", "--preview", "dry_run", is_flag=True, help="Say what would go, and remove nothing.")
@click.option("--work", is_flag=True, help="Working images too; the next change to an image then takes longer.")
@click.option("--now", is_flag=True, help="What became unused within the last day too.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@click.option("--json", "json_", is_flag=True, help="For scripts.")
@click.pass_obj
def gc(site: Site, /, dry_run: bool, work: bool, now: bool, yes: bool, json_: bool) -> None:
    """Remove what no version needs. Packs that became unused within the last day are kept, for a node may still be
    reading them; versions that are being installed are never touched."""
    store, busy = site.store, installing(site)
    grace = 0.0 if now and not busy else GRACE
    preview = collect(store, dry_run=True, live_versions=busy, grace=grace, work=work)
    wasted = dead(store)
    if json_:
        rows = {
            "free": preview.freed,
            "items": [{"path": item.path, "size": item.size, "why": item.why} for item in preview.items],
            "young": preview.kept,
            "dead": [{"pack": row.pack, "size": row.size, "dead": row.dead} for row in wasted],
        }
        show.as_json(rows)
    else:
        table = [[show.safe(item.path), show.size(item.size), item.why] for item in preview.items[:ROWS]]
        show.table(["what", "size", "why"], table, "there is nothing to remove")
        if len(preview.items) > ROWS:
            print(f"and {len(preview.items) - ROWS} more")
        if preview.kept:
            print(f"{len(preview.kept)} unused packs are younger than a day and stay until then")
        if wasted:
            lost, size = sum(row.dead for row in wasted), sum(row.size for row in wasted)
            print(f"{len(wasted)} packs stay whole, though {show.size(lost)} of their {show.size(size)} are not needed")
    if dry_run or not preview.items:
        return
    show.ask(f"Remove {len(preview.items)} files and give back {show.size(preview.freed)}?", yes)
    freed = collect(store, live_versions=installing(site), grace=grace, work=work).freed
    if not json_:
        print(f"{show.size(freed)} given back")


@click.command("rm")
@click.argument("refs", nargs=-1, required=True)
@click.option("--all", "whole", is_flag=True, help="Every version of the images named, and their working images.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@click.pass_obj
def rm(site: Site, /, refs: tuple[str, ...], whole: bool, yes: bool) -> None:
    """Remove versions. REFS are NAME:NUMBER; or with --all whole images (NAME).

    The packs nothing else needs go too.
    """
    store, busy = site.store, installing(site)
    rows: list[list[str]] = []
    for ref in refs:
        name, number = store.resolve(ref)
        if whole and ":" in ref:
            raise Wrong(f"{ref} is one version, and --all means all of them", f"say {name} --all, or {ref}")
        if not whole and ":" not in ref:
            raise Wrong(
                f"which version of {ref}?",
                f"say {name}:{number}, for instance, or {name} --all; see: gild.pyz image list",
            )
        going = store.versions(name) if whole else [number]
        _unwanted(site, name, going, whole or going == store.versions(name))
        for version in going:
            rows.append(_row(site, f"{name}:{version}", busy))
    if not yes:
        show.table(["remove", "nodes get", "system", "used", "message"], rows, "")
    show.ask(f"Remove {len(rows)} versions?" if len(rows) > 1 else f"Remove {rows[0][0]}?", yes)
    for ref in refs:
        store.remove(ref)
        print(f"{ref} is removed")
    # Nobody installs anything: what these versions alone needed can go at once. Otherwise it goes a day later.
    try:
        freed = collect(store, live_versions=busy, grace=GRACE if busy else 0.0).freed
        print(f"{show.size(freed)} given back")
    except Busy as error:
        print(f"the space is given back by: gild.pyz image gc ({error.message})")


def installing(site: Site) -> list[str]:
    """Digests of the versions that nodes are ordered or are installing; none where no head serves."""
    try:
        found: list[str] = site.client.get("status")["installing"]
    except NotServing:
        return []
    return found


def _unwanted(site: Site, name: str, going: list[int], all_: bool) -> None:
    """Raises Wrong if a profile asks for one of these versions, or for the image when `all_` of it goes."""
    try:
        profiles = site.client.get("profiles")
    except NotServing:
        return
    refs = {f"{name}:{number}" for number in going} | ({name} if all_ else set())
    for profile in profiles:
        if profile["image"] in refs:
            raise Wrong(
                f"profile {profile['name']} is for {profile['image']}",
                f"give it another: gild.pyz profile set {profile['name']} --image NAME",
            )


def _row(site: Site, ref: str, busy: list[str]) -> list[str]:
    """A version that is to go. Raises Wrong if a node needs it. A damaged one can be removed as well."""
    store = site.store
    name, number = store.resolve(ref)
    tagged = "●" if store.tag(name) == number else ""
    try:
        manifest, digest = store.load(ref)
    except ImageError as error:
        return [ref, tagged, "", "", show.safe(error)]
    if digest in busy:
        raise Wrong(f"{ref} is ordered for a node or being installed", "wait for it, or cancel: gild.pyz node cancel")
    used = show.size(sum(part.used for part in manifest.partitions))
    return [ref, tagged, show.safe(system(manifest)), used, show.safe(manifest.message)]


def _report(report: Report) -> dict[str, Any]:
    return {
        "sound": not report.damage,
        "checked": report.checked,
        "bytes": report.size,
        "damage": [
            {
                "file": damage.file,
                "what": damage.what,
                "versions": damage.versions,
                "partition": damage.partition or None,
                "chunk": damage.chunk if damage.chunk >= 0 else None,
                "offset": damage.offset if damage.offset >= 0 else None,
                "length": damage.length or None,
            }
            for damage in report.damage
        ],
        "more": report.more,
        "strays": [{"file": file, "why": why} for file, why in report.strays],
    }


def _show(report: Report) -> None:
    if not report.damage:
        count = len(report.checked)
        print(f"{count} version{'' if count == 1 else 's'} {'is' if count == 1 else 'are'} sound")
        return
    rows = [
        [show.safe(damage), ", ".join(damage.versions) or "none: no version uses it"] for damage in report.damage[:ROWS]
    ]
    show.table(["damaged", "versions"], rows, "")
    if len(report.damage) + report.more > ROWS:
        print(f"and {len(report.damage) + report.more - ROWS} more places")


def _refuse(report: Report, hint: str) -> None:
    """The exit code of damage, with one line that counts it."""
    if report.damage:
        touched = sorted({ref for damage in report.damage for ref in damage.versions})
        told = ", ".join(touched[:10]) + (", ..." if len(touched) > 10 else "") or "no version uses them"
        raise ChunkInvalid(f"{len(report.damage) + report.more} places are damaged: {told}", hint)
