"""Which machine has which address. In memory, pure; the journal is the caller's.

A machine is its MAC and nothing else: ROM, iPXE, installer and installed system send four different client
identifiers (option 61), and a server that believed them would give one machine four addresses.
"""

from __future__ import annotations

import heapq
from collections import OrderedDict
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from ipaddress import IPv4Address, IPv4Network

from images.errors import GildError

OFFER_SECONDS = 60.0  # an offer nobody takes up goes back to the pool
ASIDE_SECONDS = 600.0  # an address that was declined is somebody else's; it is tried again later
MAX_POOL = 1 << 16  # addresses: the table is held in memory


class LeaseInvalid(GildError):
    """The range does not lie in the network, is empty, or too large."""


@dataclass(slots=True)
class Lease:
    """One address in use. Times in seconds of the caller's clock; `offered` until the client has taken it up."""

    address: str
    expires: float
    offered: bool
    before: str = ""  # the MAC that had the address last, should this offer come to nothing


class Pool:
    """Addresses of one network. Every call takes `now`, seconds of a clock that only goes forward.

    Every address of the range is in exactly one place: held by a MAC, set aside, reserved, or idle. Idle ones stand in
    the order of their last use, so the longest unused is given away first and a machine that comes back after its
    lease ended mostly finds its old address. No table outgrows range + reservations; every call is O(1), but for the
    heap of expiry times (O(log n)).
    """

    def __init__(self, network: str, range_first: str, range_last: str, exclude: Iterable[str] = ()) -> None:
        """`network` as "10.0.0.0/16"; the range is inclusive; `exclude` is never given away (head, router, hosts with
        fixed addresses). Raises LeaseInvalid."""
        try:
            self.network = IPv4Network(network, strict=False)
            first, last = IPv4Address(range_first), IPv4Address(range_last)
            self._low, self._high = int(self.network[0]), int(self.network[-1])
            excluded = {int(IPv4Address(address)) for address in exclude}
        except ValueError as error:
            raise LeaseInvalid(f"address range {range_first} to {range_last} in {network}: {error}") from None
        if first > last or first not in self.network or last not in self.network:
            raise LeaseInvalid(
                f"address range {range_first} to {range_last} does not lie in {self.network}",
                f"use a range between {self.network.network_address} and {self.network.broadcast_address}",
            )
        if int(last) - int(first) >= MAX_POOL:
            raise LeaseInvalid(f"address range {range_first} to {range_last} has more than {MAX_POOL} addresses")
        excluded |= {int(self.network.network_address), int(self.network.broadcast_address)}
        self._members = frozenset(n for n in range(int(first), int(last) + 1) if n not in excluded)
        if not self._members:
            raise LeaseInvalid(f"address range {range_first} to {range_last} has no usable address")
        # address -> the MAC that had it last ("" = nobody yet)
        self._idle: OrderedDict[str, str] = OrderedDict((str(IPv4Address(n)), "") for n in sorted(self._members))
        self._before: dict[str, str] = {}  # MAC -> idle address it had last
        self._leases: dict[str, Lease] = {}
        self._holder: dict[str, str] = {}  # address -> MAC
        self._reserved: dict[str, str] = {}  # MAC -> address
        self._reserved_for: dict[str, str] = {}  # address -> MAC
        self._aside: OrderedDict[str, float] = OrderedDict()
        # Renewals add no entry: one that comes up early is put back with the lease's new end.
        self._due: list[tuple[float, str]] = []

    def reserve(self, mac: str, address: str) -> None:
        """`mac` gets `address` from now on and nobody else does; in the range or not, but in the network. Whoever
        holds it by chance loses it at the next renewal. Raises LeaseInvalid."""
        try:
            inside = IPv4Address(address) in self.network
        except ValueError:
            inside = False
        if not inside:
            raise LeaseInvalid(f"reserved address {address} for {mac} does not lie in {self.network}")
        other = self._reserved_for.get(address)
        if other not in (None, mac):
            raise LeaseInvalid(f"address {address} is reserved for {other} already, {mac} cannot have it")
        if self._reserved.get(mac) != address:
            self.unreserve(mac)
        self._reserved[mac] = address
        self._reserved_for[address] = mac
        self._unidle(address)
        holder = self._holder.get(address)
        if holder is not None and holder != mac:
            self._drop(holder)
        lease = self._leases.get(mac)
        if lease and lease.address != address:
            self._drop(mac)

    def unreserve(self, mac: str) -> None:
        """Take the reservation back; the machine keeps the address as a lease until that ends."""
        address = self._reserved.pop(mac, None)
        if address is None:
            return
        del self._reserved_for[address]
        if address not in self._holder and address not in self._aside:
            self._make_idle(address, mac)

    def known(self, mac: str) -> bool:
        """This MAC has a reservation or has taken up a lease."""
        lease = self._leases.get(mac)
        return mac in self._reserved or (lease is not None and not lease.offered)

    def holds(self, address: str) -> bool:
        """The address lies in this network."""
        number = _number(address)
        return number is not None and self._low <= number <= self._high

    def lease(self, mac: str) -> Lease | None:
        """What `mac` has taken up or is offered."""
        return self._leases.get(mac)

    def holder(self, address: str) -> str:
        """The MAC that has or is offered the address now, or ""."""
        return self._holder.get(address, "")

    def fresh(self, address: str) -> bool:
        """Nobody is known to have had this address before."""
        return self._idle.get(address, "?") == ""

    def next_free(self, avoid: Collection[str]) -> str:
        """The address idle for longest that is none of `avoid`; empty if there is none."""
        return next((address for address in self._idle if address not in avoid), "")

    def reservations(self) -> Iterator[tuple[str, str]]:
        """(MAC, address) of every reservation."""
        return iter(self._reserved.items())

    def count(self) -> int:
        """Leases and offers."""
        return len(self._leases)

    def address(self, mac: str) -> str | None:
        """What `mac` has, is offered, or will be given: its lease or its reservation."""
        lease = self._leases.get(mac)
        return lease.address if lease else self._reserved.get(mac)

    def offer(self, mac: str, requested: str | None, now: float) -> str | None:
        """An address for `mac`, held for 60 seconds, or None if the pool is empty.

        In this order: its reservation (unless that address was declined lately), what it holds, what it had last, what
        it asks for if that is idle, the address that has been idle longest.
        """
        self.expire(now)
        reserved = self._reserved.get(mac)
        lease = self._leases.get(mac)
        if reserved is not None and reserved not in self._aside:
            if lease is not None and lease.address == reserved:
                if lease.offered:
                    lease.expires = now + OFFER_SECONDS
                return reserved
            self._drop(mac)
            return self._hold(mac, reserved, now + OFFER_SECONDS, True)
        if lease is not None:
            if lease.offered:
                lease.expires = now + OFFER_SECONDS
            return lease.address
        choice = self._before.get(mac)
        if choice is None and requested is not None and requested in self._idle and not self._idle[requested]:
            choice = requested
        if choice is None:
            choice = next(iter(self._idle), None)
        return None if choice is None else self._hold(mac, choice, now + OFFER_SECONDS, True)

    def commit(self, mac: str, address: str, now: float, seconds: float) -> bool:
        """The client takes up (or renews) `address`. False if it may not have it: answer with a NAK.

        An idle address of the pool is granted even without an offer (a client that reboots with a lease from before
        our restart, RFC 2131 section 4.3.2, INIT-REBOOT), unless another machine had it last.
        """
        self.expire(now)
        reserved = self._reserved.get(mac)
        if reserved is not None and reserved != address and reserved not in self._aside:
            return False
        lease = self._leases.get(mac)
        if lease is not None and lease.address == address:
            if now + seconds < lease.expires:
                heapq.heappush(self._due, (now + seconds, mac))
            lease.expires, lease.offered = now + seconds, False
            return True
        if address in self._aside or (address != reserved and self._idle.get(address, "?") not in ("", mac)):
            return False
        self._drop(mac)
        self._hold(mac, address, now + seconds, False)
        return True

    def learn(self, mac: str, address: str, now: float, seconds: float) -> None:
        """Another server has given `mac` this address of the network, in the range or not; whoever was thought to have
        it has not."""
        self.expire(now)
        holder = self._holder.get(address, "")
        if holder != mac:
            self._drop(holder)
        lease = self._leases.get(mac)
        if lease is not None and lease.address == address:
            lease.expires, lease.offered = max(lease.expires, now + seconds), False
            return
        self._drop(mac)
        self._hold(mac, address, now + seconds, False)

    def release(self, mac: str, address: str, now: float) -> bool:
        """The client gives `address` back. False, and nothing changes, if it does not hold it."""
        self.expire(now)
        lease = self._leases.get(mac)
        if lease is None or lease.address != address:
            return False
        self._drop(mac)
        return True

    def decline(self, mac: str, address: str, now: float) -> bool:
        """The client found `address` in use by somebody else: nobody gets it for ten minutes. False, and nothing
        changes, if it was not this client's address: anyone could empty the pool otherwise."""
        self.expire(now)
        lease = self._leases.get(mac)
        if lease is None or lease.address != address:
            return False
        self._drop(mac)
        self._unidle(address)
        self._aside[address] = now + ASIDE_SECONDS
        return True

    def restore(self, mac: str, address: str, expires: float) -> bool:
        """Put back a lease from the journal at start. False if it no longer fits (range or reservations changed)."""
        if address not in self._idle and self._reserved.get(mac) != address:
            return False
        if mac in self._leases or self._reserved.get(mac, address) != address or address in self._holder:
            return False
        self._hold(mac, address, expires, False)
        return True

    def leases(self) -> Iterator[tuple[str, Lease]]:
        """(MAC, lease) of every address in use or on offer; do not change the pool while iterating."""
        return iter(self._leases.items())

    def free(self) -> int:
        """Addresses a new machine could be given now."""
        return len(self._idle)

    def expire(self, now: float) -> list[str]:
        """Let go of what has run out by `now`; returns the MACs whose taken-up leases ended. Every other call does
        this first, at the cost of what has run out since."""
        ended = []
        while self._due and self._due[0][0] <= now:
            _, mac = heapq.heappop(self._due)
            lease = self._leases.get(mac)
            if lease is None:
                continue
            if lease.expires > now:
                heapq.heappush(self._due, (lease.expires, mac))
                continue
            if not lease.offered:
                ended.append(mac)
            self._drop(mac)
        while self._aside and next(iter(self._aside.values())) <= now:
            address, _ = self._aside.popitem(last=False)
            if address not in self._reserved_for:
                self._make_idle(address, "")
        return ended

    def _hold(self, mac: str, address: str, expires: float, offered: bool) -> str:
        self._leases[mac] = Lease(address, expires, offered, self._unidle(address))
        self._holder[address] = mac
        if len(self._due) > 2 * len(self._leases) + 1024:  # left over from leases that were given back early
            self._due = [(lease.expires, holder) for holder, lease in self._leases.items()]
            heapq.heapify(self._due)
        else:
            heapq.heappush(self._due, (expires, mac))
        return address

    def _drop(self, mac: str) -> None:
        lease = self._leases.pop(mac, None)
        if lease is None:
            return
        del self._holder[lease.address]
        if lease.address not in self._reserved_for:
            # An offer nobody took up restores the memory of the one before: a flood of invented MACs must not make
            # the pool forget real machines.
            self._make_idle(lease.address, lease.before if lease.offered else mac)

    def _unidle(self, address: str) -> str:
        mac = self._idle.pop(address, "")
        if mac:
            self._before.pop(mac, None)
        return mac

    def _make_idle(self, address: str, mac: str) -> None:
        if _number(address) not in self._members:
            return
        forgotten = self._before.get(mac) if mac else None
        if forgotten is not None:
            self._idle[forgotten] = ""
        self._idle[address] = mac
        if mac:
            self._before[mac] = address


@lru_cache(1 << 14)
def _number(address: str) -> int | None:
    """The address as a number; None for what is none. Kept, as the same few thousand come again and again."""
    try:
        return int(IPv4Address(address))
    except ValueError:
        return None
