"""A job: installations of many nodes, as data. What is done about it is in netboot.rolling."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from images.errors import GildError
from netboot.node import State

MAX_MEMBERS = 4096  # what a message of netboot.wire holds of a list
FAILURES = 3  # nodes that may fail before a job stops, or half a batch if that is more
DRAIN_SECONDS = 4 * 3600.0  # a node may finish its work in
INSTALL_SECONDS = 2 * 3600.0  # from the order to up


class JobInvalid(GildError):
    """A job that cannot be."""


class Phase(StrEnum):
    """How far a node has come in a job."""

    PLANNED = "planned"
    DRAINING = "draining"
    ARMING = "arming"
    ORDERED = "ordered"  # it may be erased, and is being restarted
    INSTALLING = "installing"
    DONE = "done"
    FAILED = "failed"
    LEFT_OUT = "left out"  # untouched, for a reason of its own
    STOPPED = "stopped"  # untouched, for the job was


ACTIVE = frozenset({Phase.DRAINING, Phase.ARMING, Phase.ORDERED, Phase.INSTALLING})
ENDED = frozenset({Phase.DONE, Phase.FAILED, Phase.LEFT_OUT, Phase.STOPPED})


@dataclass(frozen=True)
class Member:
    """One node of a job. Times are seconds since 1970, 0 while it has not happened."""

    node_id: int
    name: str
    image: str  # image, disk and content as they were shown
    disk: str
    content: str
    digest: str  # sha256 of that line, of the image's manifest and of the rule for the disk
    phase: Phase = Phase.PLANNED
    since: float = 0.0  # of the phase
    begun: float = 0.0
    order: int = 0
    restarts: int = 0  # times its BMC was told
    told_at: float = 0.0  # the last of them
    drained: bool = False  # it has no work because of this job
    why: str = ""


@dataclass(frozen=True)
class Job:
    """Installations of many nodes. `image`, `finish` and `disk` are as somebody asked for them, "" for what the nodes'
    profiles say."""

    id: int
    created: float
    at: float  # not before this
    batch: int  # nodes at a time
    members: tuple[Member, ...]
    drain: bool = False
    power: bool = False  # restart those that have a BMC
    failures: int = FAILURES  # more stop the job
    image: str = ""
    finish: str = ""
    disk: str = ""
    drain_seconds: float = DRAIN_SECONDS
    install_seconds: float = INSTALL_SECONDS
    stopping: str = ""  # why nobody is begun any more
    closed: float = 0.0

    @property
    def word(self) -> str:
        """What it does, in a word or two."""
        if self.closed:
            return "stopped" if self.stopping else "done"
        if self.stopping:
            return "stopping"
        return "running" if any(member.begun for member in self.members) else "waiting"


@dataclass(frozen=True)
class Seen:
    """What is known of a member now. `order` is the number of its last order; `used`, `outcome` and `created` are that
    order's. `drain`: "" (nobody was asked yet), "asked", "busy", "idle" or "failed". `power`: "" or the standing of
    its last restart by this job: "told", "awaited", "heard", "silent" or "failed". `way`: it can be restarted."""

    state: State | None  # None: there is no such node any more
    reason: str = ""
    finish: str = ""
    order: int = 0
    created: float = 0.0
    used: bool = False
    outcome: str = ""
    drain: str = ""
    drain_text: str = ""
    power: str = ""
    power_text: str = ""
    way: bool = False


@dataclass(frozen=True)
class Draining:
    """Act: keep work off these nodes."""

    node_ids: tuple[int, ...]


@dataclass(frozen=True)
class Resuming:
    """Act: give these nodes back; `resumed` is called once it is done."""

    node_ids: tuple[int, ...]


@dataclass(frozen=True)
class Arming:
    """Act: the order for a member, if what it would erase still has the member's digest; then `armed` or
    `left_out`. The job, with this member in ARMING, must be on the disk before."""

    node_id: int


@dataclass(frozen=True)
class Restarting:
    """Act: switch a node off and on; then `restarted`."""

    node_id: int


@dataclass(frozen=True)
class Withdrawing:
    """Act: take an order back that nobody has used."""

    node_id: int
    order: int


@dataclass(frozen=True)
class Telling:
    """Act: a line on a node's timeline."""

    node_id: int
    text: str
    level: str = "info"


Act = Draining | Resuming | Arming | Restarting | Withdrawing | Telling
