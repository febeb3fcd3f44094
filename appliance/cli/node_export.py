"""gild node export: everything about a node in one file, for whoever is to find out what went wrong."""

from __future__ import annotations

import io
import json
import tarfile
import time
from pathlib import Path
from typing import Any

import click

from appliance.cli import show
from appliance.cli.main import Site
from appliance.errors import Environment

README = """What gild knows of {what}, written {when}.

status.json     what the head serves, its version, other DHCP servers on the wire
NODE/node.json      the node: state, hardware, order, disk, what its system said when it called
NODE/timeline.txt   every line since its first packet, the installer's log among them
NODE/dhcp.json      the last DHCP messages both ways, decoded and as bytes (hex)
NODE/transfers.json the last boot files over TFTP and HTTP: bytes, seconds, errors

There is no secret in it: no token, no key, no password, no file of a profile.
"""


@click.command("export")
@click.argument("node", required=False)
@click.argument("file", required=False, type=click.Path(path_type=Path))
@click.option("--all", "all_", is_flag=True, help="Every node: a file for somebody who is to help.")
@click.pass_obj
def export(site: Site, /, node: str | None, file: Path | None, all_: bool) -> None:
    """Everything between a node's first packet and now, as one .tar.gz."""
    if all_ and node and file is None:
        file, node = Path(node), None
    if bool(node) == all_:
        raise click.UsageError("name a node, or say --all")
    rows = site.client.get("nodes") if all_ else [site.client.get("nodes", str(node))]
    refs = [str(row["name"] or row["id"]) for row in rows]
    target = file or Path(f"gild-{'all' if all_ else refs[0]}.tar.gz")
    now = time.strftime("%Y-%m-%d %H:%M:%S %z")
    members = {
        "README": README.format(what="all nodes" if all_ else refs[0], when=now),
        "status.json": _json(site.client.get("status")),
    }
    for ref in refs:
        members |= {f"{ref}/{name}": text for name, text in _pieces(site.client.get("nodes", ref, "record")).items()}
    try:
        with tarfile.open(target, "w:gz") as tar:
            for name, text in members.items():
                data = text.encode()
                entry = tarfile.TarInfo(f"gild/{name}")
                entry.size, entry.mtime, entry.mode = len(data), int(time.time()), 0o600
                tar.addfile(entry, io.BytesIO(data))
        target.chmod(0o600)
    except OSError as error:
        raise Environment(f"{target}: {error.strerror}", "name another file") from None
    print(
        f"{target}: {len(refs)} node{'s' if len(refs) != 1 else ''}, {target.stat().st_size} bytes; begin with README"
    )


def _pieces(record: dict[str, Any]) -> dict[str, str]:
    lines = [f"{_clock(event['at'])} {event['level']:8} {show.plain(event['text'])}" for event in record["timeline"]]
    return {
        "node.json": _json(record["node"]),
        "timeline.txt": "\n".join(lines) + "\n",
        "dhcp.json": _json(record["dhcp"]),
        "transfers.json": _json(record["transfers"]),
    }


def _clock(at: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(at)) + f".{int(at * 1000) % 1000:03}"


def _json(value: Any) -> str:
    return json.dumps(value, indent=1, ensure_ascii=True, sort_keys=True) + "\n"
