"""gild secret"""

from __future__ import annotations

import base64
import sys
from typing import IO

import click

from appliance.cli import show
from appliance.cli.main import Noun, Site
from appliance.cli.selecting import JSON
from appliance.errors import Wrong

NODE = click.option("--node", metavar="NODE", help="For one node alone.")
PROFILE = click.option("--profile", metavar="PROFILE", help="For the nodes of a profile and of those that extend it.")


@click.group("secret", cls=Noun)
def command() -> None:
    """Keys and passwords for the files of profiles."""


@command.command("list")
@JSON
@click.pass_obj
def list_(site: Site, /, json_: bool) -> None:
    """All secrets, but not what they are."""
    rows = site.client.get("secrets")
    if json_:
        return show.as_json(rows)
    return show.table(
        ["secret", "for", "bytes"],
        [[show.safe(row["name"]), show.safe(row["for"]), str(row["bytes"])] for row in rows],
        "there is no secret",
    )


@command.command("set")
@click.argument("name")
@click.argument("file", type=click.File("rb"), required=False)
@NODE
@PROFILE
@click.pass_obj
def set_(site: Site, /, name: str, file: IO[bytes] | None, node: str | None, profile: str | None) -> None:
    """Keep a secret: the bytes of FILE, or typed unseen.

    FILE is - for standard input. Without --node and --profile the secret is for every node. It leaves
    this head in no other way than to a node that is installed under an order.
    """
    if file is not None:
        value = file.read()
    elif sys.stdin.isatty():
        value = str(click.prompt(name, hide_input=True, confirmation_prompt=True)).encode()
    else:
        raise Wrong(f"where is the secret {name}?", "name a file, or - for standard input")
    row = site.client.post(
        "secrets", name, value=base64.b64encode(value).decode(), node=node, profile=profile
    )  # fmt: skip
    print(f"secret {row['name']} for {row['for']} is set: {row['bytes']} bytes")


@command.command("rm")
@click.argument("name")
@NODE
@PROFILE
@click.pass_obj
def rm(site: Site, /, name: str, node: str | None, profile: str | None) -> None:
    """Forget a secret; nodes that have it keep it."""
    row = site.client.post("secrets", name, "remove", node=node, profile=profile)
    print(f"secret {row['name']} for {row['for']} is forgotten")
