"""The networks of the head with their pools: where an address belongs, and which are still to be had."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, replace
from ipaddress import IPv4Address
from typing import Any

from appliance.config import Config
from images.errors import GildError
from netboot.pools import Pools
from netboot.subnet import MAIN, Subnet, check, of_address

# What a site may say of the main network; the rest of it are settings and the interface.
OF_MAIN = ("dns", "mtu", "routes", "options")


class Addresses:
    """`subnets` by name, the main one first; `unserved` are stored ones that cannot be served as things are, each with
    the reason. `pool` spans all that are served."""

    def __init__(self, config: Config, stored: Iterable[Subnet]) -> None:
        """Raises LeaseInvalid or SubnetInvalid if the main network itself cannot be served."""
        self.config = config
        rows = {subnet.name: subnet for subnet in stored}
        main = Subnet(
            MAIN, str(config.network), config.address, config.range_first, config.range_last, config.interface,
            router=config.router, ntp=config.ntp, lease=config.lease_seconds,
        )  # fmt: skip
        told = rows.pop(MAIN, main)
        main = replace(main, **{key: getattr(told, key) for key in OF_MAIN})
        check(main)
        self.subnets = {MAIN: main}
        self.unserved: dict[str, tuple[Subnet, str]] = {}
        self.pool = Pools([main])
        for subnet in rows.values():
            # The head's own address may have changed since; networks behind relays find it at its new one.
            subnet = subnet if subnet.interface else replace(subnet, head=main.head)
            try:
                check(subnet, self.subnets.values())
                self.pool.add(subnet)
                self.subnets[subnet.name] = subnet
            except GildError as error:
                self.unserved[subnet.name] = subnet, error.message

    @property
    def main(self) -> Subnet:
        """The network of `serve --interface`."""
        return self.subnets[MAIN]

    def set_aside(self, name: str, reason: str) -> None:
        """A network that cannot be served now; it stays described."""
        self.unserved[name] = self.subnets.pop(name), reason
        self.pool.remove(name)

    def place(self, address: str) -> Subnet:
        """The network an address lies in; the main one for an address that lies in none."""
        return of_address(address, self.subnets.values()) or self.main

    def free(self, address: str, taken: Iterable[str]) -> bool:
        """Whether a person may give this address to a node: in a network, not the head's or a router's, nobody's."""
        subnet = of_address(address, self.subnets.values())
        if subnet is None or address in subnet.taken or address in set(taken):
            return False
        return IPv4Address(address) not in (subnet.net.network_address, subnet.net.broadcast_address)

    def moved(self, address: str, taken: Iterable[str]) -> str:
        """What becomes of a node's address that lies in no network: the same place in the main one, as the head has
        moved there; empty if that is not free, or if it belongs to a network that is only not served just now."""
        if of_address(address, (*self.subnets.values(), *(subnet for subnet, _ in self.unserved.values()))):
            return ""
        net = self.main.net
        same = str(IPv4Address(int(net.network_address) | int(IPv4Address(address)) & int(net.hostmask)))
        return same if self.free(same, taken) else ""

    def rows(self) -> list[dict[str, Any]]:
        """All networks with what is used of them, also those that are not served, with the reason."""
        served = [
            {**asdict(subnet), "leases": self.pool.count(name), "free": self.pool.free(name), "trouble": ""}
            for name, subnet in self.subnets.items()
        ]
        return served + [
            {**asdict(subnet), "leases": 0, "free": 0, "trouble": reason} for subnet, reason in self.unserved.values()
        ]
