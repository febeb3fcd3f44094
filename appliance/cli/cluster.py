"""gild cluster: its verbs, each in the file of its kind."""

from __future__ import annotations

import click

from appliance.cli.main import Verbs

# Verbs in the order in which they are used: name -> file, function.
VERBS = {
    "test": ("cluster_test", "command"),
}


@click.group("cluster", cls=Verbs, verbs=VERBS)
def command() -> None:
    """The nodes as one cluster."""
