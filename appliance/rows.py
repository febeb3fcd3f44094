"""Nodes, orders, profiles and leases as database rows, both ways. Bodies are JSON, checked when they come back."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TypeVar

from appliance.schema import DatabaseInvalid
from appliance.store import Statement, Store
from netboot.bmc import Bmc
from netboot.job import Job
from netboot.node import Node
from netboot.order import Order
from netboot.profile import Profile
from netboot.report import Facts
from netboot.rules import Rule
from netboot.subnet import Subnet
from netboot.wire import WireInvalid, decode, encode

T = TypeVar("T")

EVENTS_KEPT = 2000  # lines of one node's timeline

_UPSERT_NODE = """
    INSERT INTO nodes (id, name, state, address, body) VALUES (?, ?, ?, ?, ?) ON CONFLICT (id) DO UPDATE SET
    name = excluded.name, state = excluded.state, address = excluded.address, body = excluded.body"""
_PRUNE = """
    DELETE FROM events WHERE id IN (
        SELECT id FROM events WHERE node_id = ?
        ORDER BY CASE level WHEN 'progress' THEN 0 WHEN 'log' THEN 1 ELSE 2 END, id
        LIMIT max(0, (SELECT count(*) FROM events WHERE node_id = ?) - ?))"""


def node_row(node: Node) -> Statement:
    """Save a node without its facts, which are large and change once a boot."""
    body = encode(replace(node, facts=None)).decode()
    return _UPSERT_NODE, (node.id, node.name, node.state.value, node.address, body)


def facts_row(node_id: int, facts: Facts) -> Statement:
    """Save what a node says of its hardware."""
    return "INSERT OR REPLACE INTO facts (node_id, body) VALUES (?, ?)", (node_id, encode(facts).decode())


def host_keys_row(node_id: int, body: str) -> Statement:
    """Save a node's SSH host keys: a JSON object of file name -> content."""
    return "INSERT OR REPLACE INTO host_keys (node_id, body) VALUES (?, ?)", (node_id, body)


def profile_row(profile: Profile) -> Statement:
    """Save a profile."""
    return "INSERT OR REPLACE INTO profiles (name, body) VALUES (?, ?)", (profile.name, encode(profile).decode())


def profile_gone(name: str) -> list[Statement]:
    """Forget a profile and its secrets."""
    return [
        ("DELETE FROM profiles WHERE name = ?", (name,)),
        ("DELETE FROM secrets WHERE owner = ?", (f"profile:{name}",)),
    ]


def secret_row(owner: str, name: str, value: bytes) -> Statement:
    """Save a secret; `owner` is "node:NUMBER", "profile:NAME" or "" for every node."""
    return "INSERT OR REPLACE INTO secrets (owner, name, value) VALUES (?, ?, ?)", (owner, name, value)


def secret_gone(owner: str, name: str) -> Statement:
    """Forget a secret."""
    return "DELETE FROM secrets WHERE owner = ? AND name = ?", (owner, name)


def bmc_row(bmc: Bmc) -> Statement:
    """Save the BMC of a node, password and all."""
    return "INSERT OR REPLACE INTO bmcs (node_id, body) VALUES (?, ?)", (bmc.node_id, encode(bmc).decode())


def bmc_gone(node_id: int) -> Statement:
    """Forget the BMC of a node."""
    return "DELETE FROM bmcs WHERE node_id = ?", (node_id,)


def job_row(job: Job) -> Statement:
    """Save a job."""
    return "INSERT OR REPLACE INTO jobs (id, closed, body) VALUES (?, ?, ?)", (job.id, job.closed, encode(job).decode())


def job_gone(number: int) -> Statement:
    """Forget a job."""
    return "DELETE FROM jobs WHERE id = ?", (number,)


def order_row(order: Order) -> Statement:
    """Save an order."""
    return (
        "INSERT OR REPLACE INTO orders (id, node_id, closed, body) VALUES (?, ?, ?, ?)",
        (order.id, order.node_id, order.closed, encode(order).decode()),
    )


def lease_row(mac: str, address: str, expires: float) -> Statement:
    """Save a lease; `expires` in seconds since 1970."""
    return "INSERT OR REPLACE INTO leases (mac, address, expires) VALUES (?, ?, ?)", (mac, address, expires)


def lease_gone(mac: str) -> Statement:
    """Forget a lease."""
    return "DELETE FROM leases WHERE mac = ?", (mac,)


def event_row(number: int, node_id: int, at: float, level: str, text: str) -> Statement:
    """Save a line of a timeline."""
    return "INSERT OR IGNORE INTO events (id, node_id, at, level, text) VALUES (?, ?, ?, ?, ?)", (
        number, node_id, at, level, text,
    )  # fmt: skip


def prune_events(node_id: int) -> Statement:
    """Cut a node's timeline to EVENTS_KEPT lines: progress goes first, then the installer's log, then the oldest."""
    return _PRUNE, (node_id, node_id, EVENTS_KEPT)


def node_gone(node_id: int) -> list[Statement]:
    """Forget a node and everything that belongs to it."""
    tables = ("facts", "host_keys", "orders", "events", "bmcs")
    return (
        [("DELETE FROM nodes WHERE id = ?", (node_id,))]
        + [(f"DELETE FROM {table} WHERE node_id = ?", (node_id,)) for table in tables]
        + [("DELETE FROM secrets WHERE owner = ?", (f"node:{node_id}",))]
    )


def rule_rows(rules: Sequence[Rule]) -> list[Statement]:
    """Save all rules of approval, in their order, in the place of those there were."""
    sql = "INSERT INTO rules (id, body) VALUES (?, ?)"
    return [("DELETE FROM rules", ()), *((sql, (place, encode(rule).decode())) for place, rule in enumerate(rules, 1))]


def load_rules(store: Store) -> list[Rule]:
    """All rules of approval, in their order. Raises DatabaseInvalid."""
    return [_body(Rule, row[0]) for row in store.read("SELECT body FROM rules ORDER BY id")]


def subnet_row(subnet: Subnet) -> Statement:
    """Save a network, in the place of the one of its name."""
    return "INSERT OR REPLACE INTO networks (name, body) VALUES (?, ?)", (subnet.name, encode(subnet).decode())


def subnet_gone(name: str) -> Statement:
    """Forget a network."""
    return "DELETE FROM networks WHERE name = ?", (name,)


def load_subnets(store: Store) -> list[Subnet]:
    """All networks that were ever described, by name. Raises DatabaseInvalid."""
    return [_body(Subnet, row[0]) for row in store.read("SELECT body FROM networks ORDER BY name")]


def load_nodes(store: Store) -> list[Node]:
    """All nodes, with their facts. This and the other loaders raise DatabaseInvalid for what cannot be read."""
    facts = {row[0]: _body(Facts, row[1]) for row in store.read("SELECT node_id, body FROM facts")}
    nodes = [_body(Node, row[0]) for row in store.read("SELECT body FROM nodes ORDER BY id")]
    return [replace(node, facts=facts.get(node.id)) for node in nodes]


def load_profiles(store: Store) -> list[Profile]:
    """All profiles."""
    return [_body(Profile, row[0]) for row in store.read("SELECT body FROM profiles ORDER BY name")]


def load_secret_names(store: Store) -> list[tuple[str, str, int]]:
    """(owner, name, bytes) of every secret."""
    return [(row[0], row[1], row[2]) for row in store.read("SELECT owner, name, length(value) FROM secrets")]


def load_secret(store: Store, owner: str, name: str) -> bytes | None:
    """A secret, or None if that owner has none of the name."""
    found = store.read("SELECT value FROM secrets WHERE owner = ? AND name = ?", (owner, name))
    return bytes(found[0][0]) if found else None


def load_orders(store: Store) -> list[Order]:
    """The last order of every node, closed or not."""
    sql = "SELECT body FROM orders WHERE id IN (SELECT max(id) FROM orders GROUP BY node_id) ORDER BY id"
    return [_body(Order, row[0]) for row in store.read(sql)]


def load_bmcs(store: Store) -> list[Bmc]:
    """The BMCs of all nodes."""
    return [_body(Bmc, row[0]) for row in store.read("SELECT body FROM bmcs ORDER BY node_id")]


def load_jobs(store: Store) -> list[Job]:
    """All jobs, the oldest first."""
    return [_body(Job, row[0]) for row in store.read("SELECT body FROM jobs ORDER BY id")]


def load_host_keys(store: Store, node_id: int) -> str:
    """A node's host keys as JSON, or "" if it has none."""
    found = store.read("SELECT body FROM host_keys WHERE node_id = ?", (node_id,))
    return str(found[0][0]) if found else ""


def load_leases(store: Store) -> list[tuple[str, str, float]]:
    """(MAC, address, expires) of every lease."""
    return [(row[0], row[1], row[2]) for row in store.read("SELECT mac, address, expires FROM leases")]


def _body(kind: type[T], text: str) -> T:
    try:
        return decode(kind, text.encode())
    except WireInvalid as error:
        raise DatabaseInvalid(
            f"the database holds a {kind.__name__.lower()} that cannot be read: {error.message}",
            "put the last backup in its place",
        ) from None
