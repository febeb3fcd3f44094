"""Orders, as people give and take them back: preview, arm, cancel, expire."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from appliance.errors import Wrong
from appliance.head_install import new_home_secret
from appliance.head_overlay import Overlays
from appliance.head_plan import Choice, choose_image, predict
from appliance.roster import Roster
from images.keeping.verify import refuse_damaged
from netboot.node import Event, Node, State
from netboot.order import LIFETIME, Order
from netboot.profile import FINISHES, parse_rule

if TYPE_CHECKING:
    from images.manifest import Manifest
    from images.store import Store as Images

# `install --all` means the machines that have no system of ours; one that is up is named by whoever wants it erased.
WITHOUT_SYSTEM = (State.READY, State.FAILED, State.LOST)


class Orders:
    """The operator's use cases around orders."""

    def __init__(self, roster: Roster, images: Images, overlays: Overlays, wake: Callable[[int], None]) -> None:
        """`wake(node_id)`: the node's waiting agent has an answer now."""
        self.roster, self.images, self.overlays, self._wake = roster, images, overlays, wake

    def install(
        self,
        refs: Sequence[str] | None,
        image: str | None = None,
        finish: str | None = None,
        disk: str | None = None,
        preview: bool = False,
    ) -> list[dict[str, Any]]:
        """One order a node, or with `preview` only what they would do. None for `refs`: every approved node without a
        system of ours. All or nothing: if one of them cannot be installed, nobody is. Orders are on the disk before
        this returns. Raises Unknown, NotFound, Wrong, ProfileInvalid, NoSpace."""
        choices = self.choices(refs, image, finish, disk)
        if not preview:
            self.arm(choices)
        return [dict(choice.row()) for choice in choices]

    def choices(
        self, refs: Sequence[str] | None, image: str | None = None, finish: str | None = None, disk: str | None = None
    ) -> list[Choice]:
        """What `install` would do, definite. Raises as it does."""
        if finish is not None and finish not in FINISHES:
            raise Wrong(f"finish cannot be {finish[:40]!r}", "one of " + ", ".join(FINISHES))
        known: dict[str, tuple[Manifest, str]] = {}  # a rack mostly gets one image: it is looked at once
        return [self._choice(node, image, finish, disk, known) for node in self._chosen(refs)]

    def cancel(self, refs: Sequence[str] | None) -> list[dict[str, Any]]:
        """Take orders back (None: all that are open). An installation that is running is told to stop at its next
        safe point. Raises Unknown, Wrong, NoSpace."""
        roster = self.roster
        chosen = [node for node in roster.sorted() if self._open(node)] if refs is None else roster.select(refs)
        for node in chosen:
            if not self._open(node):
                raise Wrong(f"{node.label} has no open order")
        with roster.durable(chosen):
            for node in chosen:
                roster.apply(node, Event.CANCELLED)
        for node in chosen:
            self._wake(node.id)
        return [{"node": node.label, "image": roster.orders[node.id].image} for node in chosen]

    def tick(self) -> None:
        """Orders nobody took up in their hour are over."""
        now = self.roster.clock.steady()
        for order in list(self.roster.orders.values()):
            node = self.roster.nodes.get(order.node_id)
            if node is not None and not order.closed and not order.used and now >= order.expires:
                self.roster.apply(node, Event.EXPIRED)

    def _open(self, node: Node) -> bool:
        order = self.roster.orders.get(node.id)
        return order is not None and not order.closed

    def _chosen(self, refs: Sequence[str] | None) -> list[Node]:
        if refs is None:
            return [node for node in self.roster.sorted() if node.state in WITHOUT_SYSTEM and not node.image]
        chosen = self.roster.select(refs)
        for node in chosen:
            if node.state is State.WAITING:
                raise Wrong(f"{node.label} is not approved", f"gild.pyz node approve {node.id}")
            if node.state in (State.INSTALLING, State.CAPTURING):
                raise Wrong(f"{node.label} is {node.state.value}", f"first: gild.pyz node cancel {node.label}")
        return chosen

    def _choice(
        self,
        node: Node,
        image: str | None,
        finish: str | None,
        disk: str | None,
        known: dict[str, tuple[Manifest, str]],
    ) -> Choice:
        profile = self.roster.wanted(node).profile
        wanted = image or profile.image
        if wanted not in known:
            known[wanted] = choose_image(self.images, wanted, node.label)
            refuse_damaged(self.images, known[wanted][0].ref)
        manifest, digest = known[wanted]
        self.overlays.check(node, manifest.ref, looked_into=not manifest.whole)
        rule = parse_rule(disk) if disk else profile.disk
        how = finish or profile.finish or self.roster.config.finish
        return Choice(node, profile, manifest, digest, rule, how, predict(node, profile, manifest, rule))

    def arm(self, choices: Sequence[Choice]) -> None:
        """Give these orders; on the disk before this returns, or not at all. Raises NoSpace."""
        roster, now = self.roster, self.roster.clock.steady()
        # An order that is not on the disk was never given: a restart must not find fewer orders than were shown.
        with roster.durable([choice.node for choice in choices]):
            for choice in choices:
                roster.last_order += 1
                roster.set_order(Order(
                    roster.last_order, choice.node.id, choice.manifest.ref, choice.digest, now, now + LIFETIME,
                    disk=choice.rule, finish=choice.finish, home_secret=new_home_secret(),
                ))  # fmt: skip
                roster.apply(choice.node, Event.ORDERED, image=choice.manifest.ref)
        for choice in choices:
            self._wake(choice.node.id)
