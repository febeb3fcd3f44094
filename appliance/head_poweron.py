"""Approval in the order of power-on: somebody walks along the rack and presses buttons, as insert-ethers had it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from appliance.errors import Unknown, Wrong
from appliance.head_declare import Declared
from appliance.roster import Roster
from images.errors import GildError
from netboot.naming import in_rack, is_pattern, next_names
from netboot.node import Node
from netboot.noderange import check_group

Approve = Callable[..., list[dict[str, Any]]]  # appliance.head_changes.Changes.approve

PATIENCE = 120.0  # seconds a machine may take from its first packet to its hello before the next one overtakes it


@dataclass(frozen=True)
class Walk:
    """What the machines switched on from `begun` (steady time) become. `left` is how many may still come, or None."""

    begun: float
    profile: str
    names: str
    groups: tuple[str, ...]
    first: int
    left: int | None


class PowerOn:
    """The operator's use cases. The walk ends with the process: nobody walks along a rack while a head restarts."""

    def __init__(self, roster: Roster, approve: Approve, declared: Declared) -> None:
        self.roster, self._approve, self._declared = roster, approve, declared
        self.walk: Walk | None = None
        self.named: list[str] = []

    def begin(
        self,
        *,
        profile: str = "default",
        names: str | None = None,
        groups: tuple[str, ...] = (),
        rack: int | None = None,
        first: int = 1,
        count: int | None = None,
    ) -> dict[str, Any]:
        """From now on every machine that is switched on is approved, in the order in which they were switched on:
        declared nodes without a machine first, then names of the pattern from number `first` on, `count` of them at
        most. With `rack` {r} in the pattern is its number, and all are in the group rackR. Raises Unknown, Wrong,
        NameInvalid, NoderangeInvalid."""
        if self.walk is not None:
            raise Wrong("an order of power-on is running already", "end it: gild.pyz node order --end")
        if profile not in self.roster.profiles:
            raise Unknown(
                f"there is no profile {profile[:80]!r}", f"profiles: {', '.join(sorted(self.roster.profiles))}"
            )
        pattern = in_rack(names or self.roster.profiles[profile].names or self.roster.config.names, rack)
        if not is_pattern(pattern):
            raise Wrong(f"{pattern[:80]!r} has no place for a number", "write it like rack{r}-{n:02}")
        next_names(pattern, (), 1, first)
        if (count is not None and count < 1) or first < 0:
            raise Wrong("the first number and how many there are cannot be negative, and one node is the least")
        every = tuple(sorted({*map(check_group, groups), *([f"rack{rack}"] if rack is not None else [])}))
        self.walk = Walk(self.roster.clock.steady(), profile, pattern, every, first, count)
        self.named = []
        return self.shown()

    def end(self) -> dict[str, Any]:
        """No more. Raises Wrong if none is running."""
        if self.walk is None:
            raise Wrong("no order of power-on is running", "begin one: gild.pyz node order --begin")
        shown = self.shown()
        self.walk = None
        return {**shown, "running": False}

    def shown(self) -> dict[str, Any]:
        """Whether it is running, who has been named, who comes next, and who was switched on and has not shown itself
        yet."""
        walk = self.walk
        if walk is None:
            return {"running": False, "named": self.named, "next": "", "coming": [], "left": None}
        return {
            "running": True, "profile": walk.profile, "names": walk.names, "groups": list(walk.groups),
            "named": self.named, "next": self._next(walk), "left": walk.left,
            "coming": [node.mac for node in self._queue(walk)],
        }  # fmt: skip

    def advance(self) -> None:
        """Approve whoever's turn it is: at every hello, and once a second. A machine waits for those that were switched
        on before it, for PATIENCE; one that takes longer comes in behind."""
        while self.walk is not None:
            now = self.roster.clock.steady()
            queue = self._queue(self.walk)
            elders = [node for node in queue if node.facts is not None or now - node.power_at < PATIENCE]
            if not elders or elders[0].facts is None or not self._take(self.walk, elders[0]):
                return

    def _queue(self, walk: Walk) -> list[Node]:
        """Those switched on since it began, the first first."""
        found = [node for node in self.roster.strangers() if node.power_at >= walk.begun]
        return sorted(found, key=lambda node: (node.power_at, node.id))

    def _next(self, walk: Walk) -> str:
        places = self._declared.places()
        return places[0].name if places else next_names(walk.names, self.roster.names(), 1, walk.first)[0]

    def _take(self, walk: Walk, node: Node) -> bool:
        roster = self.roster
        try:
            name = self._next(walk)
            places = self._declared.places()
            if places:
                if not self._declared.fill(places[0], node):
                    return False
                number = places[0].id
                filled = roster.nodes[number]
                roster.replace(replace(filled, groups=tuple(sorted({*filled.groups, *walk.groups}))))
            else:
                self._approve([f"#{node.id}"], walk.profile, name, groups=walk.groups)
                number = node.id
        except GildError as error:
            # It would stand in everybody's way: named, and passed over from now on.
            roster.timeline.note(node.id, f"cannot be approved in its turn: {error.message}", "warn")
            roster.replace(replace(node, power_at=0.0))
            return True
        roster.timeline.add(number, f"the {len(self.named) + 1}. in the order of power-on")
        self.named.append(name)
        left = None if walk.left is None else walk.left - 1
        self.walk = None if left == 0 else replace(walk, left=left)
        return True
