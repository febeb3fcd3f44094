"""Ansible: an inventory file, and the JSON of a dynamic inventory."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from appliance.cluster.change import Change, blocked
from appliance.cluster.inventory import Inventory
from appliance.errors import Wrong

NAME = "ansible"
PATH = "/etc/ansible/hosts"
EVERYBODY = "gild"  # the group of all nodes


def plan(inventory: Inventory, read: Callable[[str], str | None], path: str = PATH) -> Change:
    """The inventory with gild's groups in a block of INI. Raises BlockBroken, and Wrong for a file that is a program
    or YAML."""
    before = read(path) or ""
    if before.startswith("#!") or re.search(r"^(---|\w+:)\s*$", before, re.MULTILINE):
        raise Wrong(
            f"{path} is a program or YAML, and gild writes INI",
            "give another file: gild.pyz cluster ansible --conf /etc/ansible/gild.ini, and ansible -i for it",
        )
    return Change(NAME, (blocked(read, path, NAME, render(inventory)),))


def group_name(label: str) -> str:
    """A profile or group as ansible's groups may be called: letters, digits and '_', no digit first."""
    name = re.sub(r"[^A-Za-z0-9_]", "_", label)
    return f"_{name}" if name[:1].isdigit() else name


def groups(inventory: Inventory) -> dict[str, list[str]]:
    """Group -> names of nodes, that of everybody first."""
    found = {EVERYBODY: [machine.name for machine in inventory.machines]}
    for label, names in inventory.members().items():
        # Two labels may become one name (a-b and a_b); "all" and "ungrouped" are ansible's own.
        name = group_name(label) if label not in ("all", "ungrouped", EVERYBODY) else f"{EVERYBODY}_{label}"
        found[name] = list(dict.fromkeys([*found.get(name, []), *names]))
    return found


def render(inventory: Inventory) -> str:
    """The block. It ends with a heading of ansible's own, so that lines a person adds below join none of our groups."""
    if not inventory.machines:
        return ""
    address = {machine.name: machine.address for machine in inventory.machines}
    text = ""
    for group, names in groups(inventory).items():
        lines = [f"{name} ansible_host={address[name]}" if group == EVERYBODY else name for name in names]
        text += f"[{group}]\n" + "".join(f"{line}\n" for line in lines) + "\n"
    return text + "[ungrouped]\n"


def listing(inventory: Inventory) -> dict[str, Any]:
    """What ansible wants of a dynamic inventory that is asked with --list (ansible's developer guide, "Developing
    dynamic inventory")."""
    hostvars = {
        machine.name: {
            "ansible_host": machine.address, "gild_profile": machine.profile, "gild_groups": list(machine.groups),
            "gild_threads": machine.threads, "gild_memory_mib": machine.memory, "gild_gpus": machine.gpus,
        }
        for machine in inventory.machines
    }  # fmt: skip
    listed: dict[str, Any] = {group: {"hosts": names} for group, names in groups(inventory).items()}
    return {**listed, "_meta": {"hostvars": hostvars}}
