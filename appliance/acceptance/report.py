"""What a test came to, for people and for scripts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from appliance.acceptance.checks import CHECKS, FAIL, NONE, PASS, Target, Verdict
from appliance.acceptance.compared import SPEEDS
from appliance.acceptance.outliers import LEAST

SIGNS = {PASS: "✓", FAIL: "✖", NONE: "·", "": ""}


@dataclass(frozen=True)
class Report:
    """All verdicts: node -> check -> verdict, in the order in which the nodes were named."""

    targets: Sequence[Target]
    verdicts: Mapping[str, Mapping[str, Verdict]]

    @property
    def failed(self) -> list[str]:
        """The nodes with a failure."""
        return [name for name, found in self.verdicts.items() if any(one.word == FAIL for one in found.values())]

    def columns(self) -> list[str]:
        """Names of the checks that were done on anybody."""
        done = {check for found in self.verdicts.values() for check in found}
        return [check.name for check in CHECKS if check.name in done]

    def table(self) -> tuple[list[str], list[list[tuple[str, str]]]]:
        """Column titles; rows of (word, text of the cell): a sign, or the speed. The first cell is the node's name."""
        columns = self.columns()
        titles = {check.name: check.title for check in CHECKS}
        rows = []
        for name, found in self.verdicts.items():
            row = [("", name)]
            for check in columns:
                one = found.get(check, Verdict(""))
                speed = f"{one.value:.0f}" if check in SPEEDS and one.value is not None else SIGNS[one.word]
                row.append((one.word, speed))
            rows.append(row)
        return ["node", *(titles[check] for check in columns)], rows

    def failures(self) -> list[tuple[str, Verdict]]:
        """One sentence each, by node."""
        return [
            (name, one) for name, found in self.verdicts.items() for one in found.values() if one.word == FAIL
        ]  # fmt: skip

    def notes(self) -> list[str]:
        """What was not tested, and for how many nodes it was so."""
        reasons: dict[tuple[str, str], int] = {}
        for found in self.verdicts.values():
            for check, one in found.items():
                if one.word == NONE:
                    reasons[check, one.text] = reasons.get((check, one.text), 0) + 1
        told = [f"{check}: not tested on {count} of {len(self.verdicts)}: {text}"
                for (check, text), count in reasons.items()]  # fmt: skip
        kinds = [target.profile for target in self.targets]
        few = sorted({profile for profile in kinds if kinds.count(profile) < LEAST})
        if few and any(check in self.columns() for check in SPEEDS):
            told.append(f"speeds: not compared for {', '.join(few)}, which has fewer than {LEAST} nodes here")
        return told

    def as_dict(self) -> dict[str, Any]:
        """For scripts."""
        return {
            "passed": not self.failed,
            "nodes": [
                {
                    "name": target.name,
                    "address": target.address,
                    "profile": target.profile,
                    "passed": target.name not in self.failed,
                    "checks": {
                        check: {"result": one.word, "text": one.text, "fix": one.fix, "value": one.value}
                        for check, one in self.verdicts[target.name].items()
                    },
                }
                for target in self.targets
            ],
            "notes": self.notes(),
        }
