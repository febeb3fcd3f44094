"""gild node add, load, order: nodes before their machines, and machines in the order in which they are switched on."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import click

from appliance.cli import show
from appliance.cli.main import Site
from appliance.cli.selecting import JSON
from appliance.errors import Environment, Wrong


@click.command("add")
@click.argument("name")
@click.option("--mac", multiple=True, metavar="MAC", help="A network card of it; repeatable.")
@click.option("--address", metavar="IP", help="Its address, instead of the next free one.")
@click.option("--profile", help="What kind of node it is.  [default: default]")
@click.option("--group", "groups", multiple=True, metavar="GROUP", help="A group it is in; repeatable.")
@click.option("--serial", help="Its serial number, where no card is known.")
@click.option("--uuid", help="Its SMBIOS UUID, where no card is known.")
@click.option("--port", metavar="SWITCH:PORT", help="The switch port it is on, as the switch says it (LLDP).")
@JSON
@click.pass_obj
def add(site: Site, /, name: str, json_: bool, **given: Any) -> None:
    """Declare a node before its machine is seen.

    With no MAC, serial, UUID or port it is a place, filled in the order of power-on.
    """
    said = {key: list(value) if isinstance(value, tuple) else value for key, value in given.items()}
    row = site.client.post("declared", "add", name=name, **said)
    if json_:
        return show.as_json(row)
    print(
        f"{name} is declared, address {row['address']}" + ("; a place for node order --begin" if row["place"] else "")
    )
    return None


@click.command("load")
@click.argument("file")
@click.option("--preview", "--dry-run", "preview", is_flag=True, help="Only show what would become of each line.")
@JSON
@click.pass_obj
def load(site: Site, /, file: str, preview: bool, json_: bool) -> None:
    """Declare the nodes of a list, or change them; all or nothing.

    FILE (- for standard input) is CSV with a first line of names (name, mac, address, profile, groups, serial, uuid,
    port, in any order), a hosts file, or an ethers file. Loading it again changes nothing.
    """
    try:
        data = sys.stdin.buffer.read() if file == "-" else Path(file).read_bytes()
        text = data.decode("utf-8-sig")
    except OSError as error:
        raise Environment(f"{file}: {error.strerror}", "name a file, or - for standard input") from None
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise Wrong(f"{file}: line {line} is not UTF-8 text", "save it as UTF-8; nothing was changed") from None
    rows = site.client.post("declared", "load", text=text, preview=preview)
    if json_:
        return show.as_json(rows)
    show.table(
        ["line", "node", "is", "card", "address", "profile"],
        [
            [str(row["line"]), row["name"], row["is"], show.safe(_known_by(row)), row["address"],
             show.safe(row["profile"])]
            for row in rows
        ],
        "no node",
    )  # fmt: skip
    counts = {word: sum(row["is"] == word for row in rows) for word in dict.fromkeys(row["is"] for row in rows)}
    print(", ".join(f"{count} {word}" for word, count in counts.items()) + ("; nothing was done" if preview else ""))
    return None


def _known_by(row: dict[str, Any]) -> str:
    return str(row["mac"] or row["serial"] or row["port"] or "the next switched on")


@click.command("order")
@click.option("--begin", is_flag=True, help="From now on approve machines as they are switched on.")
@click.option("--end", is_flag=True, help="No more of them.")
@click.option("--profile", help="What kind of node they become.  [default: default]")
@click.option("--names", metavar="PATTERN", help="Such as rack{r}-{n:02}.  [default: the profile's]")
@click.option("--rack", type=int, metavar="R", help="Number for {r} in the pattern; they join the group rackR.")
@click.option("--first", type=int, metavar="N", help="Number of the first one.  [default: 1]")
@click.option("--count", type=int, metavar="N", help="End by itself after so many.")
@click.option("--group", "groups", multiple=True, metavar="GROUP", help="A group they join; repeatable.")
@JSON
@click.pass_obj
def order(site: Site, /, begin: bool, end: bool, json_: bool, groups: tuple[str, ...], **given: Any) -> None:
    """Approve machines in the order in which they are switched on.

    Declared nodes without a machine are filled first, by name; then names of the pattern. Without --begin or --end it
    shows how it stands.
    """
    if begin and end:
        raise Wrong("begin it, or end it", "see: gild.pyz node order --help")
    if not begin and (groups or any(value is not None for value in given.values())):
        raise Wrong("these options are for --begin", "see: gild.pyz node order --help")
    if begin:
        row = site.client.post("poweron", "begin", groups=list(groups), **given)
    else:
        row = site.client.post("poweron", "end") if end else site.client.get("poweron")
    if json_:
        return show.as_json(row)
    if row["named"]:
        print(f"named so far: {', '.join(row['named'])}")
    if not row["running"]:
        print("no order of power-on is running" if not end else "ended")
        return None
    left = f", {row['left']} more" if row["left"] is not None else ""
    print(f"switch on the next machine: it becomes {row['next']}{left}; when all are on: gild.pyz node order --end")
    if row["coming"]:
        print(f"on their way: {', '.join(row['coming'])}")
    return None
