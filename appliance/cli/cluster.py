"""gild cluster: the services beside this head that have to know the nodes."""

from __future__ import annotations

import click

from appliance.cli.main import Verbs

# Verbs in the order in which they are used: name -> file, function.
VERBS = {
    "hosts": ("cluster_tell", "hosts"),
    "slurm": ("cluster_tell", "slurm"),
    "pbs": ("cluster_tell", "pbs"),
    "sge": ("cluster_tell", "sge"),
    "ansible": ("cluster_tell", "ansible"),
    "genders": ("cluster_tell", "genders"),
    "drain": ("cluster_drain", "drain"),
    "resume": ("cluster_drain", "resume"),
    "test": ("cluster_test", "command"),
}


@click.group("cluster", cls=Verbs, verbs=VERBS)
def command() -> None:
    """Tell the services of this machine of the nodes, and test them.

    Each verb can be repeated: it changes what has to be changed. --dry-run shows it first. See: help cluster.
    """
