"""The pools of all networks as one: who has which address, wherever it is.

A machine has one address. Where it shows up in another network it gets one there, and with taking it up it gives back
what it had in the first; its reservation there stays.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator

from netboot.lease import Lease, LeaseInvalid, Pool
from netboot.subnet import MAIN, Subnet


class Pools:
    """One Pool per network, by its name. Times as for Pool."""

    def __init__(self, subnets: list[Subnet]) -> None:
        """Raises LeaseInvalid."""
        self._pools: dict[str, Pool] = {}
        for subnet in subnets:
            self.add(subnet)

    def add(self, subnet: Subnet) -> None:
        """Give addresses in that network from now on. Raises LeaseInvalid."""
        self._pools[subnet.name] = Pool(subnet.network, subnet.first, subnet.last, self._inside(subnet))

    def change(self, subnet: Subnet, now: float) -> list[str]:
        """Another range or other addresses that are not given: leases and reservations that fit stay. Returns the MACs
        that lost theirs. Raises LeaseInvalid, and nothing has changed."""
        old = self._pools[subnet.name]
        new = Pool(subnet.network, subnet.first, subnet.last, self._inside(subnet))
        for mac, address in old.reservations():
            new.reserve(mac, address)
        lost = [
            mac for mac, lease in old.leases()
            if not lease.offered and lease.expires > now and not new.restore(mac, lease.address, lease.expires)
        ]  # fmt: skip
        self._pools[subnet.name] = new
        return lost

    def remove(self, name: str) -> None:
        """Give no addresses in that network any more."""
        self._pools.pop(name, None)

    @staticmethod
    def _inside(subnet: Subnet) -> list[str]:
        return [address for address in subnet.taken if address in subnet]

    def of(self, address: str) -> Pool | None:
        """The pool of the network an address lies in."""
        return next((pool for pool in self._pools.values() if pool.holds(address)), None)

    def reserve(self, mac: str, address: str) -> None:
        """See Pool.reserve; in whichever network the address lies. Raises LeaseInvalid."""
        pool = self.of(address)
        if pool is None:
            raise LeaseInvalid(f"reserved address {address} for {mac} does not lie in a network of the head")
        pool.reserve(mac, address)
        for other in self._pools.values():
            if other is not pool:
                other.unreserve(mac)

    def unreserve(self, mac: str) -> None:
        """Take the reservation back; the machine keeps the address as a lease until that ends."""
        for pool in self._pools.values():
            pool.unreserve(mac)

    def known(self, mac: str) -> bool:
        """This MAC has a reservation or has taken up a lease."""
        return any(pool.known(mac) for pool in self._pools.values())

    def address(self, mac: str) -> str | None:
        """What `mac` has, or is offered, or will be given."""
        held = [pool.lease(mac) for pool in self._pools.values()]
        leases = [lease for lease in held if lease is not None]
        if leases:
            return min(leases, key=lambda lease: lease.offered).address
        return next((found for pool in self._pools.values() if (found := pool.address(mac))), None)

    def holder(self, address: str) -> str:
        """The MAC that has or is offered the address now, or ""."""
        pool = self.of(address)
        return pool.holder(address) if pool is not None else ""

    def on_offer(self, mac: str, address: str) -> bool:
        """The address is offered to `mac`, which has not taken it up."""
        pool = self.of(address)
        lease = pool.lease(mac) if pool is not None else None
        return lease is not None and lease.offered and lease.address == address

    def offer(self, mac: str, requested: str | None, now: float, network: str = MAIN) -> str | None:
        """See Pool.offer; in the network of that name."""
        return self._pools[network].offer(mac, requested, now)

    def commit(self, mac: str, address: str, now: float, seconds: float) -> bool:
        """See Pool.commit; in whichever network the address lies."""
        pool = self.of(address)
        if pool is None or not pool.commit(mac, address, now, seconds):
            return False
        for other in self._pools.values():
            lease = other.lease(mac) if other is not pool else None
            if lease is not None:
                other.release(mac, lease.address, now)
        return True

    def next_free(self, avoid: Collection[str], network: str = MAIN) -> str:
        """See Pool.next_free; in the network of that name."""
        return self._pools[network].next_free(avoid)

    def learn(self, mac: str, address: str, now: float, seconds: float) -> None:
        """See Pool.learn; an address of no network is nobody's."""
        pool = self.of(address)
        if pool is not None:
            pool.learn(mac, address, now, seconds)

    def release(self, mac: str, address: str, now: float) -> bool:
        """See Pool.release."""
        pool = self.of(address)
        return pool is not None and pool.release(mac, address, now)

    def decline(self, mac: str, address: str, now: float) -> bool:
        """See Pool.decline."""
        pool = self.of(address)
        return pool is not None and pool.decline(mac, address, now)

    def restore(self, mac: str, address: str, expires: float) -> bool:
        """See Pool.restore."""
        pool = self.of(address)
        return pool is not None and pool.restore(mac, address, expires)

    def leases(self) -> Iterator[tuple[str, Lease]]:
        """(MAC, lease) of every address in use or on offer."""
        for pool in self._pools.values():
            yield from pool.leases()

    def free(self, network: str = "") -> int:
        """Addresses a new machine could be given now: in that network, or in all."""
        return sum(pool.free() for name, pool in self._pools.items() if network in ("", name))

    def count(self, network: str = "") -> int:
        """Leases and offers: in that network, or in all."""
        return sum(pool.count() for name, pool in self._pools.items() if network in ("", name))

    def expire(self, now: float) -> list[str]:
        """See Pool.expire."""
        return [mac for pool in self._pools.values() for mac in pool.expire(now)]
