"""Rolling reinstalls: many nodes, so many at a time, each drained, erased, installed and given back.

A job is data, and `step` says what comes next from what is seen; whoever carries it out may be switched off at any
moment and goes on where the data says. Nothing is erased but what was shown when the job was made: every member has the
digest of its line of that preview, and one that would be another thing by now is left out. A node that fails never
stops the others, until there are more of them than the job allows.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any, Protocol

from netboot.job import (
    ACTIVE,
    ENDED,
    FAILURES,
    Act,
    Arming,
    Draining,
    Job,
    JobInvalid,
    Member,
    Phase,
    Restarting,
    Resuming,
    Seen,
    Telling,
    Withdrawing,
)
from netboot.node import State
from netboot.report import OWN_LOADER

RESTARTS = 2  # tries to have a node ask for an address


class Drain(Protocol):
    """What keeps work off nodes: a scheduler. Each call may take its time, and raises GildError."""

    def drain(self, names: Iterable[str]) -> None:
        """No new work for these nodes. Twice is harmless."""

    def resume(self, names: Iterable[str]) -> None:
        """Work again. Of nodes that were never drained too."""

    def busy(self, names: Iterable[str]) -> set[str]:
        """Those that still have work."""


def step(job: Job, seen: Mapping[int, Seen], now: float) -> tuple[Job, tuple[Act, ...]]:
    """The job as it stands at `now`, and what has to be done. What was not carried out is asked for again the next
    time: every act may be repeated. Total: never raises."""
    if job.closed:
        return job, ()
    acts: list[Act] = []
    nothing = Seen(None)
    members = tuple(_moved(job, member, seen.get(member.node_id, nothing), now, acts) for member in job.members)
    failed = sum(member.phase is Phase.FAILED for member in members)
    stopping = job.stopping
    if not stopping and failed > job.failures:
        stopping = f"{failed} nodes failed, and {job.failures} may"
    if stopping:
        members = tuple(_let_go(member, now) for member in members)
    elif now >= job.at:
        members = _begun(job, members, seen, now, acts)
    now_seen = [(member, seen.get(member.node_id, nothing)) for member in members]
    asked = tuple(m.node_id for m, s in now_seen if m.phase is Phase.DRAINING and not s.drain)
    back = tuple(m.node_id for m in members if m.drained and m.phase in ENDED - {Phase.FAILED})
    # An order that was given and is of no use any more must not lie in wait for the node's next boot.
    unused = [Withdrawing(m.node_id, m.order) for m, s in now_seen if m.phase in ENDED and _lies_open(m, s)]
    acts += [Draining(asked)] if asked else []
    acts += [Resuming(back)] if back else []
    acts += unused
    over = not back and not unused and all(member.phase in ENDED for member in members)
    return replace(job, members=members, stopping=stopping, closed=now if over else 0.0), tuple(acts)


def _lies_open(member: Member, seen: Seen) -> bool:
    return bool(member.order) and seen.order == member.order and not seen.used and not seen.outcome


def _begun(
    job: Job, members: tuple[Member, ...], seen: Mapping[int, Seen], now: float, acts: list[Act]
) -> tuple[Member, ...]:
    """As many more as there is room for."""
    room = job.batch - sum(member.phase in ACTIVE for member in members)
    found = []
    for member in members:
        if member.phase is Phase.PLANNED and room > 0:
            room -= 1
            acts.append(Telling(member.node_id, f"its turn in job {job.id}: {member.image}"))
            phase = Phase.DRAINING if job.drain else Phase.ARMING
            member = replace(member, phase=phase, since=now, begun=now, drained=job.drain)
            acts += [Arming(member.node_id)] if phase is Phase.ARMING else []
        found.append(member)
    return tuple(found)


def _moved(job: Job, member: Member, seen: Seen, now: float, acts: list[Act]) -> Member:
    """One member, from what is seen of it."""
    if member.phase not in ACTIVE:
        return member
    if seen.state is None:
        ended = _ended(job, replace(member, drained=False), Phase.LEFT_OUT, "is no node any more", now, acts)
        return replace(ended, phase=Phase.FAILED) if member.phase is Phase.INSTALLING else ended
    if member.phase is Phase.DRAINING:
        return _draining(job, member, seen, now, acts)
    if member.phase is Phase.ARMING:
        # Whoever carried it out may have been switched off between the order and the note of it.
        if seen.order and seen.created >= member.since:
            return replace(member, phase=Phase.ORDERED, since=now, order=seen.order)
        acts.append(Arming(member.node_id))
        return member
    if seen.order != member.order:
        phase = Phase.FAILED if member.phase is Phase.INSTALLING else Phase.LEFT_OUT
        return _ended(job, member, phase, "somebody has given it another order", now, acts)
    if member.phase is Phase.ORDERED:
        return _ordered(job, member, seen, now, acts)
    return _installing(job, member, seen, now, acts)


def _draining(job: Job, member: Member, seen: Seen, now: float, acts: list[Act]) -> Member:
    if seen.drain == "failed":
        return _ended(job, member, Phase.LEFT_OUT, f"cannot be drained: {seen.drain_text}", now, acts)
    if seen.drain == "idle":
        acts.append(Arming(member.node_id))
        return replace(member, phase=Phase.ARMING, since=now, why="")
    if now - member.since >= job.drain_seconds:
        return _ended(job, member, Phase.LEFT_OUT, f"still has work after {_span(job.drain_seconds)}", now, acts)
    return replace(member, why="finishes its work" if seen.drain == "busy" else "")


def _ordered(job: Job, member: Member, seen: Seen, now: float, acts: list[Act]) -> Member:
    if seen.used:
        return _installing(job, replace(member, phase=Phase.INSTALLING, since=now, why=""), seen, now, acts)
    if seen.outcome == "cancelled":
        return _ended(job, member, Phase.STOPPED, "its order was taken back", now, acts)
    if seen.outcome:
        why = seen.reason or "was not restarted while its order was good"
        return _ended(job, member, Phase.FAILED, why if seen.outcome == "failed" else _unused(member), now, acts)
    if not job.power or not seen.way:
        return replace(member, why="waits for somebody to restart it")
    gone_wrong = seen.power in ("silent", "failed")
    if member.restarts and not gone_wrong:
        return replace(member, why="" if seen.power == "heard" else "is being restarted")
    if member.restarts < RESTARTS:
        acts.append(Restarting(member.node_id))
        return member
    return _ended(job, member, Phase.FAILED, seen.power_text, now, acts)


def _installing(job: Job, member: Member, seen: Seen, now: float, acts: list[Act]) -> Member:
    last = seen.state is State.INSTALLED and seen.finish in ("poweroff", OWN_LOADER)  # it does not call home
    if seen.outcome == "finished" and (seen.state is State.UP or last):
        return _ended(job, member, Phase.DONE, "", now, acts)
    if seen.state in (State.FAILED, State.LOST):
        return _ended(job, member, Phase.FAILED, seen.reason, now, acts)
    if seen.outcome == "cancelled":
        return _ended(job, member, Phase.FAILED, "stopped by hand in the middle of it", now, acts)
    if now - member.since >= job.install_seconds:
        return _ended(job, member, Phase.FAILED, f"not up after {_span(job.install_seconds)}", now, acts)
    return member


def _let_go(member: Member, now: float) -> Member:
    """A member of a job that stops: what is not erased yet stays as it is, what is being written goes on."""
    if member.phase in ENDED or member.phase is Phase.INSTALLING:
        return member
    return replace(member, phase=Phase.STOPPED, since=now, why="")


def _ended(job: Job, member: Member, phase: Phase, why: str, now: float, acts: list[Act]) -> Member:
    told = {
        Phase.FAILED: (f"failed in job {job.id}: {why}" + (", and stays drained" if member.drained else ""), "bad"),
        Phase.LEFT_OUT: (f"left out of job {job.id}: {why}", "warn"),
    }.get(phase)
    if told is not None:
        acts.append(Telling(member.node_id, *told))
    return replace(member, phase=phase, since=now, why=why)


def _unused(member: Member) -> str:
    return "was restarted and never came for its order" if member.restarts else "nobody restarted it within the hour"


# --- what was carried out


def armed(job: Job, node_id: int, order: int, now: float) -> Job:
    """The member has its order."""
    return _with(job, node_id, Phase.ARMING, phase=Phase.ORDERED, since=now, order=order)


def left_out(job: Job, node_id: int, why: str, now: float) -> tuple[Job, tuple[Act, ...]]:
    """The member cannot have its order, or not the one that was shown."""
    acts: list[Act] = []
    members = tuple(
        _ended(job, member, Phase.LEFT_OUT, why, now, acts)
        if member.node_id == node_id and member.phase is Phase.ARMING
        else member
        for member in job.members
    )
    return replace(job, members=members), tuple(acts)


def restarted(job: Job, node_id: int, now: float) -> Job:
    """The member's BMC was told."""
    count = next((member.restarts for member in job.members if member.node_id == node_id), 0)
    return _with(job, node_id, Phase.ORDERED, restarts=count + 1, told_at=now)


def resumed(job: Job, node_ids: Iterable[int], problem: str = "") -> Job:
    """The members have work again, or cannot be given back for a reason that somebody has to look at."""
    chosen = set(node_ids)
    members = tuple(
        replace(member, drained=False, why=problem or member.why) if member.node_id in chosen else member
        for member in job.members
    )
    return replace(job, members=members)


def stop(job: Job, why: str) -> Job:
    """Begin nobody any more. Raises JobInvalid if it is over."""
    if job.closed:
        raise JobInvalid(f"job {job.id} is over", f"see: gild.pyz job show {job.id}")
    return job if job.stopping else replace(job, stopping=why)


def again(job: Job) -> list[str]:
    """The nodes of a job that is over and did not get what they should have. Raises JobInvalid if there are none."""
    if not job.closed:
        raise JobInvalid(f"job {job.id} is not over", f"gild.pyz job stop {job.id}")
    names = [member.name for member in job.members if member.phase is not Phase.DONE]
    if not names:
        raise JobInvalid(f"all nodes of job {job.id} are done")
    return names


def failures_allowed(batch: int) -> int:
    """How many nodes may fail where nobody has said it."""
    return max(FAILURES, batch // 2)


def _with(job: Job, node_id: int, only: Phase, **changes: Any) -> Job:
    members = tuple(
        replace(member, **changes) if member.node_id == node_id and member.phase is only else member
        for member in job.members
    )
    return replace(job, members=members)


def _span(seconds: float) -> str:
    return f"{seconds / 3600:.0f} h" if seconds >= 7200 else f"{seconds / 60:.0f} min"
