"""gild node capture: a golden client's disk becomes a version of an image."""

from __future__ import annotations

import click

from appliance.cli import show
from appliance.cli.client import Client
from appliance.cli.main import Site
from appliance.cli.node_show import timeline
from appliance.cli.selecting import JSON, YES
from appliance.errors import Wrong


@click.command("capture")
@click.argument("node")
@click.option("--image", metavar="NAME", required=True, help="The image that gets a new version.")
@click.option("--message", "-m", default="", help="What is new in this version.")
@click.option("--disk", metavar="RULE", help="Which disk is read, instead of the profile's rule.")
@click.option("--preview", "--dry-run", "preview", is_flag=True, help="Only show what would be read.")
@click.option("--wait", is_flag=True, help="Stay until the version is there.")
@YES
@JSON
@click.pass_obj
def command(site: Site, /, node: str, preview: bool, wait: bool, yes: bool, json_: bool, **choice: str | None) -> None:
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
        timeline(events)
        after = max([after, *(event["id"] for event in events)])
        for event in events:
            if event["text"].startswith("captured as "):
                return
            if event["text"].startswith(("not captured: ", "its capture was taken back", "its order expired")):
                raise Wrong(f"{node}: {event['text']}")
