"""/etc/hosts: names and addresses of all nodes, for programs and people on this machine."""

from __future__ import annotations

import re
from collections.abc import Callable

from appliance.cluster import block
from appliance.cluster.change import Change, blocked
from appliance.cluster.inventory import Inventory

NAME = "hosts"
PATH = "/etc/hosts"


def plan(inventory: Inventory, read: Callable[[str], str | None], path: str = PATH, host: str = "") -> Change:
    """The hosts file with a line a node. Names that the site's own lines give to another address are left to them.
    `host` is this machine's own name. Raises BlockBroken."""
    parts = block.split(read(path) or "", NAME)
    own = entries(parts.before + parts.after)
    taken = {
        machine.name: own[machine.name]
        for machine in inventory.machines
        if machine.name in own and machine.address not in own[machine.name]
    }
    notes = [
        f"{path} itself says that {name} is {', '.join(addresses)}: left as it is"
        for name, addresses in sorted(taken.items())
    ]
    notes += trap(own, host, inventory.head_address)
    file = blocked(read, path, NAME, render(inventory, frozenset(taken)))
    return Change(NAME, (file,), notes=tuple(notes))


def render(inventory: Inventory, without: frozenset[str] = frozenset()) -> str:
    """A line a node: address, whole name, short name (hosts(5): the first name is the canonical one)."""
    return "".join(
        f"{machine.address}\t{machine.name}.{inventory.domain} {machine.name}\n"
        for machine in inventory.machines
        if machine.name not in without
    )


def entries(text: str) -> dict[str, list[str]]:
    """Name -> addresses, of the lines of a hosts file."""
    found: dict[str, list[str]] = {}
    for line in text.splitlines():
        words = re.sub(r"#.*", "", line).split()
        for name in words[1:]:
            found.setdefault(name.lower(), []).append(words[0])
    return found


def trap(own: dict[str, list[str]], host: str, address: str) -> list[str]:
    """Debian gives a machine's own name to 127.0.1.1, and then Grid Engine refuses its own host ("not identical to
    clients host name", measured with 8.1.9), and nodes are told an address that is their own."""
    if host and "127.0.1.1" in own.get(host.lower(), []):
        told = f"this machine's own name, {host}, is 127.0.1.1 here; schedulers need one that nodes can reach"
        return [f"{told}: write {address} in the place of 127.0.1.1"]
    return []
