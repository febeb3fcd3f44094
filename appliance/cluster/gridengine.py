"""Grid Engine: its hosts by qconf. It takes every change at once, and nothing has to be restarted.

qconf may say that it failed and end with success (8.1.9: a file that it cannot read), so what it says counts.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from appliance.cluster.change import FILE, Change, Command
from appliance.cluster.inventory import Inventory

NAME = "sge"
GROUP = "@gild"
QUEUE = "all.q"


@dataclass(frozen=True)
class Seen:
    """What qconf says: administrative hosts (-sh), execution hosts (-sel), hosts of our group (-shgrp; None: there is
    no such group), hosts of the queue (-sq; None: there is no such queue)."""

    admin: frozenset[str]
    execution: frozenset[str]
    group: frozenset[str] | None
    queue: frozenset[str] | None


def plan(inventory: Inventory, seen: Seen, queue: str = QUEUE) -> Change:
    """Hosts that are missing are added, those of our group that are no nodes any more are taken away. Names count
    without their domain: Grid Engine shows the canonical ones."""
    wanted = [machine.name for machine in inventory.machines]
    admin, group = short(seen.admin), short(seen.group or frozenset())
    commands = [Command(("qconf", "-ah", name), until="added") for name in wanted if name not in admin]
    if seen.group is None and wanted:
        # Hosts of a new group become execution hosts with it; `qconf -Ae` would fail then ("already exists", 8.1.9).
        text = f"group_name {GROUP}\nhostlist {' '.join(wanted)}\n"
        commands.append(Command(("qconf", "-Ahgrp", FILE), until="added", input=text))
    elif seen.group is not None:
        commands += [_attribute("-aattr", name) for name in wanted if name not in group]
    notes = []
    if seen.queue is None:
        notes.append(f"there is no queue {queue}: make one with hostlist {GROUP}, as gild.pyz help cluster shows")
    elif GROUP not in seen.queue and wanted:
        commands.append(Command(("qconf", "-aattr", "queue", "hostlist", GROUP, queue), until="modified"))
    for name in sorted(group - set(wanted)):
        commands.append(_attribute("-dattr", name))
        if name in short(seen.execution):
            commands.append(Command(("qconf", "-de", name), until="removed"))
        if name in admin:
            commands.append(Command(("qconf", "-dh", name), until="removed"))
    return Change(NAME, commands=tuple(commands), notes=tuple(notes))


def _attribute(verb: str, name: str) -> Command:
    return Command(("qconf", verb, "hostgroup", "hostlist", name, GROUP), until="modified")


def short(names: frozenset[str]) -> set[str]:
    """Names without their domains; groups as they are."""
    return {name if name.startswith("@") else name.partition(".")[0] for name in names}


def hosts_shown(text: str) -> frozenset[str]:
    """The lines of `qconf -sh` or `-sel`."""
    return frozenset(line.strip() for line in text.splitlines() if re.fullmatch(r"[\w.-]+", line.strip()))


def hostlist_shown(text: str) -> frozenset[str]:
    """The hostlist in the output of `qconf -shgrp` or `-sq`, in which long ones go on behind a backslash."""
    found = re.search(r"^hostlist\s+(.*)$", re.sub(r"\\\n", " ", text), re.MULTILINE)
    return frozenset(found[1].replace(",", " ").split()) - {"NONE"} if found else frozenset()


def busy_shown(text: str) -> set[str]:
    """The hosts in the output of `qstat -u * -s rs -xml`, whose plain form cuts long names."""
    return short(frozenset(re.findall(r"<queue_name>[^<@]*@([^<]+)</queue_name>", text)))
