"""Options that verbs about nodes share."""

from __future__ import annotations

from typing import Any

import click

from appliance.errors import Wrong

JSON = click.option("--json", "json_", is_flag=True, help="For scripts.")
ALL = click.option("--all", "all_", is_flag=True, help="Every node the verb can apply to.")
YES = click.option("--yes", is_flag=True, help="Do not ask.")


def which(nodes: tuple[str, ...], all_: bool) -> dict[str, Any]:
    """The nodes somebody means, as the head takes them. Raises Wrong if none or both are given."""
    if nodes and all_:
        raise Wrong("either nodes are named, or --all is said, not both")
    if not nodes and not all_:
        raise Wrong("name the nodes, or say --all", "see: gild.pyz node list")
    return {"refs": list(nodes), "all": all_}
