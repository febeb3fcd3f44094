"""Secrets: what a template or an overlay file may need and nobody may see. They leave the head in a plan, under an
order and over the pinned link, and by no other way; lists show their names and sizes."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from appliance import rows
from appliance.errors import Unknown, Wrong
from appliance.roster import Roster
from appliance.timeline import clean
from netboot.node import Node, State

MAX_SECRET = 64 * 1024  # bytes
MAX_SECRETS = 10_000
EVERYBODY = ""
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")


class Secrets:
    """The operator's use cases around secrets, and finding the one a node is to get."""

    def __init__(self, roster: Roster) -> None:
        self.roster = roster

    def secrets(self) -> list[dict[str, Any]]:
        """Every secret by name: whose it is ("node node01", "profile login" or "every node") and how many bytes it has.
        Never what it is."""
        found = rows.load_secret_names(self.roster.store)
        listed = [{"name": name, "for": self._told(owner), "bytes": size} for owner, name, size in found]
        return sorted(listed, key=lambda row: (row["name"], row["for"]))

    def secret_set(
        self, name: str, value: bytes, node: str | None = None, profile: str | None = None
    ) -> dict[str, Any]:
        """Keep a secret for one node, for the nodes of one profile and of those that extend it, or for all. On the disk
        before this returns. Raises Wrong, Unknown, NoSpace."""
        if not _NAME.fullmatch(name):
            raise Wrong(f"{clean(name)[:80]!r} cannot be the name of a secret", "letters, digits, '.', '_' and '-'")
        if not value or len(value) > MAX_SECRET:
            raise Wrong(f"the secret {name} has {len(value)} bytes", f"it may have 1 to {MAX_SECRET}")
        owner = self._owner(node, profile)
        known = {(row[0], row[1]) for row in rows.load_secret_names(self.roster.store)}
        if (owner, name) not in known and len(known) >= MAX_SECRETS:
            raise Wrong(f"there are {MAX_SECRETS} secrets already")
        self.roster.save_now([rows.secret_row(owner, name, value)])
        return {"name": name, "for": self._told(owner), "bytes": len(value)}

    def secret_remove(self, name: str, node: str | None = None, profile: str | None = None) -> dict[str, Any]:
        """Forget a secret. Nodes that have it keep it until the next installation. Raises Unknown, Wrong, NoSpace."""
        owner = self._owner(node, profile)
        held = rows.load_secret_names(self.roster.store)
        if not any((row[0], row[1]) == (owner, name) for row in held):
            others = [self._told(row[0]) for row in held if row[1] == name]
            hint = f"there is one for {', '.join(others[:5])}" if others else "see: gild.pyz secret list"
            raise Unknown(f"there is no secret {clean(name)[:80]!r} for {self._told(owner)}", hint)
        self.roster.save_now([rows.secret_gone(owner, name)])
        return {"name": name, "for": self._told(owner)}

    def find(self, name: str, node: Node, chain: Sequence[str]) -> bytes | None:
        """The secret of that name a node gets: its own, else that of its profile or the nearest it extends, else that
        of every node. `chain` is netboot.wanted's, the farthest parent first."""
        owners = [f"node:{node.id}", *(f"profile:{profile}" for profile in reversed(chain)), EVERYBODY]
        for owner in owners:
            value = rows.load_secret(self.roster.store, owner, name)
            if value is not None:
                return value
        return None

    def _owner(self, node: str | None, profile: str | None) -> str:
        if node is not None and profile is not None:
            raise Wrong("a secret is for a node or for a profile, not for both")
        if node is not None:
            found = self.roster.find(node)
            if found.state is State.WAITING:
                raise Wrong(f"{found.label} is not approved yet", f"gild.pyz node approve {found.id}")
            return f"node:{found.id}"
        if profile is not None:
            if profile not in self.roster.profiles:
                known = ", ".join(sorted(self.roster.profiles))
                raise Unknown(f"there is no profile {clean(profile)[:80]!r}", f"profiles: {known[:300]}")
            return f"profile:{profile}"
        return EVERYBODY

    def _told(self, owner: str) -> str:
        kind, _, which = owner.partition(":")
        if kind == "node":
            node = self.roster.nodes.get(int(which))
            return f"node {node.label if node else '#' + which}"
        return f"profile {which}" if kind == "profile" else "every node"
