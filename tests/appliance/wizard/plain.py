"""Facts of a head as it comes, for tests of steps that need no head."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from appliance.wizard.facts import Facts, Image, Wire

Told = dict[str, dict[str, Any]]  # answers

KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIAABAgMEBQYHCAkKCwwNDg8QERITFBUWFxgZGhscHR4f root@lab"
ETH0 = Wire("eth0", "192.168.7.40/24", True, True, 1000, default_route=True, servers=("DHCP by 192.168.7.1",))
ETH1 = Wire("eth1", "10.20.0.1/24", True, True, 1000, servers=())
FRESH = Facts(
    "lab-a", "/var/lib/gild", service="systemd does not run here", wires=(ETH0, ETH1), free=50 << 30,
    release="bookworm", family="debian", sets={"ntp": "a clock", "scheduler-slurm": "Slurm", "scheduler-pbs": "PBS"},
    keys=(KEY,), verbs=("cluster hosts", "cluster slurm", "cluster test", "node load",),
)  # fmt: skip
SERVING: dict[str, Any] = {
    "interface": "eth1", "pid": 7, "free": 229, "leases": 1, "dhcp": {}, "foreign": [], "address": "10.20.0.1",
}  # fmt: skip
COMPUTE = Image("compute", 1, 1, "Debian 12", "debian")
DEFAULT = {"name": "default", "image": "compute", "disk": "", "layout": []}


def row(number: int = 1, state: str = "waiting", **more: Any) -> dict[str, Any]:
    """A row of the node list."""
    return {
        "id": number, "name": "" if state == "waiting" else f"node{number:02}", "state": state,
        "mac": f"52:54:00:00:00:{number:02x}", "machine": "Acme Box", "firmware": "uefi",
        "address": f"10.20.0.{number + 24}", "ordered": False, "reason": "",
        "phase": "", "done": 0, "total": 0, **more,
    }  # fmt: skip


def serving(*nodes: dict[str, Any], **more: Any) -> Facts:
    """A head that serves, with an image and these nodes."""
    facts = replace(FRESH, serving=SERVING, images=(COMPUTE,), profiles=(DEFAULT,), nodes=nodes)
    return replace(facts, **more)


def erased(*contents: str) -> dict[str, Any]:
    """A preview of an installation, a node for each content."""
    rows = [
        {"node": f"node{place:02}", "image": "compute:1", "disk": f"S{place}", "content": content}
        for place, content in enumerate(contents, 1)
    ]
    return {"nodes": rows, "digest": "d" * 64}
