"""gild job"""

from __future__ import annotations

from typing import Any

import click

from appliance.cli import show
from appliance.cli.main import Noun, Site
from appliance.cli.selecting import JSON, YES
from appliance.errors import Wrong

COLOURS = {"done": "green", "failed": "red", "left out": "yellow", "installing": "cyan", "ordered": "cyan"}


@click.group("job", cls=Noun)
def command() -> None:
    """Rolling reinstalls: look at them, stop them.

    They are made by node install with --at, --batch or --drain. See: help rolling.
    """


@command.command("list")
@JSON
@click.pass_obj
def list_(site: Site, /, json_: bool) -> None:
    """All jobs, the newest first."""
    rows = site.client.get("jobs")
    if json_:
        return show.as_json(rows)
    return show.table(
        ["job", "is", "from", "nodes", "at a time", "image", "so far"],
        [
            [str(row["id"]), row["word"], show.clock(row["at"]), str(row["nodes"]), str(row["batch"]),
             ", ".join(row["images"]), _counts(row)]
            for row in rows
        ],
        "no job yet: gild.pyz node install NODES --at 02:00 --batch 8 --drain",
    )  # fmt: skip


def _counts(row: dict[str, Any]) -> str:
    return ", ".join(f"{count} {phase}" for phase, count in row["counts"].items())


@command.command("show")
@click.argument("number", type=int)
@JSON
@click.pass_obj
def show_(site: Site, /, number: int, json_: bool) -> None:
    """One job, and how far each of its nodes is."""
    row = site.client.get("jobs", str(number))
    if json_:
        return show.as_json(row)
    drains = "drained by the scheduler first; " if row["drain"] else ""
    power = "those with a BMC are restarted" if row["power"] else "nobody is restarted"
    show.facts([
        ("job", f"{row['id']}, {row['word']}" + (f": {show.safe(row['why'])}" if row["why"] else "")),
        ("from", show.clock(row["at"])),
        ("how", f"{row['batch']} at a time; {drains}{power}"),
        ("stops", f"once more than {row['failures']} nodes have failed"),
        ("so far", _counts(row)),
    ])  # fmt: skip
    return show.table(
        ["node", "is", "disk", "why"],
        [
            [member["node"], _phase(member["phase"]), show.safe(member["disk"]), show.safe(member["why"])]
            for member in row["members"]
        ],
        "no node",
    )  # fmt: skip


def _phase(phase: str) -> str:
    return f"[{COLOURS[phase]}]{phase}[/]" if phase in COLOURS else phase


@command.command("stop")
@click.argument("number", type=int)
@click.pass_obj
def stop(site: Site, /, number: int) -> None:
    """Begin no more nodes. What is being written goes on."""
    row = site.client.post("jobs", str(number), "stop")
    left = f"; {row['active']} nodes go on to their end" if row["active"] else ""
    print(f"job {number} {row['word']}{left}")


@command.command("retry")
@click.argument("number", type=int)
@YES
@click.pass_obj
def retry(site: Site, /, number: int, yes: bool) -> None:
    """A new job for the nodes of an old one that are not done."""
    shown = site.client.post("jobs", str(number), "retry")
    preview(shown)
    agree(shown, yes)
    made = site.client.post("jobs", str(number), "retry", expect=shown["digest"])
    print(f"job {made['job']}: {len(made['nodes'])} nodes")


def erased(rows: list[dict[str, Any]]) -> None:
    """Whose disks would be erased."""
    show.table(
        ["node", "image", "disk to be erased", "what is on it"],
        [
            [row["node"], row["image"], show.safe(row["disk"]), show.safe(row["content"])]
            for row in rows
        ],
        "no node to install",
    )  # fmt: skip


def preview(shown: dict[str, Any]) -> None:
    """What a job would erase, and how."""
    erased(shown["nodes"])
    begins = show.clock(shown["at"]) if shown["at"] else "now"
    print(f"begins {begins}, {shown['batch']} at a time; stops once more than {shown['failures']} have failed")
    if shown["by_hand"]:
        names = ", ".join(shown["by_hand"][:10]) + (" ..." if len(shown["by_hand"]) > 10 else "")
        print(f"no BMC, restart these yourself within an hour of their turn: {names}")


def agree(shown: dict[str, Any], yes: bool) -> None:
    """Ask, unless `yes`. Raises Wrong if there is nothing to ask about, and what show.ask raises."""
    count = len(shown["nodes"])
    if not count:
        raise Wrong("no node to install", "name them: gild.pyz node install NODES")
    if not yes:
        show.ask(f"Erase the disk{'s' if count > 1 else ''} of {count} node{'s' if count > 1 else ''} as shown?", yes)
