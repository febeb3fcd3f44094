"""gild node set, rm: what is wanted of nodes, and that they are forgotten."""

from __future__ import annotations

from typing import Any

import click

from appliance.cli import show
from appliance.cli.main import Site
from appliance.cli.selecting import YES
from appliance.errors import Wrong


@click.command("set")
@click.argument("nodes", nargs=-1, required=True)
@click.option("--profile", help="Another profile.")
@click.option("--name", help="Another name, for one node.")
@click.option("--address", metavar="IP", help="Another address, for one node.")
@click.option("--loader", type=click.Choice(["auto", "secure"]), help="secure: signed shim and GRUB (Secure Boot).")
@click.option(
    "--image", metavar="NAME", help="Another image than the profile's; '' for the profile's again (so with the others)."
)
@click.option("--cmdline", metavar="TEXT", help="Other kernel arguments of the installed system.")
@click.option("--disk", metavar="RULE", help="Another rule for the disk that is written.")
@click.option("--finish", metavar="HOW", help="How a written machine goes on: kexec, reboot or poweroff.")
@click.option("--verify", metavar="HOW", help="How much of the disk is read back: none, sample or full.")
@click.option("--group", multiple=True, metavar="GROUP", help="A group to join, named @GROUP from then on; repeatable.")
@click.option("--ungroup", multiple=True, metavar="GROUP", help="A group to leave; repeatable.")
@click.pass_obj
def set_(site: Site, /, nodes: tuple[str, ...], **fields: Any) -> None:
    """Change what is wanted of nodes."""
    said = {key: value for key, value in fields.items() if value or value == ""}
    given = {key: list(value) if isinstance(value, tuple) else value for key, value in said.items()}
    if not given:
        raise Wrong(f"nothing to change on {', '.join(nodes)}", "see: gild.pyz node set --help")
    rows = site.client.post("nodes", "set", refs=list(nodes), **given)
    print(f"{rows[0]['name']} is set" if len(rows) == 1 else f"{len(rows)} are set")
    if {"name", "address"} & given.keys() and rows[0]["state"] == "up":
        print(f"its running system does not know yet: gild.pyz node tell {rows[0]['name']}")


@click.command("same")
@click.argument("machine")
@click.argument("node")
@YES
@click.pass_obj
def same(site: Site, /, machine: str, node: str, yes: bool) -> None:
    """MACHINE, which waits, is NODE with another network card.

    The node keeps its name, address and history; its old card is forgotten.
    """
    show.ask(f"Is {machine} {node}, with another network card?", yes)
    row = site.client.post("nodes", "same", ref=machine, node=node)
    print(f"{row['name']} has the card {row['mac']} and the address {row['address']}")


@click.command("other")
@click.argument("machine")
@click.pass_obj
def other(site: Site, /, machine: str) -> None:
    """MACHINE, which waits, is not the node it looks like."""
    site.client.post("nodes", "other", ref=machine)
    print(f"{machine} is another machine: gild.pyz node approve {machine}")


@click.command("rm")
@click.argument("nodes", nargs=-1, required=True)
@YES
@click.pass_obj
def rm(site: Site, /, nodes: tuple[str, ...], yes: bool) -> None:
    """Forget machines: name, address, host keys, timeline. Their disks are not touched."""
    names = [row["name"] or f"#{row['id']}" for row in site.client.get("nodes", refs=list(nodes))]
    show.ask(f"Forget {', '.join(names)}?", yes)
    print(f"{len(site.client.post('nodes', 'remove', refs=names))} forgotten")
