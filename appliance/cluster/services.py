"""The table of services: what each has to be asked on this machine before its plan can be made."""

from __future__ import annotations

import os
import shlex
import socket
from collections.abc import Callable
from dataclasses import dataclass, replace

from appliance.cluster import ansible, genders, gridengine, hosts, pbs, slurm
from appliance.cluster.apply import Here
from appliance.cluster.change import Change
from appliance.cluster.inventory import Inventory


@dataclass(frozen=True)
class Wanted:
    """What a site says about a service; "" where it is to be the usual. `restart` is a command line."""

    conf: str = ""
    partitions: str = "auto"
    dynamic: bool = False
    restart: str = ""
    queue: str = gridengine.QUEUE
    groups: str = genders.GROUPS


def _host() -> str:
    """This machine's own name."""
    return socket.gethostname().partition(".")[0]


def _hosts(inventory: Inventory, here: Here, wanted: Wanted) -> Change:
    return hosts.plan(inventory, here.read, wanted.conf or hosts.PATH, _host())


def _ansible(inventory: Inventory, here: Here, wanted: Wanted) -> Change:
    return ansible.plan(inventory, here.read, wanted.conf or ansible.PATH)


def _genders(inventory: Inventory, here: Here, wanted: Wanted) -> Change:
    groups = wanted.groups if here.path(genders.GROUPS).parents[1].is_dir() or wanted.groups != genders.GROUPS else ""
    return genders.plan(inventory, here.read, wanted.conf or genders.PATH, groups)


def _slurm(inventory: Inventory, here: Here, wanted: Wanted) -> Change:
    conf = wanted.conf or os.environ.get("SLURM_CONF") or slurm.PATH
    env = {"SLURM_CONF": conf}
    restart = shlex.split(wanted.restart) or (["systemctl", "restart", "slurmctld"] if here.systemd else [])
    shown = None
    if here.live and here.read(conf) is not None and here.ask(["scontrol", "ping"], env) is not None:
        shown = here.ask(["scontrol", "-o", "show", "nodes"], env)
    wish = slurm.Wish(conf, wanted.partitions, wanted.dynamic, tuple(restart), _host())
    return replace(slurm.plan(inventory, here.read, shown, wish), env=env)


def _gridengine(inventory: Inventory, here: Here, wanted: Wanted) -> Change:
    admin = here.need(["qconf", "-sh"])
    group, queue = here.ask(["qconf", "-shgrp", gridengine.GROUP]), here.ask(["qconf", "-sq", wanted.queue])
    seen = gridengine.Seen(
        gridengine.hosts_shown(admin),
        gridengine.hosts_shown(here.ask(["qconf", "-sel"]) or ""),
        gridengine.hostlist_shown(group) if group is not None else None,
        gridengine.hostlist_shown(queue) if queue is not None else None,
    )
    return gridengine.plan(inventory, seen, wanted.queue)


def _pbs(inventory: Inventory, here: Here, wanted: Wanted) -> Change:
    here.need(["qmgr", "-c", "list server"])
    nodes = here.ask(["pbsnodes", "-a", "-F", "json"])  # fails where there is no node yet
    known = here.ask(["qmgr", "-c", f"list resource {pbs.RESOURCE}"])
    return pbs.plan(inventory, pbs.Seen(pbs.nodes_shown(nodes or ""), known is not None))


Plan = Callable[[Inventory, Here, Wanted], Change]
# Verb -> how its change is found.
SERVICES: dict[str, Plan] = {
    "hosts": _hosts, "slurm": _slurm, "pbs": _pbs, "sge": _gridengine, "ansible": _ansible, "genders": _genders,
}  # fmt: skip
ASKED = ("pbs", "sge")  # have no file: they are told by commands alone, on a machine that runs
