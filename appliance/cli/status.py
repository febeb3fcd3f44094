"""gild status"""

from __future__ import annotations

from typing import Any

import click

from appliance.cli import show
from appliance.cli.main import Site


@click.command("status")
@click.option("--json", "json_", is_flag=True, help="For scripts.")
@click.pass_obj
def command(site: Site, /, json_: bool) -> None:
    """What the serving process does, and how many nodes are where."""
    status = site.client.get("status")
    if json_:
        return show.as_json(status)
    show.facts(
        [
            ("serving", f"{status['interface']}, {status['address']} in {status['network']}"),
            ("addresses", _addresses(status)),
            *(("and", show.safe(network)) for network in status["networks"]),
            ("domain", status["domain"]),
            ("since", f"{show.ago(status['uptime'])}, process {status['pid']}, gild {status['version']}"),
            ("others", _foreign(status["foreign"])),
            ("nodes", ", ".join(f"{count} {state}" for state, count in status["nodes"].items()) or "none seen yet"),
            *(("service", _service(row)) for row in status["services"]),
            ("hooks", _hooks(status["hooks"])),
        ]
    )
    return None


def _addresses(status: dict[str, Any]) -> str:
    if status["dhcp_mode"] == "proxy":
        return f"given by another DHCP server; {status['leases']} machines known by theirs"
    return f"{status['range']}, {status['leases']} in use"


def _service(row: dict[str, Any]) -> str:
    """How a service of this machine was told of the nodes last."""
    when = f" ({show.clock(row['at'])})" if row["at"] else ""
    text = f"{row['name']}: {show.safe(row['text'])}{when}"
    return text if row["ok"] else f"[red]{text}[/]"


def _hooks(counts: dict[str, int]) -> str:
    """What has not been told to hooks, if there is anything."""
    late = [f"{counts['waiting']} events wait"] if counts["waiting"] else []
    lost = [f"[red]{counts['dropped']} were told to nobody[/], as too many waited"] if counts["dropped"] else []
    return ", ".join(late + lost)


def _foreign(servers: list[dict[str, Any]]) -> str:
    """Other DHCP servers on the same wire, and where to read about it."""
    words = {"addresses": "gives addresses", "boot": "gives boot files", "refusal": "refuses leases"}
    listed = [f"{row['server_id']} ({row['mac']}) {words.get(row['kind'], '')}" for row in servers]
    return f"[red]other DHCP servers:[/] {', '.join(map(show.safe, listed))}" if listed else ""
