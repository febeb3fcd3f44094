"""Approval by rule: what people say once about machines that are yet to come."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from appliance import rows
from appliance.errors import Unknown, Wrong
from appliance.roster import Roster
from images.errors import GildError
from netboot.node import Node, State
from netboot.rules import APPROVE, MAX_RULES, WAIT, Rule, check_rule, first, parse_conditions

Approve = Callable[..., list[dict[str, Any]]]  # appliance.head_changes.Changes.approve


class Rules:
    """The operator's use cases around rules, and the look at every machine that has shown what it is."""

    def __init__(self, roster: Roster, approve: Approve) -> None:
        """Load them from the journal. Raises DatabaseInvalid."""
        self.roster, self._approve = roster, approve
        self._rules = rows.load_rules(roster.store)

    def rules(self) -> list[dict[str, Any]]:
        """All rules in their order, each with the machines of the waiting room it would take."""
        takes: dict[int, list[str]] = {rule.id: [] for rule in self._rules}
        for node in self.roster.strangers():
            rule = first(self._rules, node)
            if rule is not None:
                takes[rule.id].append(node.label)
        return [{**_row(rule), "takes": takes[rule.id]} for rule in self._rules]

    def rule_add(
        self,
        conditions: Sequence[str],
        *,
        profile: str | None = None,
        names: str | None = None,
        groups: Sequence[str] = (),
        wait: bool = False,
        before: int | None = None,
        now: bool = False,
    ) -> dict[str, Any]:
        """One more rule, the last one or before rule number `before`; with `now` also for the machines that wait
        already. On the disk before this returns. Raises RuleInvalid, NameInvalid, NoderangeInvalid, Wrong, Unknown,
        NoSpace."""
        if len(self._rules) >= MAX_RULES:
            raise Wrong(f"there are {MAX_RULES} rules already", "gild.pyz rule rm NUMBER")
        kind = profile or "default"
        if kind not in self.roster.profiles:
            raise Unknown(f"there is no profile {kind[:80]!r}", f"profiles: {', '.join(sorted(self.roster.profiles))}")
        rule = check_rule(Rule(
            max((rule.id for rule in self._rules), default=0) + 1, parse_conditions(conditions),
            WAIT if wait else APPROVE, kind, names or "", tuple(sorted(set(groups))),
        ))  # fmt: skip
        place = len(self._rules) if before is None else self._place(before)
        self._keep([*self._rules[:place], rule, *self._rules[place:]])
        taken = [node.id for node in self.roster.strangers() if now and self.consider(node)]
        return {**_row(rule), "approved": [self.roster.nodes[number].name for number in taken]}

    def rule_remove(self, number: int) -> dict[str, Any]:
        """Forget a rule; the machines it has approved stay so. Raises Unknown, NoSpace."""
        rule = self._rules[self._place(number)]
        self._keep([other for other in self._rules if other is not rule])
        return _row(rule)

    def consider(self, node: Node) -> bool:
        """Approve a machine that has shown its hardware if the first rule that fits it says so. What stands in the way
        (no address left, a full disk) is said on its timeline, and it waits."""
        rule = first(self._rules, node) if node.state is State.WAITING else None
        if rule is None or rule.act == WAIT:
            return False
        try:
            self._approve([f"#{node.id}"], rule.profile, rule.names or None, groups=rule.groups)
        except GildError as error:
            self.roster.timeline.note(node.id, f"rule {rule.id} cannot approve it: {error.message}", "warn")
            return False
        self.roster.timeline.add(node.id, f"by rule {rule.id}: {rule.text}")
        return True

    def _place(self, number: int) -> int:
        for place, rule in enumerate(self._rules):
            if rule.id == number:
                return place
        known = ", ".join(str(rule.id) for rule in self._rules) or "none yet"
        raise Unknown(f"there is no rule {number}", f"rules: {known}")

    def _keep(self, rules: list[Rule]) -> None:
        """Rules are few: all of them are written, in their order. Raises NoSpace."""
        self.roster.save_now(rows.rule_rows(rules))
        self._rules = rules


def _row(rule: Rule) -> dict[str, Any]:
    return {
        "id": rule.id, "conditions": dict(rule.conditions), "text": rule.text, "act": rule.act, "profile": rule.profile,
        "names": rule.names, "groups": list(rule.groups),
    }  # fmt: skip
