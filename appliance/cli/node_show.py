"""gild node list, show, log: what is known of machines."""

from __future__ import annotations

import json
from typing import Any

import click

from appliance.cli import show
from appliance.cli.main import Site
from appliance.cli.selecting import JSON


@click.command("list")
@click.argument("nodes", nargs=-1)
@JSON
@click.option("-q", "quiet", is_flag=True, help="Names only.")
@click.option("--csv", "csv_", is_flag=True, help="All approved nodes, as node load takes them.")
@click.pass_obj
def list_(site: Site, /, nodes: tuple[str, ...], json_: bool, quiet: bool, csv_: bool) -> None:
    """Every machine that asked for anything, or those named."""
    if csv_:
        print(site.client.get("declared", "list")["text"], end="")
        return None
    rows = site.client.get("nodes", refs=list(nodes) or None)
    if json_:
        return show.as_json(rows)
    if quiet:
        for row in rows:
            print(row["name"] or row["mac"])
        return None
    show.table(
        ["node", "state", "address", "machine", "image", "profile", "since"],
        [
            [
                show.safe(row["name"] or f"#{row['id']}"),
                show.state(row["state"]) + (f" {show.safe(row['reason'])}" if row["reason"] else ""),
                row["address"],
                show.safe(row["machine"] or f"{row['mac']} {row['maker']}".strip()),
                show.safe(row["image"]),
                show.safe(row["profile"]),
                show.ago(row["since_seconds"]),
            ]
            for row in rows
        ],
        "no machine has asked for anything yet; switch one on with network boot first in its boot order",
    )
    for row in rows:
        if row["conflict"]:
            print(f"! #{row['id']} {show.plain(row['conflict'])}")
            print(f"  is it that node: gild.pyz node same {row['id']} NODE")
            print(f"  or another machine: gild.pyz node other {row['id']}")
    return None


@click.command("show")
@click.argument("node")
@JSON
@click.pass_obj
def show_(site: Site, /, node: str, json_: bool) -> None:
    """One machine: hardware, disks, order, timeline."""
    row = site.client.get("nodes", node)
    if json_:
        return show.as_json(row)
    facts = row.get("facts") or {}
    show.facts(
        [
            ("node", show.safe(row["name"] or f"#{row['id']} (not approved)")),
            ("state", show.state(row["state"]) + (f": {show.safe(row['reason'])}" if row["reason"] else "")),
            ("conflict", show.safe(row["conflict"])),
            ("address", row["address"]),
            ("mac", ", ".join(row["macs"]) + (f" ({row['maker']})" if row["maker"] else "")),
            ("machine", show.safe(f"{facts.get('vendor', '')} {facts.get('product', '')}".strip())),
            ("serial", show.safe(facts.get("serial", ""))),
            ("uuid", show.safe(row["uuid"] or "")),
            ("switch port", show.safe(", ".join(row["ports"]))),
            ("relay", show.safe(row["relay"])),
            ("firmware", show.safe(row["firmware"] or "") + (", Secure Boot on" if facts.get("secure_boot") else "")),
            ("processor", show.safe(f"{facts.get('cpu', '')}, {facts.get('cores', 0)} cores") if facts else ""),
            ("memory", show.size(facts.get("memory", 0)) if facts else ""),
            ("profile", show.safe(row["profile"])),
            ("of its own", show.safe(", ".join(f"{key} {value}" for key, value in row["own"].items()))),
            ("groups", ", ".join(row["groups"])),
            ("image", show.safe(row["image"])),
            ("order", show.safe(row.get("order_text", ""))),
            ("predicted disk", show.safe(row.get("predicted_disk", ""))),
        ]
    )
    if facts.get("disks"):
        print()
        show.table(
            ["disk", "size", "model", "serial", "bus", "what is on it"],
            [
                [d["path"], show.size(d["size"]), show.safe(d["model"]), show.safe(d["serial"]), show.safe(d["bus"]),
                 show.safe(d["content"])]
                for d in facts["disks"]
            ],
            "",
        )  # fmt: skip
    print()
    timeline(row.get("timeline", []))
    return None


@click.command("log")
@click.argument("node")
@click.option("--after", type=int, default=0, metavar="N", help="Only events after number N.")
@click.option("--follow", "-f", is_flag=True, help="Go on as events come.")
@JSON
@click.pass_obj
def log(site: Site, /, node: str, after: int, follow: bool, json_: bool) -> None:
    """Every event of a machine. From its first packet to now, with the installer's own log."""
    client = site.client
    events = client.get("nodes", node, "log", after=after)
    if json_ and not follow:
        return show.as_json(events)
    while True:
        if json_:
            for event in events:
                print(json.dumps(event, ensure_ascii=True), flush=True)
        else:
            timeline(events)
        if not follow:
            return None
        after = max([after, *(event["id"] for event in events)])
        events = client.get("nodes", node, "log", after=after, wait=25)


def timeline(events: list[dict[str, Any]]) -> None:
    """Print lines of timelines."""
    from rich.console import Console

    console = Console(highlight=False, emoji=False, soft_wrap=True)
    colours = {"bad": "red", "warn": "yellow", "good": "green", "log": "bright_black"}
    for event in events:
        colour = colours.get(event["level"])
        text = show.safe(event["text"])
        console.print(f"{show.clock(event['at'])}  " + (f"[{colour}]{text}[/]" if colour else text))
