"""An order: permission to erase one node's disk once, or to read it once. `policy` decides who may have one.

The token is 128 random bits. Only its sha256 is kept, so a copy of the database gives nobody a right to anything.
Boot loaders ask for their script more than once, so every question gets a token of its own, and the one before it
stays good for a minute.
"""

from __future__ import annotations

import hashlib
import hmac
from dataclasses import dataclass, field, replace

from netboot.plan import DiskRule

LIFETIME = 3600.0  # seconds an order may wait for its node
OVERLAP = 60.0  # seconds a token stays good after the next one was given
MAX_TRIES = 3


@dataclass(frozen=True)
class Order:
    """One order. Times are seconds since 1970, 0 while it has not happened."""

    id: int
    node_id: int
    image: str  # name:version; of a capture the lineage
    digest: str  # sha256 of the manifest; of a capture empty
    created: float
    expires: float
    disk: DiskRule = field(default_factory=DiskRule)
    finish: str = "kexec"
    tokens: tuple[str, ...] = ()  # sha256 of the last token given and of the one before it
    given: float = 0.0  # when the last one was given
    used: float = 0.0  # when a plan was taken, last
    used_token: str = ""  # sha256 of the token that plan was taken with
    session: str = ""  # sha256 of the agent's session
    mac: str = ""  # the card that agent booted from
    tries: int = 0
    closed: float = 0.0
    outcome: str = ""
    home_secret: str = ""
    message: str = ""  # of a capture: what is new in the version

    @property
    def captures(self) -> bool:
        """Whether it is permission to read the disk, and not to erase it."""
        return not self.digest

    @property
    def text(self) -> str:
        """One line for people."""
        return f"{self.image}, {self.outcome or ('in use' if self.used else 'armed')}"


def hashed(secret: str) -> str:
    """What is kept of a token or a session: sha256, hex."""
    # JSON may bring lone surrogates, which plain UTF-8 cannot carry.
    return hashlib.sha256(secret.encode("utf-8", "surrogatepass")).hexdigest()


def is_open(order: Order | None, now: float) -> bool:
    """The order can still be taken up, for the first time or again after an interrupted installation."""
    return order is not None and not order.closed and now < order.expires and order.tries < MAX_TRIES


def give(order: Order, token: str, now: float) -> Order:
    """The order with one more token handed out."""
    return replace(order, tokens=(hashed(token), *order.tokens)[:2], given=now)


def accepts(order: Order, token: str, now: float) -> bool:
    """`token` is the last one given, or the one before it within its minute. Compared in constant time."""
    wanted = hashed(token)
    last = bool(order.tokens) and hmac.compare_digest(order.tokens[0], wanted)
    previous = len(order.tokens) > 1 and hmac.compare_digest(order.tokens[1], wanted)
    return last or (previous and now < order.given + OVERLAP)


def repeats(order: Order, token: str, session: str) -> bool:
    """The same agent asks for the same plan again: its first answer was lost on the way."""
    same_token = hmac.compare_digest(order.used_token, hashed(token))
    return bool(order.used) and same_token and hmac.compare_digest(order.session, hashed(session))


def take(order: Order, token: str, session: str, mac: str, now: float) -> Order:
    """The order with its token used up by the agent of `session`, booted from the card `mac`. An interrupted
    installation may go on for an hour from here: the erasing has been allowed and has begun."""
    return replace(
        order, tokens=(), used=now, used_token=hashed(token), session=hashed(session), mac=mac, tries=order.tries + 1,
        expires=max(order.expires, now + LIFETIME),
    )  # fmt: skip


READ = "read"  # how an order to capture ends for the machine: what is left to do is the head's


def close(order: Order, outcome: str, now: float) -> Order:
    """The order is over."""
    return order if order.closed else replace(order, closed=now, outcome=outcome, tokens=())
