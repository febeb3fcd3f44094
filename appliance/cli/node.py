"""gild node: its verbs, each in the file of its kind."""

from __future__ import annotations

import click

from appliance.cli.main import Verbs

# Verbs in the order in which they are used: name -> file, function.
VERBS = {
    "list": ("node_show", "list_"),
    "show": ("node_show", "show_"),
    "log": ("node_show", "log"),
    "export": ("node_export", "export"),
    "add": ("node_declare", "add"),
    "load": ("node_declare", "load"),
    "order": ("node_declare", "order"),
    "approve": ("node_order", "approve"),
    "install": ("node_order", "install"),
    "capture": ("node_capture", "command"),
    "cancel": ("node_order", "cancel"),
    "power": ("node_power", "power"),
    "wake": ("node_power", "wake"),
    "bmc": ("node_bmc", "command"),
    "set": ("node_change", "set_"),
    "tell": ("node_tell", "command"),
    "same": ("node_change", "same"),
    "other": ("node_change", "other"),
    "rm": ("node_change", "rm"),
}


@click.group("node", cls=Verbs, verbs=VERBS)
def command() -> None:
    """Machines: see, approve, install, follow.

    NODES are names, numbers of the waiting room, MACs or addresses, and noderanges: node[01-16], @rack1 (a group),
    @profile:gpu, @state:failed, 'node0*', and '!node07' to leave one out.
    """
