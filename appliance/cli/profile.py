"""gild profile"""

from __future__ import annotations

import json
from typing import Any

import click

from appliance.cli import show
from appliance.cli.main import Noun, Site
from appliance.errors import Wrong


@click.group("profile", cls=Noun)
def command() -> None:
    """What a kind of node gets: image, disk, kernel arguments."""


@command.command("list")
@click.option("--json", "json_", is_flag=True, help="For scripts.")
@click.pass_obj
def list_(site: Site, /, json_: bool) -> None:
    """All profiles."""
    rows = site.client.get("profiles")
    if json_:
        return show.as_json(rows)
    return show.table(
        ["profile", "image", "finish", "verify", "kernel arguments"],
        [[row["name"], row["image"] or "(the only one)", row["finish"], row["verify"], row["cmdline"]] for row in rows],
        "there is no profile",
    )


@command.command("show")
@click.argument("name")
@click.pass_obj
def show_(site: Site, /, name: str) -> None:
    """One profile, as JSON that `profile set --from` reads back."""
    show.as_json(site.client.get("profiles", name))


@command.command("set")
@click.argument("name")
@click.option("--image", metavar="NAME", help="Image whose tagged version the nodes get.")
@click.option("--cmdline", metavar="TEXT", help="Kernel arguments of the installed system.")
@click.option("--finish", type=click.Choice(["kexec", "reboot", "poweroff"]), help="How a written machine goes on.")
@click.option("--verify", type=click.Choice(["none", "sample", "full"]), help="How much of the disk is read back.")
@click.option("--disk", metavar="RULE", help="Which disk is written: e.g. pick=smallest,bus=nvme or serial=S3Z9.")
@click.option("--from", "source", type=click.File("r"), help="Take everything from a JSON file (- for input).")
@click.pass_obj
def set_(site: Site, /, name: str, source: Any, **fields: str | None) -> None:
    """Make or change a profile."""
    given: dict[str, Any] = {key: value for key, value in fields.items() if value is not None}
    if source is not None:
        try:
            read = json.load(source)
        except (ValueError, RecursionError) as error:
            raise Wrong(f"{source.name}: not JSON: {error}") from None
        if not isinstance(read, dict):
            raise Wrong(f"{source.name}: not a JSON object", "write it with: gild.pyz profile show NAME")
        given = {**read, **given}
    given.pop("name", None)
    site.client.post("profiles", name, **given)
    print(f"profile {name} is set")
