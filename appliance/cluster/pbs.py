"""OpenPBS: its nodes by qmgr. A resource called gild marks those that gild has told it of, with the profile as value,
so that a job can ask for `select=2:gild=compute`."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any

from appliance.cluster.change import Change, Command
from appliance.cluster.inventory import Inventory
from appliance.errors import Wrong

NAME = "pbs"
RESOURCE = "gild"


@dataclass(frozen=True)
class Vnode:
    """A node as pbsnodes shows it."""

    address: str = ""  # the name or address of its MoM
    mark: str = ""  # its resource gild
    jobs: tuple[str, ...] = ()


@dataclass(frozen=True)
class Seen:
    """All nodes of the server by name, and whether it knows the resource."""

    nodes: dict[str, Vnode] = field(default_factory=dict)
    resource: bool = False


def plan(inventory: Inventory, seen: Seen) -> Change:
    """Nodes that are missing are made, those that gild made and are none of its any more are removed. A node that
    somebody else has made is left alone. OpenPBS takes every change at once."""
    commands, notes = [], []
    if not seen.resource and inventory.machines:
        commands.append(qmgr(f"create resource {RESOURCE} type=string,flag=h"))
    for machine in inventory.machines:
        known = seen.nodes.get(machine.name)
        mark = machine.profile or "default"
        if known is not None and not known.mark:
            notes.append(f"{machine.name} was not made by gild: left as it is")
            continue
        if known is None:
            commands.append(qmgr(f"create node {machine.name} Mom={machine.name}.{inventory.domain}"))
        if known is None or known.mark != mark:
            commands.append(qmgr(f"set node {machine.name} resources_available.{RESOURCE}={mark}"))
    names = {machine.name for machine in inventory.machines}
    for name in sorted(name for name, node in seen.nodes.items() if node.mark and name not in names):
        commands.append(qmgr(f"delete node {name}"))
    return Change(NAME, commands=tuple(commands), notes=tuple(notes))


def qmgr(text: str) -> Command:
    """One directive (OpenPBS reference guide, "qmgr")."""
    return Command(("qmgr", "-c", text))


def nodes_shown(text: str) -> dict[str, Vnode]:
    """The output of `pbsnodes -a -F json`. Raises Wrong if it is something else."""
    try:
        body: Any = json.loads(text or "{}", strict=False)
        rows = body.get("nodes", {})
        return {
            name: Vnode(
                str(row.get("Mom", "")),
                str(row.get("resources_available", {}).get(RESOURCE, "")),
                tuple(map(str, row.get("jobs", ()))),
            )
            for name, row in rows.items()
        }
    except (ValueError, AttributeError, TypeError):
        raise Wrong("pbsnodes does not print what it should", "is it OpenPBS 19 or newer?") from None
