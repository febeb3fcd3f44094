"""gild watch"""

from __future__ import annotations

import json
import threading
import time
from typing import Any

import click

from appliance.cli import show
from appliance.cli.client import Client
from appliance.cli.main import Site
from appliance.cli.watching import Rates, View, picture, shown
from images.errors import GildError

TICK = 0.5  # seconds between two pictures: twice a second costs 5 % of a core (measured), four times twice that


@click.command("watch")
@click.argument("nodes", nargs=-1)
@click.option("--json", "json_", is_flag=True, help="One JSON line an event, for scripts.")
@click.option("--once", is_flag=True, help="Show it once and end.")
@click.option("--plain", is_flag=True, help="A line a change, as where there is no terminal.")
@click.pass_obj
def command(site: Site, /, nodes: tuple[str, ...], json_: bool, once: bool, plain: bool) -> None:
    """All nodes, or NODES, live with their progress.

    It only looks: q or Ctrl-C ends it and stops nothing. ? tells the keys.
    """
    refs = list(nodes) or None
    if json_:
        return _lines(site.client, refs, plain=False)
    from rich.console import Console

    console = Console(highlight=False, emoji=False)
    if once or plain or not console.is_terminal or console.is_dumb_terminal:
        rows, news = site.client.get("nodes", refs=refs), site.client.get("changes", cursor=0)["events"]
        size = (console.width, console.height) if console.is_terminal else (200, len(rows) + 20)
        view, clock = View(everybody=True), show.clock(time.time())
        console.print(picture(site.client.get("status"), rows, Rates(), news, view, *size, clock))
        return None if once else _lines(site.client, refs, plain=True)
    return _live(site.client, refs, console)


class _Feed:
    """What the head says, asked for in a thread of its own, so that keys never wait for the network."""

    def __init__(self, client: Client, refs: list[str] | None) -> None:
        self.status: dict[str, Any] = client.get("status")
        self.rows: list[dict[str, Any]] = client.get("nodes", refs=refs)
        self.events: list[dict[str, Any]] = []
        self.page: list[dict[str, Any]] = []
        self.chosen = 0  # the node whose timeline is wanted
        self.error: GildError | None = None
        self._client, self._refs = client, refs
        self._thread = threading.Thread(target=self._run, daemon=True)  # it may stand in a question of a second
        self._thread.start()

    def _run(self) -> None:
        cursor = 0
        while self.error is None:
            try:
                news = self._client.get("changes", cursor=cursor, wait=1)
                cursor = news["cursor"]
                wanted = {row["id"] for row in self.rows}
                fresh = [event for event in news["events"] if event["node_id"] in wanted and event["level"] != "log"]
                self.events = [*self.events, *fresh][-20:]
                self.rows = self._client.get("nodes", refs=self._refs)
                self.status = self._client.get("status")
                if self.chosen:
                    self.page = self._client.get("nodes", str(self.chosen), "log")
            except GildError as error:
                self.error = error


def _live(client: Client, refs: list[str] | None, console: Any) -> None:
    from rich.live import Live

    from appliance.cli.keyboard import Keyboard

    feed, rates, view = _Feed(client, refs), Rates(), View()

    def drawn() -> Any:
        events = feed.page if view.page in ("timeline", "log") else feed.events
        size = console.size
        return picture(feed.status, feed.rows, rates, events, view, size.width, size.height, show.clock(time.time()))

    with Keyboard() as keyboard, Live(drawn(), console=console, auto_refresh=False, screen=True) as live:
        while feed.error is None:
            for key in keyboard.keys(TICK):
                after = view.key(key, [row["id"] for row in shown(feed.rows, view)[0]])
                if after is None:
                    return
                if after.page and not view.page:
                    feed.page = client.get("nodes", str(after.chosen), "log") if after.chosen else []
                view = after
            feed.chosen = view.chosen if view.page in ("timeline", "log") else 0
            rates.hear(feed.rows, time.monotonic())
            live.update(drawn(), refresh=True)
    raise feed.error


def _lines(client: Client, refs: list[str] | None, *, plain: bool) -> None:
    cursor = 0
    while True:
        news = client.get("changes", cursor=cursor, wait=25)
        cursor = news["cursor"]
        wanted = {row["id"] for row in client.get("nodes", refs=refs)} if refs and news["events"] else set()
        for event in news["events"]:
            if refs and event["node_id"] not in wanted:
                continue
            if plain:
                print(f"{show.clock(event['at'])}  {event['node']}: {show.safe(event['text'])}", flush=True)
            else:
                print(json.dumps(event, ensure_ascii=False), flush=True)
