"""Rules that let machines out of the waiting room by what they are: the first that fits decides.

A rule is written as conditions in words, "vendor=Dell* memory=64GiB+ disks=2+ subnet=10.2.0.0/16", all of which must
hold. It approves, or keeps a machine waiting whatever later rules say; it never installs anything.
"""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from ipaddress import IPv4Address, IPv4Network
from typing import Any

from images.errors import GildError
from netboot.layout import parse_size
from netboot.naming import fill, is_pattern
from netboot.node import Node
from netboot.noderange import check_group
from netboot.report import Disk

APPROVE, WAIT = "approve", "wait"
MAX_RULES = 200
MAX_CONDITIONS = 20
_SIZES = r"[0-9]+[A-Za-z]+(\+|-[0-9]+[A-Za-z]+)"  # no single one: no two disks of "1 TB" have the same size
_TEXT = re.compile(r"[ -~]{1,64}")


class RuleInvalid(GildError):
    """A rule has an unknown condition or an impossible value."""


@dataclass(frozen=True)
class Rule:
    """One rule. `conditions` are (key, value) as they were written; `names` a pattern, or "" for the profile's."""

    id: int
    conditions: tuple[tuple[str, str], ...]
    act: str = APPROVE
    profile: str = "default"
    names: str = ""
    groups: tuple[str, ...] = ()

    @property
    def text(self) -> str:
        """The conditions in words, as `parse_conditions` reads them."""
        words = (f"{key}={value}" for key, value in self.conditions)
        return " ".join(f'"{word}"' if " " in word else word for word in words) or "every machine"


def parse_conditions(words: Iterable[str]) -> tuple[tuple[str, str], ...]:
    """Conditions from words such as "vendor=Dell*". Raises RuleInvalid, naming the word."""
    found: list[tuple[str, str]] = []
    for word in words:
        key, equals, value = word.partition("=")
        if not equals or key not in _CONDITIONS:
            raise RuleInvalid(f"{_shown(word)} is not a condition", f"known are {', '.join(_CONDITIONS)}, as KEY=VALUE")
        if not _TEXT.fullmatch(value):
            raise RuleInvalid(f"{_shown(word)}: a value has 1 to 64 plain characters")
        if key in (other for other, _ in found):
            raise RuleInvalid(f"{key} stands there twice", "write two rules")
        try:
            _CONDITIONS[key](value)
        except (ValueError, GildError):
            raise RuleInvalid(f"{_shown(word)} is not possible", _WANTED[key]) from None
        found.append((key, value))
    if len(found) > MAX_CONDITIONS:
        raise RuleInvalid(f"a rule has at most {MAX_CONDITIONS} conditions")
    return tuple(found)


def check_rule(rule: Rule) -> Rule:
    """`rule` itself if all of it is possible. Raises RuleInvalid, NameInvalid, NoderangeInvalid."""
    parse_conditions(f"{key}={value}" for key, value in rule.conditions)
    if rule.act not in (APPROVE, WAIT):
        raise RuleInvalid(f"a rule cannot {_shown(rule.act)}", f"{APPROVE} or {WAIT}")
    if rule.names:
        if not is_pattern(rule.names):
            raise RuleInvalid(f"{_shown(rule.names)} is one name, and a rule is for many", "write it like node{n:02}")
        fill(rule.names, 1)
    for group in rule.groups:
        check_group(group)
    return rule


def fits(rule: Rule, node: Node) -> bool:
    """Whether the machine is what the rule is about. A machine that has not shown its hardware fits no rule."""
    return node.facts is not None and all(_CONDITIONS[key](value)(node) for key, value in rule.conditions)


def first(rules: Iterable[Rule], node: Node) -> Rule | None:
    """The first rule that fits, which decides. Switches say only every half minute who they are: until then a rule
    about ports that may fit keeps later ones from deciding."""
    for rule in rules:
        others = tuple((key, value) for key, value in rule.conditions if key != "port")
        open_ = others != rule.conditions and not node.ports
        if fits(replace(rule, conditions=others) if open_ else rule, node):
            return None if open_ else rule
    return None


Test = Callable[[Node], bool]


def _pattern(of: Callable[[Any], str]) -> Callable[[str], Test]:
    """A shell pattern for a text the machine says of itself, whatever the case."""
    return lambda value: lambda node: fnmatch.fnmatchcase(of(node).lower(), value.lower())


def _mac(value: str) -> Test:
    prefix = value.lower().replace("-", ":").rstrip(":*")
    if not re.fullmatch(r"[0-9a-f]{2}(:[0-9a-f]{2}){0,5}", prefix):
        raise ValueError(value)
    return lambda node: any(f"{mac}:".startswith(f"{prefix}:") for mac in node.macs)


def _range(value: str, read: Callable[[str], int], of: Callable[[Node], int]) -> Test:
    """ "4" is exactly that, "4+" at least, "4-8" from to."""
    low, dash, high = value.partition("-")
    least = read(low.removesuffix("+"))
    most = read(high) if dash else None if low.endswith("+") else least
    if least < 0 or (most is not None and most < least) or (dash and low.endswith("+")):
        raise ValueError(value)
    return lambda node: least <= of(node) and (most is None or of(node) <= most)


def _memory(value: str) -> Test:
    # Machines keep some of their memory to themselves: a "64 GiB" machine shows 62.
    if not re.fullmatch(_SIZES, value):
        raise ValueError(value)
    return _range(value, parse_size, lambda node: node.facts.memory if node.facts else 0)


def _disks(value: str) -> Test:
    return _range(value, _number, lambda node: len(_fixed(node)))


def _number(text: str) -> int:
    if not re.fullmatch(r"[0-9]{1,6}", text):
        raise ValueError(text)
    return int(text)


def _disk(value: str) -> Test:
    if not re.fullmatch(_SIZES, value):
        raise ValueError(value)
    return _range(value, parse_size, lambda node: max((disk.size for disk in _fixed(node)), default=0))


def _fixed(node: Node) -> list[Disk]:
    return [disk for disk in node.facts.disks if not disk.removable] if node.facts else []


def _subnet(value: str) -> Test:
    network = IPv4Network(value, strict=False)
    return lambda node: bool(node.address) and IPv4Address(node.address) in network


def _firmware(value: str) -> Test:
    if value not in ("bios", "uefi"):
        raise ValueError(value)
    return lambda node: node.facts is not None and node.facts.firmware == value


_CONDITIONS: dict[str, Callable[[str], Test]] = {
    "vendor": _pattern(lambda node: f"{node.facts.vendor} {node.facts.product}".strip()),
    "serial": _pattern(lambda node: node.serial),
    "mac": _mac,
    "memory": _memory,
    "cores": lambda value: _range(value, _number, lambda node: node.facts.cores if node.facts else 0),
    "disks": _disks,
    "disk": _disk,
    "firmware": _firmware,
    "arch": _pattern(lambda node: node.facts.arch),
    "subnet": _subnet,
    "port": lambda value: lambda node: any(fnmatch.fnmatchcase(port.lower(), value.lower()) for port in node.ports),
}
_WANTED = {
    "vendor": "a pattern for vendor and product, such as Dell*", "serial": "a pattern such as S3Z9*",
    "mac": "the first bytes of a card's address, such as 52:54:00", "memory": "64GiB+ or 8GiB-16GiB",
    "cores": "8, 8+ or 4-16", "disks": "how many, 1, 2+ or 2-4, removable ones left out",
    "disk": "the size of the largest, 1TB+ or 100GB-500GB", "firmware": "bios or uefi", "arch": "x86_64 or aarch64",
    "subnet": "a network such as 10.2.0.0/16", "port": "a pattern for SWITCH:PORT such as sw1:Gi1/0/*",
}  # fmt: skip


def _shown(text: str) -> str:
    return repr("".join(c if c.isprintable() else "?" for c in text)[:80])
