"""gild node bmc: the BMCs of nodes."""

from __future__ import annotations

import sys
from typing import IO

import click

from appliance.cli import show
from appliance.cli.main import Noun, Site
from appliance.cli.node_power import told
from appliance.cli.selecting import JSON
from appliance.errors import Wrong

NODES = click.argument("nodes", nargs=-1, required=True)
PRINT = click.option(
    "--fingerprint", metavar="SHA256", help="That of its certificate (Redfish); without it the first one seen is kept."
)


@click.group("bmc", cls=Noun)
def command() -> None:
    """BMCs: by what nodes are switched on and off."""


@command.command("set")
@NODES
@click.option("--kind", type=click.Choice(["ipmi", "redfish"]), required=True, help="The language it speaks.")
@click.option("--address", required=True, help="HOST, HOST:PORT or URL; for many nodes with {n} in it.")
@click.option("--user", required=True, help="An account on the BMC that may switch.")
@click.option(
    "--password-file",
    "file",
    type=click.File("r"),
    metavar="FILE",
    help="A file that holds it; - reads it from standard input.",
)
@PRINT
@click.pass_obj
def set_(
    site: Site, /, nodes: tuple[str, ...], kind: str, address: str, user: str, file: IO[str] | None,
    fingerprint: str | None,
) -> None:  # fmt: skip
    """Enter the BMCs of nodes. The password is typed unseen, or comes from a file.

    In the address of many {n} is the number at the end of a node's name: 10.0.1.{n} is 10.0.1.7 for node07,
    10.0.1.{n+100} is 10.0.1.107, and {name}-bmc is node07-bmc. The password is kept in the database of
    this head, which only root can read, and shown nowhere.
    """
    if file is not None:
        password = file.readline(1024).rstrip("\r\n")
    elif sys.stdin.isatty():
        password = str(click.prompt(f"password of {user}", hide_input=True))
    else:
        raise Wrong("where is the password?", "name a file: --password-file FILE, or - for standard input")
    rows = site.client.post(
        "bmcs", "set", refs=list(nodes), kind=kind, address=address, user=user, password=password,
        fingerprint=fingerprint,
    )  # fmt: skip
    for row in rows:
        print(f"{row['node']}: {row['kind']} at {row['address']}")
    print(f"try {'it' if len(rows) == 1 else 'them'}: gild.pyz node bmc test {' '.join(nodes)}")


@command.command("list")
@click.argument("nodes", nargs=-1)
@JSON
@click.pass_obj
def list_(site: Site, /, nodes: tuple[str, ...], json_: bool) -> None:
    """All BMCs, or those of nodes; without their passwords."""
    rows = site.client.get("bmcs", refs=list(nodes) or None)
    if json_:
        return show.as_json(rows)
    return show.table(
        ["node", "kind", "address", "user", "known by"],
        [[row["node"], row["kind"], row["address"], show.safe(row["user"]), _known(row)] for row in rows],
        "no node has a BMC here: gild.pyz node bmc set",
    )


@command.command("test")
@NODES
@JSON
@click.pass_obj
def test(site: Site, /, nodes: tuple[str, ...], json_: bool) -> None:
    """Ask BMCs what they are and whether their machine is on. Nothing is switched."""
    told(site, "test", nodes, json_)


@command.command("trust")
@NODES
@PRINT
@click.pass_obj
def trust(site: Site, /, nodes: tuple[str, ...], fingerprint: str | None) -> None:
    """Believe a BMC that has another certificate.

    It was replaced, or got a new one.
    """
    rows = site.client.post("bmcs", "trust", refs=list(nodes), fingerprint=fingerprint)
    for row in rows:
        print(f"{row['node']}: {_known(row) or 'the next certificate it shows is taken for its own'}")


@command.command("rm")
@NODES
@click.pass_obj
def rm(site: Site, /, nodes: tuple[str, ...]) -> None:
    """Forget BMCs and their passwords."""
    print(f"{', '.join(site.client.post('bmcs', 'remove', refs=list(nodes)))}: no BMC any more")


def _known(row: dict[str, str]) -> str:
    return f"sha256 {row['fingerprint'][:16]}…" if row["fingerprint"] else ""
