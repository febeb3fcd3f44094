"""What of the roster has changed and is not on the disk yet, and changes that count only once they are."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import TYPE_CHECKING

from appliance import rows
from appliance.store import Statement
from images.errors import GildError
from netboot.node import Node, State
from netboot.order import Order
from netboot.profile import DEFAULT

if TYPE_CHECKING:
    from appliance.roster import Roster


class Saving:
    """`nodes`, `facts` and `orders` are the numbers of the nodes of which they have changed."""

    def __init__(self, roster: Roster) -> None:
        self.roster, self.store = roster, roster.store
        self.nodes: set[int] = set()
        self.facts: set[int] = set()
        self.orders: set[int] = set()
        self._resave = False

    def forget(self, node_id: int) -> None:
        """The node is gone."""
        for pending in (self.nodes, self.facts, self.orders):
            pending.discard(node_id)

    def save(self) -> None:
        """Hand all changes to the journal, without waiting. What could not be written is written again, whole, once
        the disk takes it."""
        if self._resave and not self.store.problem:
            self._resave = False
            self._mark_all()
        statements = self._rows()
        if self._resave and not statements:
            # Tries whether the disk takes something again.
            statements = [rows.profile_row(self.roster.profiles[DEFAULT])]
        if statements:
            self.store.submit(statements, self.lost)

    def save_now(self, extra: Iterable[Statement] = ()) -> None:
        """Write all changes and `extra` and wait for the disk. Raises NoSpace or DatabaseInvalid; what was changed in
        memory stays so and is written later."""
        try:
            self.store.write([*self._rows(), *extra])
        except GildError as error:
            self.lost(error)
            raise

    @contextmanager
    def durable(self, chosen: Iterable[Node]) -> Iterator[None]:
        """What is done to these nodes and their orders inside the block is on the disk when it ends, or undone.
        Raises NoSpace or DatabaseInvalid, and whatever the block raises."""
        before = [(node, self.roster.orders.get(node.id)) for node in chosen]
        try:
            yield
            if before:
                self.save_now()
        except GildError as error:
            self._take_back(before, error)
            raise

    @asynccontextmanager
    async def durable_soon(self, node: Node) -> AsyncIterator[None]:
        """Like `durable` for one node, while the head goes on with others: machines that want their plans at the same
        time share a flush of the disk, which takes some milliseconds."""
        orders = self.roster.orders
        before, made = [(node, orders.get(node.id))], None
        try:
            yield
            made = orders.get(node.id)
            try:
                await self.store.written(self._rows())
            except GildError as error:
                self.lost(error)
                raise
        except GildError as error:
            if node.id in self.roster.nodes and orders.get(node.id) is made:  # not removed or cancelled meanwhile
                self._take_back(before, error)
            raise

    def lost(self, error: GildError | None) -> None:
        """A write failed, if `error` says so: remember to write everything again."""
        if error is not None:
            self._resave = True

    def _rows(self) -> list[Statement]:
        """Statements for everything changed since the last call."""
        roster = self.roster
        statements = [rows.node_row(roster.nodes[n]) for n in sorted(self.nodes) if n in roster.nodes]
        for node_id in sorted(self.facts):
            node = roster.nodes.get(node_id)
            if node is not None and node.facts is not None:
                statements.append(rows.facts_row(node_id, node.facts))
        statements += [rows.order_row(roster.orders[n]) for n in sorted(self.orders) if n in roster.orders]
        for pending in (self.nodes, self.facts, self.orders):
            pending.clear()
        return statements + roster.timeline.rows()

    def _take_back(self, before: list[tuple[Node, Order | None]], error: GildError) -> None:
        for node, order in before:
            self._undo(node, order)
            self.roster.timeline.note(node.id, f"a change was taken back: {error.message}", "bad")

    def _undo(self, node: Node, order: Order | None) -> None:
        roster = self.roster
        now = roster.nodes.get(node.id, node)
        roster.pool.unreserve(now.holder)
        if node.state is not State.WAITING and node.address:
            roster.pool.reserve(node.holder, node.address)
        roster.replace(node)
        if order is not None:
            roster.set_order(order)
        else:
            roster.orders.pop(node.id, None)

    def _mark_all(self) -> None:
        roster = self.roster
        self.nodes.update(roster.nodes)
        self.facts.update(roster.nodes)
        self.orders.update(roster.orders)
        roster.timeline.put_back()
        leases = [rows.lease_row(mac, lease.address, lease.expires) for mac, lease in roster.pool.leases()]
        profiles = [rows.profile_row(profile) for profile in roster.profiles.values()]
        self.store.submit([*leases, *profiles], self.lost)
