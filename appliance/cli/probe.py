"""gild probe: who is on a wire before anything is served there."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import closing
from dataclasses import asdict
from typing import TYPE_CHECKING

import click

from appliance.cli import show
from appliance.cli.main import Noun
from appliance.sightings import Frame, Machine, Machines

if TYPE_CHECKING:
    from rich.table import Table

INTERFACE = click.option("--interface", required=True, metavar="NAME", help="Network interface to look at.")


@click.group("probe", cls=Noun)
def command() -> None:
    """Which DHCP servers answer on a wire, which machines ask."""


@command.command("dhcp")
@INTERFACE
@click.option("--seconds", type=click.FloatRange(1, 60), default=5, show_default=True, help="How long to wait.")
@click.option("--json", "json_", is_flag=True, help="For scripts.")
def dhcp(interface: str, seconds: float, json_: bool) -> None:
    """List the DHCP servers that answer on a wire.

    It asks as a machine that boots from the network would, and once more in case that was lost. No address is taken.
    """
    from appliance.probing import ask

    found = ask(interface, seconds)
    if json_:
        return show.as_json([asdict(server) for server in found])
    return show.table(
        ["server", "MAC", "what", "offers", "boot file", "from"],
        [
            [
                server.server_id + (f" (from {server.source})" if server.source != server.server_id else ""),
                server.mac,
                {"addresses": "addresses", "boot": "boot files only (proxyDHCP)"}.get(server.kind, server.kind),
                server.offered,
                show.safe(server.boot_file),
                show.safe(server.next_server),
            ]
            for server in found
        ],
        f"no DHCP server answers on {interface}",
    )


@command.command("listen")
@INTERFACE
@click.option("--seconds", type=click.FloatRange(1, 86400), help="How long; without it until Ctrl-C.")
@click.option("--json", "json_", is_flag=True, help="One JSON line a request, as they come.")
def listen(interface: str, seconds: float | None, json_: bool) -> None:
    """List the machines that ask for an address on a wire. Nothing is sent."""
    from appliance.probing import frames

    machines = Machines()
    with closing(frames(interface, "requests", seconds=seconds or 0)) as seen:
        if json_:
            for frame in seen:
                machine = machines.saw(frame) if frame is not None else None
                if machine is not None:
                    print(json.dumps(machine.row()), flush=True)
            return
        _live(interface, machines, seen)


def _live(interface: str, machines: Machines, seen: Iterator[Frame | None]) -> None:
    """A table that grows on a terminal; elsewhere a line for each new machine and the table at the end."""
    from rich.console import Console
    from rich.live import Live

    console = Console(highlight=False, emoji=False)
    if console.is_terminal:
        try:
            with Live(picture(machines, console.height), console=console, auto_refresh=False) as live:
                for frame in seen:
                    if frame is not None:
                        machines.saw(frame)
                    else:
                        live.update(picture(machines, console.height), refresh=True)
        except KeyboardInterrupt:
            pass  # the way it is meant to end; the last table stays on the screen
        return
    print(f"listening on {interface}", flush=True)
    for frame in seen:
        before = len(machines.known)
        machine = machines.saw(frame) if frame is not None else None
        if machine is not None and len(machines.known) > before:
            print(f"{show.clock(machine.first)}  {machine.mac}  {machine.firmware}  {machine.vendor}", flush=True)
    print(f"{len(machines.known)} machines")


def picture(machines: Machines, height: int) -> Table:
    """The table of machines, the latest first, cut to `height` lines."""
    rows = sorted(machines.known.values(), key=lambda machine: -machine.last)
    room = max(3, height - 4)
    table = show.grid(
        ["MAC", "boots by", "vendor class", "host name", "UUID", "first", "last", "asked"],
        list(map(_cells, rows[:room])),
    )
    more = [f"{len(rows) - room} more"] if len(rows) > room else []
    more += [f"{machines.left_out} requests of machines that did not fit"] if machines.left_out else []
    if more or not rows:
        table.caption = ", ".join(more) or "no machine has asked for anything yet; Ctrl-C ends it"
    return table


def _cells(machine: Machine) -> list[str]:
    return [
        machine.mac,
        machine.firmware,
        show.safe(machine.vendor),
        show.safe(machine.hostname),
        machine.uuid,
        show.clock(machine.first),
        show.clock(machine.last),
        str(machine.count),
    ]
