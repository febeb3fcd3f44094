"""What the cluster's other services ask of the head: the inventory of its nodes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from appliance.cluster.inventory import Inventory, inventory_of
from appliance.roster import Roster


class Cluster:
    """Use cases around the services beside this head."""

    def __init__(self, roster: Roster) -> None:
        self.roster = roster

    def inventory(self, refs: Sequence[str] | None = None) -> dict[str, Any]:
        """The approved nodes of `refs` (None: all) as the services see them, ready for JSON. Raises Unknown,
        NoderangeInvalid."""
        return self.snapshot(refs).as_json()

    def snapshot(self, refs: Sequence[str] | None = None) -> Inventory:
        """The same as a value, by name."""
        nodes = self.roster.sorted() if refs is None else self.roster.select(refs)
        nodes = sorted(nodes, key=lambda node: node.name)
        return inventory_of(nodes, self.roster.config.domain, self.roster.config.address)
