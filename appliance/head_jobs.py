"""Rolling reinstalls as people order them, look at them and stop them. Every answer is ready for JSON."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from appliance.errors import Unknown, Wrong
from appliance.head_orders import Orders
from appliance.head_plan import Choice
from appliance.head_power import Powers
from appliance.head_rolling import Rolling, member_of, sha256_of
from appliance.roster import Roster
from netboot import rolling
from netboot.job import ACTIVE, ENDED, MAX_MEMBERS, Job, Phase
from netboot.moment import moment

MAX_OPEN = 20  # jobs at a time


class Jobs:
    """The operator's use cases around jobs."""

    def __init__(self, roster: Roster, orders: Orders, powers: Powers, rolling_: Rolling) -> None:
        self.roster, self.orders, self.powers, self.rolling = roster, orders, powers, rolling_

    def make(
        self,
        refs: Sequence[str] | None,
        *,
        at: str | None = None,
        batch: int | None = None,
        drain: bool = False,
        power: bool = False,
        failures: int | None = None,
        image: str | None = None,
        finish: str | None = None,
        disk: str | None = None,
        expect: str | None = None,
    ) -> dict[str, Any]:
        """A job that installs these nodes (None: those that `install` takes then), from the moment `at` on, `batch` at
        a time; without `expect` only what it would erase, and the digest to agree to it with. `drain` them first by the
        scheduler; `power`: restart those that have a BMC; more than `failures` failed nodes stop it. On the disk before
        this returns. Raises Wrong, MomentInvalid, and as `install` does."""
        roster, now, wall = self.roster, self.roster.clock.steady(), self.roster.clock.wall()
        start = now + (moment(at, wall) - wall if at else 0.0)
        choices = self.orders.choices(refs, image, finish, disk)
        size = len(choices) if batch is None else batch
        allowed = rolling.failures_allowed(size) if failures is None else failures
        self._check(choices, size, allowed, drain)
        members = tuple(member_of(choice) for choice in choices)
        # `at` as it was written: the clock goes on while somebody reads what would be erased.
        digest = sha256_of([at or "", size, drain, power, allowed, [member.digest for member in members]])
        by_hand = [choice.node.label for choice in choices if not (power and self.powers.way(choice.node))]
        answer = {
            "nodes": [dict(choice.row()) for choice in choices], "digest": digest,
            "at": self._wall(start) if at else 0.0, "batch": size, "failures": allowed, "by_hand": by_hand,
        }  # fmt: skip
        if expect is None:
            return answer
        if expect != digest:
            raise Wrong("what would be erased has changed since it was shown", "look at it again and repeat the order")
        number = max(self.rolling.table, default=0) + 1
        words = (image or "", finish or "", disk or "")
        self.rolling.add(Job(number, now, start, size, members, drain, power, allowed, *words))
        for member in members:
            roster.timeline.add(member.node_id, f"is in job {number}: {member.image}, {size} at a time")
        return {**answer, "job": number}

    def jobs(self) -> list[dict[str, Any]]:
        """A row a job, the newest first."""
        return [self._row(job) for job in sorted(self.rolling.table.values(), key=lambda job: -job.id)]

    def job(self, number: int) -> dict[str, Any]:
        """One job with its nodes. Raises Unknown."""
        job = self._find(number)
        shown = ("node_id", "image", "disk", "content", "phase", "why", "order", "restarts", "drained")
        members = []
        for member in job.members:
            row = asdict(member)
            times = {key: self._wall(row[key]) if row[key] else 0.0 for key in ("since", "begun")}
            members.append({"node": self.rolling.label(member), **{key: row[key] for key in shown}, **times})
        return {**self._row(job), "members": members}

    def stop(self, number: int) -> dict[str, Any]:
        """Begin nobody any more; orders that nobody has used are taken back, what is being written goes on. Raises
        Unknown, JobInvalid."""
        self.rolling.keep(rolling.stop(self._find(number), "stopped by hand"))
        self.rolling.tick()
        return self._row(self.rolling.table[number])

    def retry(self, number: int, expect: str | None = None) -> dict[str, Any]:
        """A new job for the nodes of an old one that are not done, with the same wishes and without delay; without
        `expect` only what it would erase. Raises Unknown, JobInvalid, and as `make` does."""
        job = self._find(number)
        wanted = set(rolling.again(job))
        left = [self.rolling.label(m) for m in job.members if m.name in wanted and m.node_id in self.roster.nodes]
        if not left:
            raise Wrong(f"none of the nodes of job {number} is left")
        return self.make(
            left, batch=min(job.batch, len(left)), drain=job.drain, power=job.power, failures=job.failures,
            image=job.image or None, finish=job.finish or None, disk=job.disk or None, expect=expect,
        )  # fmt: skip

    def _check(self, choices: Sequence[Choice], batch: int, failures: int, drain: bool) -> None:
        if not choices:
            raise Wrong("no node to install", "name them: gild.pyz node install NODES")
        if len(choices) > MAX_MEMBERS:
            raise Wrong(f"{len(choices)} nodes are too many for one job", f"at most {MAX_MEMBERS}")
        if not 1 <= batch <= MAX_MEMBERS or not 0 <= failures <= MAX_MEMBERS:
            raise Wrong(f"a batch has 1 to {MAX_MEMBERS} nodes, of which 0 to {MAX_MEMBERS} may fail")
        if drain and self.rolling.drainer.scheduler is None:
            raise Wrong("no scheduler is known here that could drain nodes", "leave --drain away")
        open_ = [job for job in self.rolling.table.values() if not job.closed]
        if len(open_) >= MAX_OPEN:
            raise Wrong(f"{MAX_OPEN} jobs are open already", "see: gild.pyz job list")
        taken = {member.node_id: job.id for job in open_ for member in job.members if member.phase not in ENDED}
        for choice in choices:
            if choice.node.id in taken:
                number = taken[choice.node.id]
                raise Wrong(f"{choice.node.label} is in job {number} already", f"first: gild.pyz job stop {number}")

    def _find(self, number: int) -> Job:
        if number not in self.rolling.table:
            raise Unknown(f"there is no job {number}", "see: gild.pyz job list")
        return self.rolling.table[number]

    def _wall(self, at: float) -> float:
        return at - self.roster.clock.steady() + self.roster.clock.wall()

    def _row(self, job: Job) -> dict[str, Any]:
        counts = {phase.value: sum(member.phase is phase for member in job.members) for phase in Phase}
        return {
            "id": job.id, "word": job.word, "why": job.stopping, "created": self._wall(job.created),
            "at": self._wall(job.at), "closed": self._wall(job.closed) if job.closed else 0.0, "batch": job.batch,
            "drain": job.drain, "power": job.power, "failures": job.failures, "nodes": len(job.members),
            "images": sorted({member.image for member in job.members})[:10],
            "active": sum(member.phase in ACTIVE for member in job.members),
            "counts": {phase: count for phase, count in counts.items() if count},
        }  # fmt: skip
