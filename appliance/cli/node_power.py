"""gild node power, wake: machines switched from here."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import click

from appliance.cli import show
from appliance.cli.main import Site
from appliance.cli.selecting import JSON, YES
from appliance.errors import Wrong

ACTS = ("status", "on", "off", "soft", "cycle", "reset")
# What is asked before an act that a running system does not survive.
QUESTIONS = {
    "off": "Switch {} off, as if the plug were pulled?",
    "soft": "Ask the system of {} to end, and switch off?",
    "cycle": "Switch {} off and on again, as if the plug were pulled?",
    "reset": "Reset {}?",
}
WAIT = 20  # seconds one question for news is held back by the head


@click.command("power")
@click.argument("act", type=click.Choice(ACTS))
@click.argument("nodes", nargs=-1, required=True)
@YES
@JSON
@click.pass_obj
def power(site: Site, /, act: str, nodes: tuple[str, ...], yes: bool, json_: bool) -> None:
    """Switch nodes on and off by their BMCs, or show what these say.

    A node without a BMC can be switched on if it listens to Wake-on-LAN. One with an open order is told to
    boot from the network once. Whether it really boots is told by its packets: gild.pyz node log NODE.
    """
    if act in QUESTIONS:
        rows = site.client.get("nodes", refs=list(nodes))
        names = rows[0]["name"] or f"#{rows[0]['id']}" if len(rows) == 1 else f"{len(rows)} nodes"
        if not json_ and len(rows) > 1:
            print(", ".join(row["name"] or f"#{row['id']}" for row in rows))
        show.ask(QUESTIONS[act].format(names), yes)
    told(site, act, nodes, json_)


@click.command("wake")
@click.argument("nodes", nargs=-1, required=True)
@click.option("--broadcast", multiple=True, metavar="IP", help="A broadcast address to send to as well; repeatable.")
@JSON
@click.pass_obj
def wake(site: Site, /, nodes: tuple[str, ...], broadcast: tuple[str, ...], json_: bool) -> None:
    """Wake nodes by Wake-on-LAN, on every interface of this head.

    A machine behind a router hears the broadcast of its own network (--broadcast 10.2.255.255), if the
    router lets it in.
    """
    told(site, "wake", nodes, json_, broadcasts=list(broadcast))


def told(site: Site, act: str, nodes: Sequence[str], json_: bool, **more: Any) -> None:
    """Begin a command and show what comes of it, line by line. Raises Wrong if it failed for anybody."""
    begun = site.client.post("power", act=act, refs=list(nodes), **more)
    rows: list[dict[str, Any]] = []
    done = False
    while not done:
        answer = site.client.get("power", str(begun["id"]), have=len(rows), wait=WAIT)
        done = answer["done"]
        rows += answer["rows"]
        for row in [] if json_ else answer["rows"]:
            print(_line(act, row), flush=True)
    if json_:
        show.as_json(rows)
    failed = [row for row in rows if row["error"]]
    if failed:
        raise Wrong(
            f"{len(failed)} of {begun['nodes']} did not do it: {', '.join(row['node'] for row in failed[:10])}",
            failed[0]["hint"],
        )
    if act in ("on", "cycle", "reset", "wake") and not json_:
        print("each should ask for an address within minutes; who does not is named on its timeline: gild.pyz watch")


def _line(act: str, row: dict[str, Any]) -> str:
    words = [row["error"], row["about"], *row["remarks"]]
    state = "failed" if row["error"] else row["power"] if row["by"] != "wake" else "sent"
    return show.plain(f"{row['node']:<16} {state:<8} {'; '.join(word for word in words if word)}").rstrip()
