"""The networks the head gives addresses in: one it is on, or one behind a relay; and which of them a request is of."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from ipaddress import IPv4Address, IPv4Network

from images.errors import GildError
from netboot.dhcp import NONE, DhcpRequest
from netboot.replies import NetworkOptions
from netboot.siteoptions import OptionInvalid, read_option, read_route

MAIN = "main"  # the network of `serve --interface`
MAX_SUBNETS = 64


class SubnetInvalid(GildError):
    """A network cannot be served as it is described; the message names it and the field."""


@dataclass(frozen=True)
class Subnet:
    """One network. `network` as "10.1.0.0/16", `head` the head's address as its machines reach it, `first` and `last`
    the range (both inclusive). `interface` is empty for a network behind relays. `dns` empty: the head. `routes` as
    "10.0.0.0/8 via 10.1.0.1", `options` as "NUMBER=KIND:VALUE" (see siteoptions). `lease` in seconds."""

    name: str
    network: str
    head: str
    first: str
    last: str
    interface: str = ""
    router: str = ""
    dns: tuple[str, ...] = ()
    ntp: str = ""
    mtu: int = 0
    routes: tuple[str, ...] = ()
    options: tuple[str, ...] = ()
    lease: int = 3600

    @cached_property
    def net(self) -> IPv4Network:
        """`network`, read."""
        return IPv4Network(self.network)

    def __contains__(self, address: str) -> bool:
        try:
            return IPv4Address(address) in self.net
        except ValueError:
            return False

    @property
    def taken(self) -> tuple[str, ...]:
        """Addresses in it that no machine may be given."""
        return tuple(address for address in (self.head, self.router, self.ntp, *self.dns) if address)


def check(subnet: Subnet, others: Iterable[Subnet] = ()) -> None:
    """Whether it can be served beside the others. Raises SubnetInvalid."""
    name = f"network {subnet.name}"
    try:
        net = IPv4Network(subnet.network)
    except ValueError:
        raise SubnetInvalid(f"{name}: {subnet.network!r} is not a network such as 10.1.0.0/16") from None
    if net.num_addresses < 8:
        raise SubnetInvalid(f"{name}: {net} is too small for nodes", "a /29 is the smallest")
    for what, address in (("router", subnet.router), ("first address", subnet.first), ("last address", subnet.last)):
        if address and address not in subnet:
            raise SubnetInvalid(f"{name}: its {what} {address} is not in {net}")
    for address in (subnet.head, subnet.ntp, *subnet.dns):
        if address:
            _address(address, name)
    if IPv4Address(subnet.first) > IPv4Address(subnet.last):
        raise SubnetInvalid(f"{name}: the range {subnet.first}-{subnet.last} ends before it begins")
    if subnet.interface and subnet.head not in subnet:
        raise SubnetInvalid(f"{name}: the head's address {subnet.head} on {subnet.interface} is not in {net}")
    if not subnet.interface and not subnet.router:
        raise SubnetInvalid(f"{name} is behind a relay: its nodes need a router to reach the head", "give --router")
    if subnet.mtu and not 576 <= subnet.mtu <= 65535:  # RFC 791: what every host takes
        raise SubnetInvalid(f"{name}: an MTU of {subnet.mtu} is not from 576 to 65535")
    if not 120 <= subnet.lease <= 604800:
        raise SubnetInvalid(f"{name}: a lease of {subnet.lease} s is not from 120 to 604800")
    try:
        network_options(subnet, "")
    except OptionInvalid as error:
        raise SubnetInvalid(f"{name}: {error.message}", error.hint) from None
    for other in others:
        if other.name != subnet.name and net.overlaps(other.net):
            raise SubnetInvalid(f"{name}: {net} overlaps {other.net}, the network {other.name}")
        if other.name != subnet.name and subnet.interface and other.interface == subnet.interface:
            raise SubnetInvalid(f"{name}: {subnet.interface} serves the network {other.name} already")


def _address(address: str, name: str) -> None:
    try:
        IPv4Address(address)
    except ValueError:
        raise SubnetInvalid(f"{name}: {address[:40]!r} is not an IPv4 address") from None


def whole_range(net: IPv4Network, most: int = 1 << 16) -> tuple[str, str]:
    """First and last address of the range nobody gave: the first tenth (at most 256 addresses) stays free for switches,
    BMCs and the site's own machines; no more than `most`."""
    first = net.network_address + max(2, min(net.num_addresses // 10, 256))
    return str(first), str(min(net.broadcast_address - 1, first + most - 1))


def choose(request: DhcpRequest, interface: str, source: str, subnets: Sequence[Subnet]) -> Subnet | None:
    """The network a request comes from: the relay's (giaddr, RFC 2131 section 4.3.1); for a renewal sent straight to
    the head the one its sender is in; else that of the interface it arrived on. None if that is none of them."""
    if request.giaddr != NONE:
        return of_address(request.giaddr, subnets)
    if request.ciaddr != NONE and request.ciaddr == source:
        return of_address(source, subnets)
    return next((subnet for subnet in subnets if subnet.interface == interface), None)


def of_address(address: str, subnets: Iterable[Subnet]) -> Subnet | None:
    """The network an address lies in."""
    return next((subnet for subnet in subnets if address in subnet), None)


@lru_cache(2 * MAX_SUBNETS)
def network_options(subnet: Subnet, domain: str) -> NetworkOptions:
    """What its machines are told. Raises OptionInvalid."""
    extra = dict(read_option(option) for option in subnet.options)
    return NetworkOptions(
        server_ip=subnet.head,
        netmask=str(subnet.net.netmask),
        router=subnet.router or None,
        dns=subnet.dns or (subnet.head,),
        domain=domain,
        lease_seconds=subnet.lease,
        ntp=(subnet.ntp,) if subnet.ntp else (),
        mtu=subnet.mtu or None,
        routes=tuple(read_route(route) for route in subnet.routes),
        extra=extra,
    )
