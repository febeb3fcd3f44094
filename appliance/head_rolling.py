"""Jobs carried out: netboot.rolling says what comes next, and here it is done. On the event loop, and never waiting."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from dataclasses import replace
from typing import Any

from appliance import rows
from appliance.draining import Drainer
from appliance.errors import Wrong
from appliance.head_orders import Orders
from appliance.head_plan import Choice
from appliance.head_power import Powers
from appliance.roster import Roster
from images.errors import GildError
from netboot import rolling
from netboot.job import (
    ENDED,
    Act,
    Arming,
    Draining,
    Job,
    Member,
    Phase,
    Restarting,
    Resuming,
    Seen,
    Telling,
    Withdrawing,
)
from netboot.order import is_open
from netboot.profile import rule_text

KEPT = 200  # jobs that are over


class Rolling:
    """All jobs, and their progress."""

    def __init__(self, roster: Roster, orders: Orders, powers: Powers) -> None:
        """Load them: those that were running go on. Raises DatabaseInvalid."""
        self.roster, self.orders, self.powers = roster, orders, powers
        self.table: dict[int, Job] = {job.id: job for job in rows.load_jobs(roster.store)}
        self.drainer = Drainer()
        self._unsaved: set[int] = set()

    def add(self, job: Job) -> None:
        """One more; on the disk before this returns. Raises NoSpace."""
        self.roster.save_now([rows.job_row(job)])
        self.table[job.id] = job
        over = sorted(number for number, each in self.table.items() if each.closed)
        for number in over[: max(0, len(over) - KEPT)]:
            del self.table[number]
            self.roster.store.submit([rows.job_gone(number)])

    def keep(self, job: Job) -> None:
        """A job that has changed. What the disk does not take now is written again later."""

        def saved(error: GildError | None) -> None:
            if error is not None:
                self._unsaved.add(job.id)

        self.table[job.id] = job
        self.roster.store.submit([rows.job_row(job)], saved)
        self.roster.timeline.wake()

    def tick(self) -> None:
        """Every open job a step further."""
        self.drainer.collect()
        for job in [job for job in self.table.values() if not job.closed]:
            self._step(job)
        for number in [number for number in self._unsaved if not self.roster.store.problem]:
            self._unsaved.discard(number)
            if number in self.table:
                self.keep(self.table[number])

    def label(self, member: Member) -> str:
        """The name of a member now: it may have been renamed."""
        node = self.roster.nodes.get(member.node_id)
        return node.label if node is not None else member.name

    # --- one step

    def _step(self, job: Job) -> None:
        now = self.roster.clock.steady()
        after, acts = rolling.step(job, {member.node_id: self._seen(member) for member in job.members}, now)
        arming = [act.node_id for act in acts if isinstance(act, Arming)]
        if arming:
            # There must be no order that no job remembers having wanted.
            try:
                self.roster.save_now([rows.job_row(after)])
            except GildError:
                return  # the disk is full: nothing happens until it takes something again
            job = self.table[job.id] = after
        after = self._carry_out(after, acts, now)
        after = self._arm(after, arming, now)
        draining = [member for member in after.members if member.phase is Phase.DRAINING]
        self.drainer.watch({member.node_id: self.label(member) for member in draining}, now)
        if after != job:
            self.keep(after)

    def _carry_out(self, job: Job, acts: Iterable[Act], now: float) -> Job:
        """Everything but orders."""
        restarting: list[int] = []
        for act in acts:
            if isinstance(act, Telling) and act.node_id in self.roster.nodes:
                self.roster.timeline.add(act.node_id, act.text, act.level)
            elif isinstance(act, Draining):
                self.drainer.drain(self._names(act.node_ids))
            elif isinstance(act, Resuming):
                job = self._resume(job, act)
            elif isinstance(act, Restarting):
                restarting.append(act.node_id)
            elif isinstance(act, Withdrawing):
                self._withdraw(act)
        if restarting:
            self.powers.restart([self.roster.nodes[node_id] for node_id in restarting])
        for node_id in restarting:
            job = rolling.restarted(job, node_id, now)
        return job

    def _resume(self, job: Job, act: Resuming) -> Job:
        asked: list[int] = []
        for node_id in act.node_ids:
            word, text = self.drainer.words.get(node_id, ("", ""))
            if node_id not in self.roster.nodes or word == "resumed":
                job = rolling.resumed(job, [node_id])
            elif word == "stuck":
                problem = f"cannot be given back to the scheduler: {text}"
                self.roster.timeline.add(node_id, problem, "bad")
                job = rolling.resumed(job, [node_id], problem)
            elif word != "resuming":
                asked.append(node_id)
                continue
            else:
                continue
            self.drainer.forget(node_id)
        if asked:
            self.drainer.resume(self._names(asked))
        return job

    def _withdraw(self, act: Withdrawing) -> None:
        try:
            self.orders.cancel([self.roster.nodes[act.node_id].label])
        except GildError as error:  # asked for again in a second: said once
            self.roster.timeline.note(act.node_id, f"its order cannot be taken back: {error.message}", "bad")

    def _arm(self, job: Job, node_ids: Iterable[int], now: float) -> Job:
        """The orders of those whose disk and image are what was shown; the others are left out."""
        good: list[Choice] = []
        for member in [member for member in job.members if member.node_id in set(node_ids)]:
            try:
                good.append(self._same(job, member))
            except GildError as error:
                job, told = rolling.left_out(job, member.node_id, error.message, now)
                job = self._carry_out(job, told, now)
        try:
            self.orders.arm(good)
        except GildError:
            return job  # the disk is full: they are still to be armed
        for choice in good:
            job = rolling.armed(job, choice.node.id, self.roster.orders[choice.node.id].id, now)
        return job

    def _same(self, job: Job, member: Member) -> Choice:
        """What an order for the member would do, if that is what was shown. Raises Wrong, and as Orders.choices."""
        (choice,) = self.orders.choices([self.label(member)], job.image or None, job.finish or None, job.disk or None)
        now = member_of(choice)
        if now.digest != member.digest:
            raise Wrong(f"what would be erased is not what was shown: {_difference(member, now)}")
        return choice

    def _seen(self, member: Member) -> Seen:
        node = self.roster.nodes.get(member.node_id)
        if node is None or member.phase is Phase.PLANNED:
            return Seen(node.state if node else None)
        drain, drain_text = self.drainer.words.get(node.id, ("", ""))
        seen = Seen(node.state, node.reason, node.finish, drain=drain, drain_text=drain_text, way=self.powers.way(node))
        order, now = self.roster.orders.get(node.id), self.roster.clock.steady()
        if order is not None:
            over = order.outcome or ("" if order.used or is_open(order, now) else "expired")
            seen = replace(seen, order=order.id, created=order.created, used=bool(order.used), outcome=over)
        standing = self.powers.standings.get(node.id)
        if standing is not None and standing.since >= member.told_at and member.phase not in ENDED:
            seen = replace(seen, power=standing.phase, power_text=standing.text)
        return seen

    def _names(self, node_ids: Iterable[int]) -> dict[int, str]:
        return {number: node.label for number in node_ids if (node := self.roster.nodes.get(number)) is not None}


def member_of(choice: Choice) -> Member:
    """A member of a job, from what its order would do."""
    row = choice.row()
    digest = sha256_of([row, choice.digest, rule_text(choice.rule), choice.finish])
    return Member(choice.node.id, row["node"], row["image"], row["disk"], row["content"], digest)


def sha256_of(value: Any) -> str:
    """Of a value as JSON, hex."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


def _difference(shown: Member, now: Member) -> str:
    for what in ("image", "disk", "content", "name"):
        before, after = getattr(shown, what), getattr(now, what)
        if before != after:
            return f"{what} {after}, not {before}"
    return "the image, the rule for its disk or its finish"
