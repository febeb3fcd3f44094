"""What this machine's packet filter does with a node's packets: rules as text in, the chains that drop them out.

A packet is followed through the rules as the kernel would do it (nft(8), iptables(8)). A condition that cannot be
judged from here, such as a source address, makes the outcome uncertain and is told as such.
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

MOST_STEPS = 5000  # rules looked at for one packet: a ruleset cannot loop, but it can fan out
_FINAL = {"accept": "accept", "drop": "drop", "reject": "drop"}


@dataclass(frozen=True)
class Packet:
    """A new connection's first packet from a node: by which interface, "udp" or "tcp", to which port."""

    interface: str
    protocol: str
    port: int


@dataclass(frozen=True)
class Blocked:
    """A chain that drops packets to these ports. `tool` is "nft", "iptables", "firewalld" or "ufw"; `chain` its name
    in the tool's own words; `sure` is False if conditions were met that cannot be judged from here."""

    tool: str
    chain: str
    protocol: str
    ports: tuple[int, ...]
    sure: bool


@dataclass(frozen=True)
class _Rule:
    conditions: tuple[Mapping[str, Any], ...]
    verdict: str  # accept, drop, jump, goto, return, or "" where the rule only counts or logs
    target: str = ""


@dataclass
class _Chain:
    policy: str = "accept"
    rules: list[_Rule] = field(default_factory=list)


def blocked(interface: str, ports: Sequence[tuple[str, int]], nft: str, iptables: str) -> list[Blocked]:
    """Chains that drop what nodes send to `ports` ((protocol, port) pairs) through `interface`.

    `nft` is the output of `nft -j list ruleset`, `iptables` that of `iptables-save`; empty where the tool is not there.
    """
    found = []
    for tool, name, start, chains in (*_nft_inputs(nft, bool(iptables)), *_iptables_inputs(iptables)):
        for protocol in ("udp", "tcp"):
            dropped, sure = [], True
            for port in sorted(port for kind, port in ports if kind == protocol):
                verdict, certain = _follow(chains, start, Packet(interface, protocol, port))
                if verdict == "drop":
                    dropped.append(port)
                    sure = sure and certain
            if dropped:
                found.append(Blocked(tool, name, protocol, tuple(dropped), sure))
    return found


def opening(chain: Blocked, interface: str) -> str:
    """The command that lets those packets in, until the next start of the machine or of the filter."""
    where, ports = shlex.quote(interface), ",".join(map(str, chain.ports))
    if chain.tool == "firewalld":
        return f"firewall-cmd --permanent --zone=trusted --change-interface={where} && firewall-cmd --reload"
    if chain.tool == "ufw":
        return f"ufw allow in on {where} to any port {ports} proto {chain.protocol}"
    if chain.tool == "iptables":
        return f"iptables -I INPUT -i {where} -p {chain.protocol} -m multiport --dports {ports} -j ACCEPT"
    return f"nft insert rule {chain.chain} iifname {where} {chain.protocol} dport '{{ {ports} }}' accept"


def _follow(chains: Mapping[str, _Chain], start: str, packet: Packet) -> tuple[str, bool]:
    """Verdict on a packet and whether it is certain."""
    steps, sure = 0, True

    def walk(name: str, depth: int) -> str:
        nonlocal steps, sure
        for rule in chains[name].rules if name in chains and depth < 16 else ():
            steps += 1
            if steps > MOST_STEPS:
                sure = False
                return ""
            met = [_judge(condition, packet) for condition in rule.conditions]
            if False in met or not rule.verdict:
                continue
            if None in met:
                sure = False
                continue
            if rule.verdict in _FINAL:
                return _FINAL[rule.verdict]
            if rule.verdict == "return":
                return ""
            verdict = walk(rule.target, depth + 1)
            if verdict or rule.verdict == "goto":
                return verdict
        return ""

    return walk(start, 0) or chains[start].policy, sure


def _judge(condition: Mapping[str, Any], packet: Packet) -> bool | None:
    """Whether a packet meets a condition {"what", "values", "negated"}; None if that cannot be told."""
    facts: dict[str, Any] = {"interface": packet.interface, "protocol": packet.protocol, "state": "new"}
    what, values = condition["what"], condition["values"]
    if what in ("udp", "tcp"):  # a port of that protocol
        if what != packet.protocol:
            return False
        met = any(low <= packet.port <= high for low, high in values)
    elif what == "port":
        met = any(low <= packet.port <= high for low, high in values)
    elif what in facts:
        # A last + or * stands for any ending: iptables(8) -i, nft(8) iifname.
        met = any(
            facts[what] == value or (what == "interface" and value[-1:] in "+*" and facts[what].startswith(value[:-1]))
            for value in values
            if value
        )
    else:
        return None
    return bool(met) != bool(condition["negated"])


def _condition(what: str, values: Sequence[Any] = (), negated: bool = False) -> dict[str, Any]:
    return {"what": what, "values": list(values), "negated": negated}


# --- nft -j list ruleset (libnftables-json(5))


def _nft_inputs(text: str, iptables_too: bool) -> Iterator[tuple[str, str, str, dict[str, _Chain]]]:
    """(tool, chain's name, chain, all chains of its table) for every chain that filters what comes in."""
    try:
        entries = json.loads(text)["nftables"] if text else []
    except (ValueError, KeyError, TypeError):
        return
    tables: dict[tuple[str, str], dict[str, _Chain]] = {}
    starts = []
    for entry in entries:
        if chain := entry.get("chain"):
            made = _Chain("drop" if chain.get("policy") == "drop" else "accept")
            tables.setdefault((chain["family"], chain["table"]), {})[chain["name"]] = made
            if chain.get("hook") == "input" and chain.get("type") == "filter" and chain["family"] in ("ip", "inet"):
                starts.append((chain["family"], chain["table"], chain["name"]))
        elif rule := entry.get("rule"):
            chains = tables.get((rule["family"], rule["table"]), {})
            if rule["chain"] in chains:
                chains[rule["chain"]].rules.extend(_nft_rule(rule.get("expr", [])))
    for family, table, name in starts:
        # iptables-nft keeps its rules there, with conditions that nft cannot print: iptables-save can.
        if (family, table, name) == ("ip", "filter", "INPUT") and iptables_too:
            continue
        tool = "firewalld" if table == "firewalld" else "nft"
        yield tool, f"{family} {table} {name}", name, tables[family, table]


def _nft_rule(expressions: Any) -> list[_Rule]:
    try:
        return list(_nft_rules(expressions))
    except (AttributeError, TypeError, ValueError):
        # Written by a newer nft than any this was made for: it may do anything.
        return [_Rule((_condition("unknown"),), "drop")]


def _nft_rules(expressions: Sequence[Any]) -> Iterator[_Rule]:
    """A rule, or one for each row of its verdict map."""
    conditions: list[dict[str, Any]] = []
    for expression in expressions:
        if not isinstance(expression, Mapping):
            # A bare word such as "accept" stands for a statement without arguments.
            expression = {str(expression): None}
        for word, value in expression.items():
            if word in ("accept", "drop", "reject", "return"):
                yield _Rule(tuple(conditions), word)
            elif word in ("jump", "goto"):
                yield _Rule(tuple(conditions), word, str(value.get("target")))
            elif word == "match":
                right = value.get("right")
                conditions.append(_nft_condition(value.get("left"), right, value.get("op") == "!="))
            elif word == "vmap":
                yield from _nft_map(conditions, value)
            elif word not in ("counter", "log", "comment", "mangle", "notrack"):
                conditions.append(_condition(word))


def _nft_map(conditions: Sequence[dict[str, Any]], value: Mapping[str, Any]) -> Iterator[_Rule]:
    rows = value.get("data", {}).get("set", []) if isinstance(value.get("data"), Mapping) else []
    for row in rows:
        if isinstance(row, Sequence) and len(row) == 2:
            for rule in _nft_rules([row[1]]):
                met = _nft_condition(value.get("key"), row[0], False)
                yield _Rule((*conditions, met), rule.verdict, rule.target)
    if not rows:
        yield _Rule((*conditions, _condition("map")), "drop")


def _nft_condition(left: Any, right: Any, negated: bool) -> dict[str, Any]:
    values = right["set"] if isinstance(right, Mapping) and "set" in right else right
    listed = values if isinstance(values, list) else [values]
    if not isinstance(left, Mapping) or any(isinstance(value, str) and value.startswith("@") for value in listed):
        return _condition("set")
    key = left.get("meta", {}).get("key") or left.get("ct", {}).get("key")
    if key in ("iifname", "iif"):
        return _condition("interface", [str(value) for value in listed], negated)
    if key == "l4proto":
        return _condition("protocol", [str(value) for value in listed], negated)
    if key == "state":
        return _condition("state", [str(value) for value in listed], negated)
    payload = left.get("payload", {})
    protocol, wanted = payload.get("protocol"), payload.get("field")
    if protocol in ("udp", "tcp", "th") and wanted == "dport":
        return _condition("port" if protocol == "th" else protocol, _ranges(listed), negated)
    if protocol in ("icmp", "icmpv6", "ip6", "sctp", "arp"):
        return _condition("protocol", [protocol])
    return _condition("other")


def _ranges(values: Sequence[Any]) -> list[tuple[int, int]]:
    """Ports as (first, last); names of services have been turned into numbers by nft -j already."""
    found = []
    for value in values:
        pair = value["range"] if isinstance(value, Mapping) and "range" in value else [value, value]
        if all(isinstance(end, int) for end in pair):
            found.append((pair[0], pair[1]))
    return found


# --- iptables-save


def _iptables_inputs(text: str) -> Iterator[tuple[str, str, str, dict[str, _Chain]]]:
    chains: dict[str, _Chain] = {}
    table = ""
    for line in text.splitlines():
        if line.startswith("*"):
            table = line[1:].strip()
        elif table == "filter" and line.startswith(":"):
            name, policy = line[1:].split()[:2]
            chains[name] = _Chain("drop" if policy == "DROP" else "accept")
        elif table == "filter" and line.startswith("-A "):
            try:
                words = shlex.split(line)
            except ValueError:
                continue
            if words[1] in chains:
                chains[words[1]].rules.append(_iptables_rule(words[2:]))
    if "INPUT" in chains:
        ufw = any(name.startswith("ufw-") for name in chains)
        yield "ufw" if ufw else "iptables", "INPUT", "INPUT", chains


def _iptables_rule(words: Sequence[str]) -> _Rule:
    conditions: list[dict[str, Any]] = []
    verdict = target = ""
    negated, at = False, 0
    while at < len(words):
        word, value = words[at], words[at + 1] if at + 1 < len(words) else ""
        at += 2
        if word == "!":
            negated, at = True, at - 1
            continue
        if word in ("-j", "-g"):
            target = value
            verdict = {"ACCEPT": "accept", "DROP": "drop", "REJECT": "reject", "RETURN": "return", "LOG": ""}.get(
                value, "jump" if word == "-j" else "goto"
            )
            break  # what follows are the target's own options
        if word == "-i":
            conditions.append(_condition("interface", [value], negated))
        elif word == "-p":
            conditions.append(_condition("protocol", [value], negated))
        elif word in ("--dport", "--dports"):
            pairs = [part.partition(":") for part in value.split(",")]
            ends = [(first or "0", last or ("65535" if colon else first)) for first, colon, last in pairs]
            numbers = [(int(a), int(b)) for a, b in ends if a.isdecimal() and b.isdecimal()]
            conditions.append(_condition("port", numbers, negated))
        elif word in ("--state", "--ctstate"):
            conditions.append(_condition("state", value.lower().split(","), negated))
        elif word == "-m":
            if value not in ("udp", "tcp", "multiport", "state", "conntrack", "comment"):
                conditions.append(_condition(value))
        elif word != "--comment":
            conditions.append(_condition(word))
            # An option of an unknown match may have no value: then the next word is an option again.
            at -= value.startswith("-")
        negated = False
    return _Rule(tuple(conditions), verdict, target)
