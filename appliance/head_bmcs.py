"""The BMCs of the nodes, as people enter them and as they are kept: in the database, mode 600, passwords and all."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from appliance import rows
from appliance.errors import Unknown, Wrong
from appliance.power.command import Target
from appliance.roster import Roster
from netboot.bmc import Bmc, BmcInvalid, Kind, fill, is_pattern, learned, make
from netboot.node import Node, State


class Bmcs:
    """The operator's use cases around BMCs."""

    def __init__(self, roster: Roster) -> None:
        """Load them. Raises DatabaseInvalid."""
        self.roster = roster
        self._table = {bmc.node_id: bmc for bmc in rows.load_bmcs(roster.store)}

    def of(self, node: Node) -> Bmc | None:
        """The node's BMC, if it has one."""
        return self._table.get(node.id)

    def target(self, node: Node) -> Target:
        """The node's BMC with what tells the node from its neighbours. Raises Wrong if it has none."""
        bmc = self._table.get(node.id)
        if bmc is None:
            raise Wrong(
                f"{node.label} has no BMC here, so somebody has to press its button",
                f"if it has one: gild.pyz node bmc set {node.label} --kind ipmi --address ADDRESS --user USER",
            )
        told = (node.facts.firmware if node.facts else "") or node.firmware
        return Target(bmc, node.uuid, node.macs, uefi="uefi" in told.lower())

    def bmcs(self, refs: Sequence[str] | None = None) -> list[dict[str, Any]]:
        """A row a BMC: those of `refs`, or all. Never a password. Raises Unknown, NoderangeInvalid."""
        chosen = self.roster.sorted() if refs is None else self.roster.select(refs)
        return [_row(node, bmc) for node in chosen if (bmc := self._table.get(node.id)) is not None]

    def set(
        self, refs: Sequence[str], kind: str, address: str, user: str, password: str, fingerprint: str = ""
    ) -> list[dict[str, Any]]:
        """Enter the BMCs of nodes; `address` may be a pattern (netboot.bmc.fill). What an earlier entry has learned is
        forgotten. All of them or none, on the disk before this returns. Raises Unknown, Wrong, BmcInvalid, NoSpace."""
        chosen = self.roster.select(refs)
        if len(chosen) > 1 and not is_pattern(address) and "{name}" not in address and kind != Kind.REDFISH:
            raise Wrong(f"{len(chosen)} nodes cannot have one BMC", "give a pattern such as 10.0.1.{n}")
        if len(chosen) > 1 and fingerprint:
            raise Wrong("a fingerprint is that of one BMC", "leave it away: each is known by the first it shows")
        made: dict[int, Bmc] = {}
        for node in chosen:
            if node.state is State.WAITING:
                raise Wrong(f"{node.label} is not approved yet", f"gild.pyz node approve {node.id}")
            try:
                made[node.id] = make(node.id, kind, fill(address, node.label), user, password, fingerprint)
            except BmcInvalid as error:
                raise BmcInvalid(f"{node.label}: {error.message}", error.hint) from None
        self._refuse_twice(made)
        self.roster.save_now([rows.bmc_row(bmc) for bmc in made.values()])
        self._table |= made
        for node in chosen:
            self.roster.timeline.add(node.id, f"its BMC is {made[node.id].place}, by {kind}")
        return [_row(node, made[node.id]) for node in chosen]

    def trust(self, refs: Sequence[str], fingerprint: str = "") -> list[dict[str, Any]]:
        """Take the certificate with this sha256 for the BMC's, or without one whichever it shows next. Raises Unknown,
        Wrong, BmcInvalid, NoSpace."""
        chosen = self._with_bmc(refs)
        if fingerprint and len(chosen) > 1:
            raise Wrong("a fingerprint is that of one BMC")
        fresh = []
        for node in chosen:
            bmc = self._table[node.id]
            if bmc.kind is not Kind.REDFISH:
                raise Wrong(f"the BMC of {node.label} speaks {bmc.kind.value}, which has no certificates")
            fresh.append(make(bmc.node_id, bmc.kind, bmc.place, bmc.user, bmc.password, fingerprint))
        self.roster.save_now([rows.bmc_row(bmc) for bmc in fresh])
        self._table |= {bmc.node_id: bmc for bmc in fresh}
        return [_row(node, self._table[node.id]) for node in chosen]

    def remove(self, refs: Sequence[str]) -> list[str]:
        """Forget BMCs; gives the nodes' names. Raises Unknown, Wrong, NoSpace."""
        chosen = self._with_bmc(refs)
        self.roster.save_now([rows.bmc_gone(node.id) for node in chosen])
        for node in chosen:
            del self._table[node.id]
        return [node.label for node in chosen]

    def learn(self, bmc: Bmc) -> None:
        """Keep what was found out in a conversation, unless the BMC was entered anew meanwhile."""
        held = self._table.get(bmc.node_id)
        if (
            held is None
            or bmc.node_id not in self.roster.nodes
            or replace(bmc, pin="", system="", cipher=0) != replace(held, pin="", system="", cipher=0)
        ):
            return
        after = replace(learned(held, pin=bmc.pin, system=bmc.system), cipher=bmc.cipher)
        if after == held:
            return
        if after.pin != held.pin:
            self.roster.timeline.add(
                bmc.node_id, f"its BMC is known from now on by its certificate, sha256 {after.pin}"
            )
        self._table[bmc.node_id] = after
        self.roster.store.submit([rows.bmc_row(after)], self.roster.lost)

    def _with_bmc(self, refs: Sequence[str]) -> list[Node]:
        chosen = self.roster.select(refs)
        for node in chosen:
            if node.id not in self._table:
                raise Unknown(f"{node.label} has no BMC here", "see: gild.pyz node bmc list")
        return chosen

    def _refuse_twice(self, made: dict[int, Bmc]) -> None:
        """IPMI has one machine behind an address: two nodes with the same would switch each other."""
        all_ = {**self._table, **made}
        seen: dict[tuple[str, int], int] = {}
        for node_id, bmc in all_.items():
            if bmc.kind is not Kind.IPMI or node_id not in self.roster.nodes:
                continue
            other = seen.setdefault((bmc.address, bmc.port), node_id)
            if other != node_id:
                names = " and ".join(self.roster.nodes[number].label for number in (other, node_id))
                raise Wrong(f"{names} cannot both have the BMC {bmc.place}", "one BMC switches one machine")


def _row(node: Node, bmc: Bmc) -> dict[str, Any]:
    return {
        "node": node.label, "kind": bmc.kind.value, "address": bmc.place, "user": bmc.user, "fingerprint": bmc.pin,
        "system": bmc.system, "cipher": bmc.cipher,
    }  # fmt: skip
