"""gild node"""

from __future__ import annotations

from typing import Any

import click

from appliance.cli import show
from appliance.cli.client import Client
from appliance.cli.main import Noun, Site
from appliance.errors import Wrong

_JSON = click.option("--json", "json_", is_flag=True, help="For scripts.")
_ALL = click.option("--all", "all_", is_flag=True, help="Every node the verb can apply to.")
_YES = click.option("--yes", is_flag=True, help="Do not ask.")


@click.group("node", cls=Noun)
def command() -> None:
    """Machines: see, approve, install, follow."""


def _which(nodes: tuple[str, ...], all_: bool) -> dict[str, Any]:
    if bool(nodes) == all_:
        raise Wrong("name the nodes, or say --all", "see: gild.pyz node list")
    return {"refs": list(nodes), "all": all_}


@command.command("list")
@_JSON
@click.option("-q", "quiet", is_flag=True, help="Names only.")
@click.pass_obj
def list_(site: Site, /, json_: bool, quiet: bool) -> None:
    """Every machine that asked for anything."""
    rows = site.client.get("nodes")
    if json_:
        return show.as_json(rows)
    if quiet:
        for row in rows:
            print(row["name"] or row["mac"])
        return None
    return show.table(
        ["node", "state", "address", "machine", "image", "profile", "since"],
        [
            [
                show.safe(row["name"] or f"#{row['id']}"),
                show.state(row["state"]) + (f" {show.safe(row['reason'])}" if row["reason"] else ""),
                row["address"],
                show.safe(row["machine"] or row["mac"]),
                show.safe(row["image"]),
                show.safe(row["profile"]),
                show.ago(row["since_seconds"]),
            ]
            for row in rows
        ],
        "no machine has asked for anything yet; switch one on with network boot first in its boot order",
    )


@command.command("show")
@click.argument("node")
@_JSON
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
            ("address", row["address"]),
            ("mac", ", ".join(row["macs"])),
            ("machine", show.safe(f"{facts.get('vendor', '')} {facts.get('product', '')}".strip())),
            ("serial", show.safe(facts.get("serial", ""))),
            ("uuid", show.safe(row["uuid"] or "")),
            ("firmware", show.safe(row["firmware"] or "") + (", Secure Boot on" if facts.get("secure_boot") else "")),
            ("processor", show.safe(f"{facts.get('cpu', '')}, {facts.get('cores', 0)} cores") if facts else ""),
            ("memory", show.size(facts.get("memory", 0)) if facts else ""),
            ("profile", show.safe(row["profile"])),
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
    _timeline(row.get("timeline", []))
    return None


@command.command("log")
@click.argument("node")
@click.option("--after", type=int, default=0, metavar="N", help="Only events after number N.")
@click.option("--follow", "-f", is_flag=True, help="Go on as events come.")
@_JSON
@click.pass_obj
def log(site: Site, /, node: str, after: int, follow: bool, json_: bool) -> None:
    """Every event of a machine. From its first packet to now, with the installer's own log."""
    client = site.client
    events = client.get("nodes", node, "log", after=after)
    if json_ and not follow:
        return show.as_json(events)
    while True:
        _timeline(events)
        if not follow:
            return None
        after = max([after, *(event["id"] for event in events)])
        events = client.get("nodes", node, "log", after=after, wait=25)


def _timeline(events: list[dict[str, Any]]) -> None:
    from rich.console import Console

    console = Console(highlight=False, emoji=False, soft_wrap=True)
    colours = {"bad": "red", "warn": "yellow", "good": "green", "log": "bright_black"}
    for event in events:
        colour = colours.get(event["level"])
        text = show.safe(event["text"])
        console.print(f"{show.clock(event['at'])}  " + (f"[{colour}]{text}[/]" if colour else text))


@command.command("approve")
@click.argument("nodes", nargs=-1)
@_ALL
@click.option("--profile", default="default", show_default=True, help="What kind of node they become.")
@click.option("--name", "names", metavar="NAME", help="A name for one, or a pattern such as node{n:02} for many.")
@_JSON
@click.pass_obj
def approve(site: Site, /, nodes: tuple[str, ...], all_: bool, profile: str, names: str | None, json_: bool) -> None:
    """Let machines out of the waiting room. They get a name and an address of their own."""
    rows = site.client.post("nodes", "approve", **_which(nodes, all_), profile=profile, names=names)
    if json_:
        return show.as_json(rows)
    return show.table(
        ["node", "mac", "address", "profile"],
        [[row["name"], row["mac"], row["address"], row["profile"]] for row in rows],
        "nobody is in the waiting room",
    )


@command.command("install")
@click.argument("nodes", nargs=-1)
@_ALL
@click.option("--image", metavar="REF", help="NAME or NAME:NUMBER, instead of the profile's.")
@click.option("--finish", type=click.Choice(["kexec", "reboot", "poweroff"]), help="How a written machine goes on.")
@click.option("--disk", metavar="RULE", help="Which disk is written, e.g. serial=S3Z9 or pick=smallest,bus=nvme.")
@click.option("--preview", is_flag=True, help="Only show what would be erased.")
@_YES
@_JSON
@click.pass_obj
def install(
    site: Site, /, nodes: tuple[str, ...], all_: bool, preview: bool, yes: bool, json_: bool, **choice: str | None
) -> None:
    """Order an installation. The node's disk is erased once, the next time it boots from the network."""
    which = _which(nodes, all_)
    plan = site.client.post("nodes", "install", **which, **choice, preview=True)
    if not json_ or preview:
        _preview(plan["nodes"], json_)
    if preview:
        return None
    if not yes:
        count = len(plan["nodes"])
        show.ask("Erase the disk as shown?" if count == 1 else f"Erase the disks of {count} nodes as shown?", yes)
    rows = site.client.post("nodes", "install", **which, **choice, expect=plan["digest"])["nodes"]
    if json_:
        return show.as_json(rows)
    print(f"{len(rows)} ordered; switch them on, or watch those that wait: gild.pyz watch")
    return None


@command.command("capture")
@click.argument("node")
@click.option("--image", metavar="NAME", required=True, help="The image that gets a new version.")
@click.option("--message", "-m", default="", help="What is new in this version.")
@click.option("--disk", metavar="RULE", help="Which disk is read, instead of the profile's rule.")
@click.option("--preview", is_flag=True, help="Only show what would be read.")
@click.option("--wait", is_flag=True, help="Stay until the version is there.")
@_YES
@_JSON
@click.pass_obj
def capture(site: Site, /, node: str, preview: bool, wait: bool, yes: bool, json_: bool, **choice: str | None) -> None:
    """Read a golden client's disk for a new version. It boots the installer once; nothing on it is written."""
    row = site.client.post("nodes", "capture", ref=node, preview=True, **choice)
    if not json_ or preview:
        if json_:
            return show.as_json(row)
        show.facts([("node", row["node"]), ("becomes", row["image"]), ("disk to be read", show.safe(row["disk"])),
                    ("what is on it", show.safe(row["content"]))])  # fmt: skip
    if preview:
        return None
    show.ask("Read the disk as shown?", yes)
    last = max([0, *(event["id"] for event in site.client.get("nodes", node, "log"))])
    row = site.client.post("nodes", "capture", ref=node, **choice)
    if wait:
        _captured(site.client, node, last)
    if json_:
        return show.as_json(row)
    if not wait:
        print(f"{row['node']} is ordered; switch it on, or restart it: gild.pyz node log {row['node']} -f")
    return None


def _captured(client: Client, node: str, after: int) -> None:
    """Show the timeline until the capture is over. Raises Wrong if it came to nothing."""
    while True:
        events = client.get("nodes", node, "log", after=after, wait=25)
        _timeline(events)
        after = max([after, *(event["id"] for event in events)])
        for event in events:
            if event["text"].startswith("captured as "):
                return
            if event["text"].startswith(("not captured: ", "its capture was taken back", "its order expired")):
                raise Wrong(f"{node}: {event['text']}")


def _preview(rows: list[dict[str, Any]], json_: bool) -> None:
    if json_:
        return show.as_json(rows)
    return show.table(
        ["node", "image", "disk to be erased", "what is on it"],
        [
            [row["node"], row["image"], show.safe(row["disk"]), show.safe(row["content"])]
            for row in rows
        ],
        "no node to install",
    )  # fmt: skip


@command.command("set")
@click.argument("node")
@click.option("--profile", help="Another profile.")
@click.option("--name", help="Another name.")
@click.option("--address", metavar="IP", help="Another address, from the next boot on.")
@click.option("--loader", type=click.Choice(["auto", "secure"]), help="secure: signed shim and GRUB (Secure Boot).")
@click.pass_obj
def set_(site: Site, /, node: str, **fields: str | None) -> None:
    """Change what is wanted of a node."""
    if not any(fields.values()):
        raise Wrong(f"nothing to change on {node}", "see: gild.pyz node set --help")
    row = site.client.post("nodes", node, "set", **fields)
    print(f"{row['name']} is set")


@command.command("cancel")
@click.argument("nodes", nargs=-1)
@_ALL
@click.pass_obj
def cancel(site: Site, /, nodes: tuple[str, ...], all_: bool) -> None:
    """Take orders back. An installation that already writes stops at its next safe point."""
    rows = site.client.post("nodes", "cancel", **_which(nodes, all_))
    print(f"{len(rows)} cancelled")


@command.command("rm")
@click.argument("nodes", nargs=-1, required=True)
@_YES
@click.pass_obj
def rm(site: Site, /, nodes: tuple[str, ...], yes: bool) -> None:
    """Forget machines: name, address, host keys, timeline. Their disks are not touched."""
    show.ask(f"Forget {', '.join(nodes)}?", yes)
    for node in nodes:
        site.client.post("nodes", node, "remove")
    print(f"{len(nodes)} forgotten")
