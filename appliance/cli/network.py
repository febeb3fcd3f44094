"""gild network"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import click

from appliance.cli import show
from appliance.cli.main import Noun, Site
from appliance.cli.selecting import JSON
from appliance.errors import Unknown


@click.group("network", cls=Noun)
def command() -> None:
    """Networks with nodes: more interfaces, relays, options.

    The network of serve --interface is called main. Others are added here and served at once.
    """


def _options(verb: Callable[..., Any]) -> Callable[..., Any]:
    """What add and set have in common."""
    for option in reversed((
        click.option("--range", metavar="FIRST-LAST", help="Addresses for nodes.  [default: without the first tenth]"),
        click.option("--router", metavar="ADDRESS", help="Default gateway told to nodes."),
        click.option("--dns", multiple=True, metavar="ADDRESS", help="Name server; repeatable.  [default: the head]"),
        click.option("--ntp", metavar="ADDRESS", help="Time server."),
        click.option("--mtu", type=int, metavar="BYTES", help="Largest packet on that network."),
        click.option("--route", "routes", multiple=True, metavar="ROUTE", help="NETWORK via ROUTER; repeatable."),
        click.option("--option", "options", multiple=True, metavar="N=KIND:VALUE",
                     help="DHCP option of your own: 150=ip:10.0.0.9; kinds: ip text hex u8 u16 u32; repeatable."),
        click.option("--lease", type=int, metavar="SECONDS", help="How long an address is kept unasked."),
    )):  # fmt: skip
        verb = option(verb)
    return verb


@command.command("list")
@JSON
@click.pass_obj
def list_(site: Site, /, json_: bool) -> None:
    """All networks, and how full they are."""
    rows = site.client.get("networks")
    if json_:
        return show.as_json(rows)
    show.table(
        ["network", "addresses", "where", "range", "in use", "free"],
        [
            [
                row["name"],
                row["network"],
                _where(row),
                f"{row['first']}-{row['last']}",
                str(row["leases"]),
                str(row["free"]),
            ]
            for row in rows
        ],
        "none",
    )
    for row in rows:
        if row["trouble"]:
            print(f"{row['name']} is not served: {show.safe(row['trouble'])}")
    return None


def _where(row: dict[str, Any]) -> str:
    return f"{row['interface']}, {row['head']}" if row["interface"] else f"behind a relay, router {row['router']}"


@command.command("show")
@click.argument("name")
@JSON
@click.pass_obj
def show_(site: Site, /, name: str, json_: bool) -> None:
    """Everything a network's machines are told."""
    row = next((row for row in site.client.get("networks") if row["name"] == name), None)
    if row is None:
        raise Unknown(f"there is no network {name[:40]!r}", "see: gild.pyz network list")
    if json_:
        return show.as_json(row)
    show.facts([
        ("network", f"{row['network']}, {_where(row)}"),
        ("range", f"{row['first']}-{row['last']}: {row['leases']} in use, {row['free']} free"),
        ("router", row["router"]),
        ("dns", ", ".join(row["dns"]) or row["head"]),
        ("ntp", row["ntp"]),
        ("mtu", str(row["mtu"] or "")),
        *(("route", route) for route in row["routes"]),
        *(("option", show.safe(option)) for option in row["options"]),
        ("lease", f"{row['lease']} s"),
        ("trouble", show.safe(row["trouble"])),
    ])  # fmt: skip
    return None


@command.command("add")
@click.argument("name")
@click.option("--interface", metavar="NAME", help="One this head is on: its own DHCP, TFTP, DNS and HTTP there.")
@click.option("--network", metavar="NET/BITS", help="One behind relays (ip helper-address, dhcrelay) that send here.")
@_options
@click.pass_obj
def add(site: Site, /, name: str, **given: Any) -> None:
    """One more network, served at once."""
    row = site.client.post("networks", name, "add", **_said(given))
    print(f"{name}: {row['network']}, nodes get {row['first']}-{row['last']}; {_where(row)}")


@command.command("set")
@click.argument("name")
@_options
@click.pass_obj
def set_(site: Site, /, name: str, **given: Any) -> None:
    """Change what its machines are told, from their next request on.

    A list that is given replaces the old one; --dns "" empties it.
    """
    row = site.client.post("networks", name, **_said(given))
    lost = f"; {len(row['lost'])} machines lose their address at their next request" if row["lost"] else ""
    print(f"{name}: changed{lost}")


@command.command("rm")
@click.argument("name")
@click.pass_obj
def rm(site: Site, /, name: str) -> None:
    """Serve it no more. Nodes with addresses there must be gone first."""
    site.client.post("networks", name, "remove")
    print(f"{name} is removed")


def _said(given: dict[str, Any]) -> dict[str, Any]:
    return {key: list(value) if isinstance(value, tuple) else value for key, value in given.items()
            if value is not None and value != ()}  # fmt: skip
