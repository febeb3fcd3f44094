"""gild node approve, install, cancel: what machines may do."""

from __future__ import annotations

from typing import Any

import click

from appliance.cli import job, show
from appliance.cli.main import Site
from appliance.cli.selecting import ALL, JSON, YES, which
from appliance.errors import Wrong


@click.command("approve")
@click.argument("nodes", nargs=-1)
@ALL
@click.option("--profile", default="default", show_default=True, help="What kind of node they become.")
@click.option("--name", "names", metavar="NAME", help="A name for one, or a pattern such as node{n:02} for many.")
@click.option("--rack", type=int, metavar="R", help="Number for {r} in the pattern; they join the group rackR.")
@click.option("--group", "groups", multiple=True, metavar="GROUP", help="A group they join; repeatable.")
@JSON
@click.pass_obj
def approve(
    site: Site, /, nodes: tuple[str, ...], all_: bool, groups: tuple[str, ...], json_: bool, **given: Any
) -> None:
    """Let machines out of the waiting room. They get a name and an address of their own."""
    rows = site.client.post("nodes", "approve", **which(nodes, all_), groups=list(groups), **given)
    if json_:
        return show.as_json(rows)
    return show.table(
        ["node", "mac", "address", "profile"],
        [[row["name"], row["mac"], row["address"], row["profile"]] for row in rows],
        "nobody is in the waiting room",
    )


@click.command("install")
@click.argument("nodes", nargs=-1)
@ALL
@click.option("--image", metavar="REF", help="NAME or NAME:NUMBER, instead of the profile's.")
@click.option("--finish", type=click.Choice(["kexec", "reboot", "poweroff"]), help="How a written machine goes on.")
@click.option("--disk", metavar="RULE", help="Which disk is written, e.g. serial=S3Z9 or pick=smallest,bus=nvme.")
@click.option("--at", metavar="TIME", help="Not now: 02:00, +2h, 2027-01-31T02:00. Makes a job, see: help rolling.")
@click.option("--batch", type=int, metavar="N", help="So many at a time; the next when one is up. Makes a job.")
@click.option("--drain", is_flag=True, help="Have the scheduler drain them first, and give them back. Makes a job.")
@click.option("--max-failed", "failures", type=int, metavar="N", help="More failed nodes than that stop the job.")
@click.option("--no-power", is_flag=True, help="Let the job restart nobody, even those that have a BMC.")
@click.option("--preview", "--dry-run", "preview", is_flag=True, help="Only show what would be erased.")
@click.option("--expect", metavar="DIGEST", help="Only if exactly this preview still holds (the head's API tells it).")
@YES
@JSON
@click.pass_obj
def install(
    site: Site,
    /,
    nodes: tuple[str, ...],
    all_: bool,
    at: str | None,
    batch: int | None,
    drain: bool,
    failures: int | None,
    no_power: bool,
    preview: bool,
    expect: str | None,
    yes: bool,
    json_: bool,
    **choice: str | None,
) -> None:
    """Order an installation. The node's disk is erased once, the next time it boots from the network."""
    refs = which(nodes, all_)
    if at or batch is not None or drain:
        asked = {
            **refs,
            **choice,
            "at": at,
            "batch": batch,
            "drain": drain,
            "failures": failures,
            "power": not no_power,
        }
        return _job(site, asked, preview, expect, yes, json_)
    if failures is not None or no_power:
        raise Wrong("--max-failed and --no-power are about a job", "say --at, --batch or --drain with them")
    plan = site.client.post("nodes", "install", **refs, **choice, preview=True)
    if preview and json_:
        return show.as_json(plan["nodes"])
    if not json_:
        job.erased(plan["nodes"])
    if preview:
        return None
    if not yes:
        count = len(plan["nodes"])
        show.ask("Erase the disk as shown?" if count == 1 else f"Erase the disks of {count} nodes as shown?", yes)
    rows = site.client.post("nodes", "install", **refs, **choice, expect=expect or plan["digest"])["nodes"]
    if json_:
        return show.as_json(rows)
    print(f"{len(rows)} ordered; switch them on, or watch those that wait: gild.pyz watch")
    return None


def _job(site: Site, asked: dict[str, Any], preview: bool, expect: str | None, yes: bool, json_: bool) -> None:
    """The same as a job, which begins later or goes by batches."""
    shown = site.client.post("jobs", **asked)
    if preview and json_:
        return show.as_json(shown)
    if not json_:
        job.preview(shown)
    if preview:
        return None
    job.agree(shown, yes)
    made = site.client.post("jobs", **asked, expect=expect or shown["digest"])
    if json_:
        return show.as_json(made)
    print(f"job {made['job']}: {len(made['nodes'])} nodes; follow it: gild.pyz job show {made['job']}")
    return None


@click.command("cancel")
@click.argument("nodes", nargs=-1)
@ALL
@click.pass_obj
def cancel(site: Site, /, nodes: tuple[str, ...], all_: bool) -> None:
    """Take orders back. An installation that already writes stops at its next safe point."""
    rows = site.client.post("nodes", "cancel", **which(nodes, all_))
    print(f"{len(rows)} cancelled")
