from __future__ import annotations

import json

from appliance.cluster.inventory import Inventory, Machine, from_json, machine_of
from netboot.node import Node, State
from netboot.report import Facts

CLUSTER = Inventory(
    "cluster.internal", "10.1.0.1",
    (
        Machine("node01", "10.1.0.11", "compute", ("rack1",), 2, 8, 16, 65536),
        Machine("node02", "10.1.0.12", "compute", ("rack1", "gpus"), 2, 8, 16, 65536, 4),
        Machine("store1", "10.1.0.21", "storage"),
    ),
)  # fmt: skip


def test_only_those_with_a_name_and_an_address() -> None:
    facts = Facts(cores=8, threads=16, sockets=2, memory=64 << 30, gpus=("10de:20b0", "10de:20b0"))
    node = Node(1, State.READY, name="node01", address="10.1.0.11", profile="compute", groups=("b", "a"), facts=facts)
    assert machine_of(node) == Machine("node01", "10.1.0.11", "compute", ("b", "a"), 2, 8, 16, 65536, 2)
    assert machine_of(Node(1, State.READY, name="node01")) is None
    assert machine_of(Node(1, State.WAITING, name="", address="10.1.0.11")) is None
    unseen = machine_of(Node(1, State.READY, name="node01", address="10.1.0.11"))
    assert unseen is not None and unseen.threads == 0


def test_claims_are_bounded() -> None:
    facts = Facts(cores=-1, threads=1 << 60, sockets=1 << 60, memory=1 << 62, gpus=("x",) * 4096)
    found = machine_of(Node(1, State.UP, name="n1", address="10.1.0.11", facts=facts))
    assert found is not None
    assert (found.cores, found.threads, found.sockets, found.memory, found.gpus) == (0, 65533, 65533, 1 << 30, 64)


def test_json_both_ways() -> None:
    assert from_json(json.loads(json.dumps(CLUSTER.as_json()))) == CLUSTER


def test_members() -> None:
    assert CLUSTER.members() == {
        "compute": ["node01", "node02"], "gpus": ["node02"], "rack1": ["node01", "node02"], "storage": ["store1"],
    }  # fmt: skip
