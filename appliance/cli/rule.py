"""gild rule"""

from __future__ import annotations

from typing import Any

import click

from appliance.cli import show
from appliance.cli.main import Noun, Site
from appliance.cli.selecting import JSON


@click.group("rule", cls=Noun)
def command() -> None:
    """Approval by rule, for machines yet to come.

    The first rule that fits decides. Rules approve and never install.
    """


@command.command("list")
@JSON
@click.pass_obj
def list_(site: Site, /, json_: bool) -> None:
    """All rules, and which waiting machines each would take."""
    rules = site.client.get("rules")
    if json_:
        return show.as_json(rules)
    return show.table(
        ["rule", "machines", "does", "profile", "names", "groups", "would take now"],
        [
            [
                str(rule["id"]),
                show.safe(rule["text"]),
                rule["act"],
                *_becomes(rule),
                show.safe(", ".join(rule["takes"])),
            ]
            for rule in rules
        ],
        "no rule yet: every machine waits for somebody to approve it",
    )


def _becomes(rule: dict[str, Any]) -> list[str]:
    return [rule["profile"], rule["names"], ", ".join(rule["groups"])] if rule["act"] == "approve" else ["", "", ""]


@command.command("add")
@click.argument("conditions", nargs=-1)
@click.option("--profile", help="What kind of node they become.  [default: default]")
@click.option("--names", metavar="PATTERN", help="Such as node{n:02}, instead of the profile's.")
@click.option("--group", "groups", multiple=True, metavar="GROUP", help="A group they join; repeatable.")
@click.option("--wait", is_flag=True, help="Keep them waiting, whatever later rules say.")
@click.option("--before", type=int, metavar="RULE", help="Place it before that one, instead of last.")
@click.option("--now", is_flag=True, help="Also for the machines that wait already.")
@JSON
@click.pass_obj
def add(site: Site, /, conditions: tuple[str, ...], json_: bool, **options: Any) -> None:
    """One more rule. CONDITIONS all have to hold; without any it is for every machine.

    vendor=PATTERN of vendor and product, serial=PATTERN, mac=FIRST:BYTES, memory=64GiB+, cores=8+, disks=2+ (how many),
    disk=1TB+ (the largest), firmware=bios|uefi, arch=x86_64, subnet=10.2.0.0/16,
    port=SWITCH:PORT (what its switch calls itself and the port, by LLDP)
    """
    given = {key: list(value) if isinstance(value, tuple) else value for key, value in options.items()}
    rule = site.client.post("rules", "add", conditions=list(conditions), **given)
    if json_:
        return show.as_json(rule)
    print(f"rule {rule['id']}: {rule['text']}")
    if rule["approved"]:
        print(f"approved now: {', '.join(rule['approved'])}")
    return None


@command.command("rm")
@click.argument("number", type=int)
@click.pass_obj
def rm(site: Site, /, number: int) -> None:
    """Forget a rule. Machines it has approved stay approved."""
    print(f"rule {site.client.post('rules', 'remove', id=number)['id']} is removed")
