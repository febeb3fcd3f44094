"""The nodes as the cluster's services see them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from netboot.node import Node, State

MIB = 1 << 20
# A machine's claims end up in the files of schedulers, which count with 16 bits (slurm.h: uint16_t cpus).
MOST, MOST_GPUS, MOST_MEMORY = 65533, 64, 1 << 30


@dataclass(frozen=True)
class Machine:
    """One approved node. Numbers are 0 where the machine has not been seen in the installer; what it says of itself is
    a claim, but its name, address, profile and groups are the head's own."""

    name: str
    address: str
    profile: str = ""
    groups: tuple[str, ...] = ()
    sockets: int = 0
    cores: int = 0  # of all sockets
    threads: int = 0
    memory: int = 0  # MiB that are plugged in
    gpus: int = 0

    @property
    def labels(self) -> tuple[str, ...]:
        """Its profile and groups, each once, in order."""
        return tuple(dict.fromkeys([*([self.profile] if self.profile else []), *sorted(self.groups)]))


@dataclass(frozen=True)
class Inventory:
    """All approved nodes by name, and the head they belong to."""

    domain: str
    head_address: str
    machines: tuple[Machine, ...]

    def only(self, names: Iterable[str]) -> Inventory:
        """The same with these nodes alone."""
        chosen = set(names)
        return Inventory(
            self.domain, self.head_address, tuple(machine for machine in self.machines if machine.name in chosen)
        )

    def members(self) -> dict[str, list[str]]:
        """Label -> names of the nodes that have it, both in order."""
        found: dict[str, list[str]] = {}
        for machine in self.machines:
            for label in machine.labels:
                found.setdefault(label, []).append(machine.name)
        return dict(sorted(found.items()))

    def as_json(self) -> dict[str, Any]:
        """Ready for JSON, for `from_json`."""
        return asdict(self)


def machine_of(node: Node) -> Machine | None:
    """What the services need of a node; None for the waiting room and for one without an address."""
    if node.state is State.WAITING or not node.name or not node.address:
        return None
    facts = node.facts
    if facts is None:
        return Machine(node.name, node.address, node.profile, node.groups)
    sockets, cores, threads = (min(max(n, 0), MOST) for n in (facts.sockets, facts.cores, facts.threads))
    memory, gpus = min(max(facts.memory // MIB, 0), MOST_MEMORY), min(len(facts.gpus), MOST_GPUS)
    return Machine(
        node.name, node.address, node.profile, node.groups, sockets, cores, threads, memory, gpus
    )  # fmt: skip


def inventory_of(nodes: Iterable[Node], domain: str, head_address: str) -> Inventory:
    """The inventory of a head's nodes, in the order given."""
    machines = (machine_of(node) for node in nodes)
    return Inventory(domain, head_address, tuple(machine for machine in machines if machine is not None))


def from_json(value: Mapping[str, Any]) -> Inventory:
    """What `as_json` gave."""
    machines = (Machine(**{**row, "groups": tuple(row["groups"])}) for row in value["machines"])
    return Inventory(value["domain"], value["head_address"], tuple(machines))
