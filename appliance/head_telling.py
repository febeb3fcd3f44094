"""What is needed to tell a running system its name and address: where it may be, its host keys, and the edits."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from appliance.errors import Wrong
from appliance.head_plan import identity, network_of
from appliance.host_keys import HostKeys
from appliance.roster import Roster
from netboot.node import Node, State

MAX_ADDRESSES = 4  # that are remembered of a node that moves again and again


class Telling:
    """The operator's use case behind `node tell`. Nothing is changed here."""

    def __init__(self, roster: Roster, keys: HostKeys) -> None:
        self.roster, self.keys = roster, keys

    def telling(self, refs: list[str]) -> list[dict[str, Any]]:
        """For each of the named nodes: name, `addresses` where its system may be (the one it is to have first, then
        those it called home with), host keys, and edits. Raises Unknown, ProfileInvalid, and Wrong for a node without
        a system of its own."""
        return [self._row(node) for node in self.roster.select(refs)]

    def told(self, ref: str, lines: list[str], restarts: bool) -> None:
        """A running system was told; that belongs on its timeline. Raises Unknown."""
        node = self.roster.find(ref)
        # Where it may be found the next time: it has the new address once it has restarted.
        called = " ".join([node.address, *node.home.get("address", "").split()][:MAX_ADDRESSES])
        self.roster.replace(replace(node, home={**node.home, "address": called}))
        text = f"its system was told that it is {node.name}, {node.address}" + (", and restarts" if restarts else "")
        self.roster.timeline.add(node.id, f"{text}: {'; '.join(lines)}", "good")

    def _row(self, node: Node) -> dict[str, Any]:
        if node.state is not State.UP:
            raise Wrong(
                f"{node.label} is {node.state.value}: there is no running system to tell anything",
                "its next installation knows its name and address",
            )
        roster = self.roster
        subnet = roster.addresses.place(node.address)
        network = network_of(node, subnet, roster.config.domain, node.mac)
        edits = identity(node, roster.wanted(node).profile, replace(roster.config, address=subnet.head), network)
        called = [word.partition("/")[0] for word in node.home.get("address", "").split() if ":" not in word]
        return {
            "name": node.name,
            "address": node.address,
            "addresses": list(dict.fromkeys([node.address, *called])),
            "host_keys": self.keys.public(node.id),
            "edits": [{"edit": edit.edit, "options": edit.options} for edit in edits],
        }
