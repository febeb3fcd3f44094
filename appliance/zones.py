"""The DNS zone of the nodes, as each network of the head is told it."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace

from appliance.addresses import Addresses
from appliance.config import Config
from netboot.dns import Zone
from netboot.node import Node

SERVICES = {"_slurmctld._tcp": 6817}  # Slurm's own default (slurm.conf(5), SlurmctldPort)


class Zones:
    """Made when somebody asks, and kept until a node changes."""

    def __init__(self, config: Config, addresses: Addresses, nodes: Callable[[], Iterable[Node]], serial: int) -> None:
        """`nodes` gives all nodes in their order; `serial` of the SOA record grows with every change."""
        self._config, self._addresses, self._nodes, self._serial = config, addresses, nodes, serial
        self._zone: Zone | None = None
        self._zones: dict[str, Zone] = {}  # the same, for each address of the head

    def zone(self, head: str = "") -> Zone:
        """Names and addresses of all approved nodes, and `head` as the head's own address (empty: the one in the main
        network); a new value only when one has changed."""
        if self._zone is None:
            names = {node.name: node.address for node in self._nodes() if node.name and node.address}
            # Behind the nodes, so that an address tells its node's name and not the other one.
            names |= {name: to for name, to in self._config.more_names.items() if name not in names}
            self._serial += 1
            self._zone = Zone(
                self._config.domain,
                "head",
                self._config.address,
                names,
                tuple(subnet.net for subnet in self._addresses.subnets.values()),
                self._serial & 0xFFFFFFFF,
                SERVICES if self._config.slurm == "on" else {},
            )
            self._zones = {self._config.address: self._zone}
        head = head or self._config.address
        if head not in self._zones:
            self._zones[head] = replace(self._zone, head_ip=head)
        return self._zones[head]

    def stale(self) -> None:
        """A name, an address or a network has changed: names are answered for anew."""
        self._zone = None
