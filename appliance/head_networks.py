"""The networks beside the main one: on another interface of the head, or behind relays."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import asdict, replace
from ipaddress import IPv4Interface, IPv4Network
from typing import Any

from appliance import rows
from appliance.addresses import OF_MAIN
from appliance.config import FIRST_LAST
from appliance.errors import Environment, Unknown, Wrong
from appliance.roster import Roster
from appliance.timeline import clean
from images.errors import GildError
from netboot.node import State
from netboot.subnet import MAIN, MAX_SUBNETS, Subnet, SubnetInvalid, check, whole_range
from netboot.udp import UdpError, interface_address

NAME = re.compile(r"[a-z][a-z0-9-]{0,30}")
CHANGEABLE = ("range", "router", "dns", "ntp", "mtu", "routes", "options", "lease")
LISTS = ("dns", "routes", "options")


async def _nothing(subnet: Subnet) -> None:
    """Where nobody serves."""


class Networks:
    """The operator's use cases. Whoever serves puts `attach` and `detach` in: the sockets of a network."""

    def __init__(self, roster: Roster, address_of: Callable[[str], IPv4Interface] = interface_address) -> None:
        self.roster, self._address_of = roster, address_of
        self.attach: Callable[[Subnet], Awaitable[None]] = _nothing
        self.detach: Callable[[Subnet], Awaitable[None]] = _nothing

    async def begin(self) -> None:
        """Open the sockets of every stored network; one that cannot be served now is told of and left out."""
        addresses = self.roster.addresses
        for subnet in list(addresses.subnets.values()):
            if subnet.name == MAIN:
                continue
            try:
                # What the interface has now counts, not what it had when the network was described.
                here = replace(subnet, head=str(self._on(subnet.interface).ip)) if subnet.interface else subnet
                check(here, addresses.subnets.values())
                await self.attach(here)
            except GildError as error:
                addresses.set_aside(subnet.name, error.message)
            else:
                addresses.subnets[subnet.name] = here
        self.roster.zones.stale()

    def networks(self) -> list[dict[str, Any]]:
        """All networks, the main one first, with what is used of each; `trouble` is why one is not served."""
        return self.roster.addresses.rows()

    async def add(self, name: str, given: Mapping[str, Any]) -> dict[str, Any]:
        """One more network, served at once: `interface` for one the head is on, else `network` and `router` for one
        behind relays; `range` and what else CHANGEABLE has. On the disk before this returns. Raises Wrong,
        SubnetInvalid, LeaseInvalid, Environment, NoSpace."""
        addresses = self.roster.addresses
        if not NAME.fullmatch(name):
            raise Wrong(f"{clean(name)[:40]!r} is no name for a network", "small letters, digits and dashes: rack2")
        if self.roster.config.dhcp == "proxy":
            raise Wrong("beside another DHCP server there is one network, that of serve --interface", "see: help proxy")
        if name in addresses.subnets or name in addresses.unserved:
            raise Wrong(f"there is a network {name} already", f"gild.pyz network set {name}")
        if len(addresses.subnets) >= MAX_SUBNETS:
            raise Wrong(f"there are {MAX_SUBNETS} networks already")
        subnet = _with(self._described(name, given), given)
        check(subnet, addresses.subnets.values())
        addresses.pool.add(subnet)
        try:
            await self.attach(subnet)
            try:
                self.roster.save_now([rows.subnet_row(subnet)])
            except GildError:
                await self.detach(subnet)
                raise
        except GildError:
            addresses.pool.remove(name)
            raise
        addresses.subnets[name] = subnet
        self.roster.zones.stale()
        return self._row(name)

    def _described(self, name: str, given: Mapping[str, Any]) -> Subnet:
        interface = str(given.get("interface") or "")
        if interface:
            here = self._on(interface)
            net, head = here.network, str(here.ip)
        else:
            text = str(given.get("network") or "")
            try:
                net = IPv4Network(text)
            except ValueError:
                raise Wrong(
                    f"network {name}: which one is it?",
                    "--interface NAME for one this head is on, or --network 10.2.0.0/16 for one behind a relay",
                ) from None
            head = self.roster.addresses.main.head
        if net.num_addresses < 8:
            raise SubnetInvalid(f"network {name}: {net} is too small for nodes", "a /29 is the smallest")
        return Subnet(name, str(net), head, *whole_range(net), interface, lease=self.roster.config.lease_seconds)

    def _on(self, interface: str) -> IPv4Interface:
        try:
            return self._address_of(interface)
        except UdpError as error:
            raise Environment(error.message, error.hint) from None

    def set(self, name: str, given: Mapping[str, Any]) -> dict[str, Any]:
        """Change what a network's machines are told, from their next request on. Raises Unknown, Wrong, SubnetInvalid,
        LeaseInvalid, NoSpace; then nothing is changed."""
        addresses, now = self.roster.addresses, self.roster.clock.steady()
        before = self._find(name)
        settings = sorted(key for key in given if key not in OF_MAIN)
        if name == MAIN and settings:
            raise Wrong(
                f"{settings[0]} of the network {MAIN} is a setting", f"gild.pyz serve --{settings[0]}, or gild.toml"
            )
        after = _with(before, given)
        check(after, addresses.subnets.values())
        lost = addresses.pool.change(after, now)
        try:
            self.roster.save_now([rows.subnet_row(after)])
        except GildError:
            addresses.pool.change(before, now)
            raise
        addresses.subnets[name] = after
        self.roster.zones.stale()
        return {**self._row(name), "lost": lost}

    async def remove(self, name: str) -> dict[str, Any]:
        """Serve a network no more. Raises Unknown, and Wrong while nodes have their addresses there; NoSpace."""
        addresses = self.roster.addresses
        if name in addresses.unserved:
            self.roster.save_now([rows.subnet_gone(name)])
            del addresses.unserved[name]
            return {"name": name}
        subnet = self._find(name)
        if name == MAIN:
            raise Wrong(f"the network {MAIN} is that of serve --interface", "serve another interface")
        here = [
            node.label for node in self.roster.sorted() if node.state is not State.WAITING and node.address in subnet
        ]
        if here:
            raise Wrong(
                f"{len(here)} nodes have their address in the network {name}: {', '.join(here[:10])}",
                "gild.pyz node set NODE --address ..., or node rm",
            )
        self.roster.save_now([rows.subnet_gone(name)])
        await self.detach(subnet)
        del addresses.subnets[name]
        addresses.pool.remove(name)
        self.roster.zones.stale()
        return {"name": name}

    def _find(self, name: str) -> Subnet:
        found = self.roster.addresses.subnets.get(name)
        if found is None:
            known = ", ".join(self.roster.addresses.subnets)
            raise Unknown(f"there is no network {clean(name)[:40]!r}", f"networks: {known}")
        return found

    def _row(self, name: str) -> dict[str, Any]:
        return next(row for row in self.networks() if row["name"] == name)


def _with(subnet: Subnet, given: Mapping[str, Any]) -> Subnet:
    """The network with what is given of it. Raises Wrong."""
    known = asdict(subnet)
    changed: dict[str, Any] = {}
    for key, value in given.items():
        if key in ("interface", "network"):
            continue
        if key not in CHANGEABLE:
            raise Wrong(f"a network has no {clean(key)[:40]!r}", f"it has {', '.join(CHANGEABLE)}")
        if key == "range":
            match = FIRST_LAST.fullmatch(str(value))
            if not match:
                raise Wrong(f"range {clean(str(value))[:60]!r} should be FIRST-LAST", "10.2.0.100-10.2.3.250")
            changed |= {"first": match[1], "last": match[2]}
        elif key in LISTS:
            if not isinstance(value, list) or len(value) > 32 or not all(isinstance(word, str) for word in value):
                raise Wrong(f"{key} should be a list of at most 32 texts")
            changed[key] = tuple(word for word in value if word)
        elif type(value) is not type(known[key]):
            raise Wrong(f"{key} should be {'a number' if isinstance(known[key], int) else 'text'}")
        else:
            changed[key] = value
    return replace(subnet, **changed)
