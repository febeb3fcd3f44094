"""Genders, for pdsh and its kin, and the groups of ClusterShell."""

from __future__ import annotations

import json
from collections.abc import Callable

from appliance.cluster.change import Change, blocked
from appliance.cluster.inventory import Inventory
from netboot.noderange import fold

NAME = "genders"
PATH = "/etc/genders"
GROUPS = "/etc/clustershell/groups.d/gild.yaml"
SOURCE = "gild"  # clush -w @gild:compute


def plan(inventory: Inventory, read: Callable[[str], str | None], path: str = PATH, groups: str = GROUPS) -> Change:
    """Both files; "" for `groups` leaves ClusterShell alone. Raises BlockBroken."""
    files = [blocked(read, path, NAME, render(inventory))]
    if groups:
        files.append(blocked(read, groups, NAME, render_groups(inventory)))
    return Change(NAME, tuple(files))


def render(inventory: Inventory) -> str:
    """A line a node, with its labels as attributes (genders(5))."""
    return "".join(
        f"{machine.name}\t{','.join(dict.fromkeys([SOURCE, *machine.labels]))}\n" for machine in inventory.machines
    )


def render_groups(inventory: Inventory) -> str:
    """A source of groups in YAML (clustershell.readthedocs.io, "YAML group files"); its strings are those of JSON."""
    if not inventory.machines:
        return ""
    members = {"all": [machine.name for machine in inventory.machines], **inventory.members()}
    lines = [f"  {json.dumps(label)}: {json.dumps(fold(names))}\n" for label, names in members.items()]
    return f"{SOURCE}:\n" + "".join(lines)
