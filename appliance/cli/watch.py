"""gild watch"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import click

from appliance.cli import show
from appliance.cli.main import Site

if TYPE_CHECKING:
    from rich.console import RenderableType

BAR = 24  # characters


@click.command("watch")
@click.option("--json", "json_", is_flag=True, help="One JSON line an event, for scripts.")
@click.option("--once", is_flag=True, help="Show it once and end.")
@click.pass_obj
def command(site: Site, /, json_: bool, once: bool) -> None:
    """All nodes, live, with their progress. It only looks; Ctrl-C ends it and stops nothing."""
    client = site.client
    if json_:
        return _lines(site)
    from rich.console import Console
    from rich.live import Live

    console = Console(highlight=False, emoji=False)
    rows = client.get("nodes")
    if once or not console.is_terminal:
        console.print(picture(rows, console.height))
        return None if once else _lines(site, plain=True)
    with Live(picture(rows, console.height), console=console, refresh_per_second=2, screen=False) as live:
        cursor = 0
        while True:
            # Wakes at once when anything changes, and at least every second for the clocks in the table.
            cursor = client.get("changes", cursor=cursor, wait=1)["cursor"]
            live.update(picture(client.get("nodes"), console.height))


def picture(rows: list[dict[str, Any]], height: int) -> RenderableType:
    """The table of nodes, those that need somebody or move first, cut to `height` lines."""
    order = {"failed": 0, "installing": 1, "waiting": 2, "lost": 3, "installed": 4, "ready": 5, "up": 6}
    rows = sorted(rows, key=lambda row: (order.get(row["state"], 9), row["name"] or "", row["id"]))
    room = max(3, height - 4)
    cells = [
        [
            show.safe(row["name"] or f"#{row['id']}"),
            show.state(row["state"]),
            row["address"],
            show.safe(row["image"] or row["wanted"] or ""),
            _progress(row),
            show.ago(row["since_seconds"]),
        ]
        for row in rows[:room]
    ]
    table = show.grid(["node", "state", "address", "image", "", "since"], cells)
    if len(rows) > room:
        table.caption = f"and {len(rows) - room} more: gild.pyz node list"
    if not rows:
        table.caption = "no machine has asked for anything yet"
    return table


def _progress(row: dict[str, Any]) -> str:
    if row["state"] != "installing":
        return show.safe(row["reason"] or "")
    if not row["total"]:
        return show.safe(row["phase"])
    share = min(1.0, row["done"] / row["total"])
    full = round(share * BAR)
    return (
        f"{show.safe(row['phase'])} [blue]{'█' * full}[/]{'░' * (BAR - full)} {share:4.0%} of {show.size(row['total'])}"
    )


def _lines(site: Site, /, *, plain: bool = False) -> None:
    import json

    cursor = 0
    while True:
        news = site.client.get("changes", cursor=cursor, wait=25)
        cursor = news["cursor"]
        for event in news["events"]:
            if plain:
                print(f"{show.clock(event['at'])}  {event['node']}: {show.safe(event['text'])}", flush=True)
            else:
                print(json.dumps(event, ensure_ascii=False), flush=True)
        sys.stdout.flush()
