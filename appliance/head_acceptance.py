"""What a test of the cluster has to know of the nodes: how each should answer, and by which host keys it is known."""

from __future__ import annotations

from typing import Any

from appliance.errors import Wrong
from appliance.host_keys import HostKeys
from appliance.roster import Roster
from netboot.node import Node, State


class Acceptance:
    """The operator's use case behind `cluster test`. Nothing is changed."""

    def __init__(self, roster: Roster, keys: HostKeys) -> None:
        self.roster, self.keys = roster, keys

    def acceptance(self, refs: list[str] | None) -> dict[str, Any]:
        """The named nodes, or without names all that are up. Raises Unknown, and Wrong if there is none to test."""
        nodes = self.roster.sorted() if refs is None else self.roster.select(refs)
        if refs is None:
            nodes = [node for node in nodes if node.state is State.UP]
            if not nodes:
                raise Wrong("no node is up, so there is nothing to test", "install some: gild.pyz node install --all")
        for node in nodes:
            if not node.name or not node.address:
                raise Wrong(f"{node.label} is not approved yet", f"gild.pyz node approve {node.id}")
        return {
            "domain": self.roster.config.domain,
            "head": self.roster.config.address,
            "nodes": [self._row(node) for node in nodes],
        }

    def _row(self, node: Node) -> dict[str, Any]:
        return {
            "name": node.name,
            "address": node.address,
            "profile": node.profile,
            "state": node.state.value,
            "image": node.image,
            "digest": node.digest,
            "threads": node.facts.threads if node.facts else 0,
            "memory": node.facts.memory if node.facts else 0,
            "host_keys": self.keys.public(node.id),
        }
