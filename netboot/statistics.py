"""Installations in numbers: how long each part took, what failed and why, and who is slower than the others."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from statistics import median
from typing import Any

SPANS = ("hello", "written", "up")  # seconds from the beginning to each of these
SLOW = 1.5  # times the median of its group
FEW = 4  # installations of a group below which nobody is called slow


@dataclass(frozen=True)
class Installed:
    """One installation that has ended. `spans` are seconds, see SPANS; `fetched` and `written` bytes."""

    node: str
    profile: str = ""
    image: str = ""
    groups: tuple[str, ...] = ()
    outcome: str = ""  # up, written, failed, lost, cancelled
    reason: str = ""
    at: float = 0.0
    spans: dict[str, float] = field(default_factory=dict)
    fetched: int = 0
    written: int = 0


def summary(installs: Iterable[Installed], by: str) -> list[dict[str, Any]]:
    """A row for each node, profile, image (without its number) or group: how many, how many of them failed and for
    which reasons, median and 90th percentile of each span, and the nodes that are SLOW."""
    table: dict[str, list[Installed]] = {}
    for each in installs:
        for key in _keys(each, by):
            table.setdefault(key, []).append(each)
    return [_row(key, found) for key, found in sorted(table.items())]


def _keys(each: Installed, by: str) -> tuple[str, ...]:
    if by == "group":
        return each.groups or ("-",)
    return ({"node": each.node, "profile": each.profile, "image": each.image.partition(":")[0]}[by] or "-",)


def _row(key: str, found: list[Installed]) -> dict[str, Any]:
    good = [each for each in found if each.outcome in ("up", "written")]
    bad = [each for each in found if each.outcome in ("failed", "lost")]
    reasons: dict[str, int] = {}
    for each in bad:
        reasons[each.reason] = reasons.get(each.reason, 0) + 1
    spans = {name: _spread([each.spans[name] for each in good if name in each.spans]) for name in SPANS}
    return {
        "key": key, "count": len(found), "good": len(good), "failed": len(bad),
        "reasons": sorted(reasons.items(), key=lambda pair: -pair[1])[:5],
        "spans": {name: spread for name, spread in spans.items() if spread},
        "fetched": int(median([each.fetched for each in good])) if good else 0, "slow": _slow(good, spans),
    }  # fmt: skip


def _spread(values: list[float]) -> dict[str, float]:
    if not values:
        return {}
    ordered = sorted(values)
    high = ordered[min(len(ordered) - 1, len(ordered) * 9 // 10)]
    return {
        "median": round(median(ordered), 1),
        "p90": round(high, 1),
    }


def _slow(good: list[Installed], spans: Mapping[str, Mapping[str, float]]) -> list[str]:
    """Nodes whose writing took much longer than it did the others."""
    usual = spans["written"].get("median", 0.0) if spans["written"] else 0.0
    if len(good) < FEW or not usual:
        return []
    return sorted({each.node for each in good if each.spans.get("written", 0.0) > SLOW * usual})
