"""The list of all steps, in the order in which they depend on each other."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from difflib import get_close_matches

from appliance.wizard.acceptance import Acceptance
from appliance.wizard.check import Check
from appliance.wizard.engine import Answers, Step, Value, given
from appliance.wizard.facts import Facts
from appliance.wizard.image import Image
from appliance.wizard.install import Install
from appliance.wizard.network import Network
from appliance.wizard.nodes import Nodes
from appliance.wizard.packages import Packages
from appliance.wizard.reading import AnswerInvalid, checked
from appliance.wizard.services import Services

STEPS: tuple[Step, ...] = (
    Check(), Network(), Image(), Packages(), Nodes(), Install(), Services(), Acceptance(),
)  # fmt: skip


# What a step cannot do without, and not every version of this program has.
NEEDS = {"services": "cluster hosts", "test": "cluster test"}


def offered(facts: Facts) -> tuple[Step, ...]:
    """The steps that this program can do."""
    return tuple(step for step in STEPS if NEEDS.get(step.name, "") in ("", *facts.verbs))


def place(name: str, steps: Sequence[Step] = STEPS) -> int:
    """The place of the step of that name or number. Raises AnswerInvalid naming the nearest."""
    if name.isdecimal() and int(name) < len(steps):
        return int(name)
    names = [step.name for step in steps]
    if name in names:
        return names.index(name)
    near = get_close_matches(name, names, 1)
    hint = f"did you mean {near[0]!r}?" if near else f"they are {', '.join(names)}"
    raise AnswerInvalid(f"the wizard has no step {name!r}", hint)


def completed(facts: Facts, answers: Answers, *, only: str) -> dict[str, dict[str, Value]]:
    """The answers with the defaults of what nobody answered in the step `only`: what one would have agreed to by Enter
    alone."""
    step = STEPS[place(only)]
    found = {name: dict(table) for name, table in answers.items()}
    before: dict[str, Value] | None = None
    # A question may be there only once an earlier one is answered.
    while (now := given(step, facts, found)) != before:
        before, found[only] = now, now
    return {name: table for name, table in found.items() if table}


def kept(facts: Facts, answers: Answers) -> dict[str, dict[str, Value]]:
    """Answers that were kept, without those that are none any more: a disk of last week, a step of another version."""
    found: dict[str, dict[str, Value]] = {}
    for step in STEPS:
        for question in step.questions(facts, answers):
            value = answers.get(step.name, {}).get(question.key)
            if value is not None:
                with suppress(AnswerInvalid):
                    found.setdefault(step.name, {})[question.key] = checked(question, value)
    return found


def validated(facts: Facts, answers: Answers) -> dict[str, dict[str, Value]]:
    """Answers out of a file, each checked against its question. Raises AnswerInvalid naming step and key."""
    found: dict[str, dict[str, Value]] = {}
    for name, table in answers.items():
        step = STEPS[place(name)]
        known = {question.key: question for question in step.questions(facts, answers)}
        found[step.name] = {}
        for key, value in table.items():
            if key not in known:
                near = get_close_matches(key, known, 1)
                hint = f"did you mean {near[0]!r}?" if near else f"it asks {', '.join(known) or 'nothing'}"
                raise AnswerInvalid(f"step {name} does not ask {key!r}", hint)
            try:
                found[step.name][key] = checked(known[key], value)
            except AnswerInvalid as error:
                raise AnswerInvalid(f"{name}.{error.message}", error.hint) from None
    return found
