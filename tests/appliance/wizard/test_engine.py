from __future__ import annotations

import json
from dataclasses import asdict, replace

import pytest

from appliance.wizard.engine import (
    BLOCKED,
    DONE,
    Act,
    Problem,
    first_open,
    header,
    open_list,
    stopped,
)
from appliance.wizard.steps import STEPS
from tests.appliance.wizard.plain import FRESH, serving


def test_a_command_names_the_state_only_where_it_is_not_the_usual_one() -> None:
    act = Act(("image", "import", "/my file", "--name", "a"))
    assert act.line("/var/lib/gild") == "gild.pyz image import '/my file' --name a"
    assert act.line("/srv/g").startswith("gild.pyz --state /srv/g image")
    assert Act(("serve",), background=True).line("/srv/g").endswith("serve >> /srv/g/serve.log 2>&1 &")


def test_facts_can_be_sent() -> None:
    facts = serving(findings=())
    assert json.loads(json.dumps(asdict(facts)))["wires"][1]["address"] == "10.20.0.1/24"


def test_the_header_has_a_sign_for_every_step() -> None:
    facts = replace(FRESH, findings=())
    shown = header(STEPS, facts, {}, 1, plain=False)
    assert shown[:3] == ["✓ Check", "▶ 1 Network", "· 2 Image"] and shown[-1] == "· 7 Test"
    assert all(piece.isascii() for piece in header(STEPS, facts, {}, 1, plain=True))
    lines = open_list(STEPS, facts, {}, plain=True)
    assert len(lines) == len(STEPS) and "blocked: no image yet: step 2" in lines[3]


def test_it_goes_on_where_something_is_open() -> None:
    assert first_open(STEPS, FRESH, {}) == 0
    assert first_open(STEPS, replace(FRESH, findings=()), {}) == 1
    assert first_open(STEPS, serving(findings=()), {}) == 4


def test_the_first_problem_that_stops_counts() -> None:
    soft, hard = Problem("a", stops=False), Problem("b")
    assert stopped([soft, hard]) is hard and stopped([soft]) is None


@pytest.mark.parametrize("facts", [FRESH, serving(), replace(FRESH, root=False, wires=())])
def test_every_step_can_be_opened_early(facts: object) -> None:
    """No step fails on facts that it is not ready for: it says in a line what is missing, or what it would do."""
    for step in STEPS:
        status = step.status(facts, {})  # type: ignore[arg-type]
        assert status.word == DONE or status.why
        for question in step.questions(facts, {}):  # type: ignore[arg-type]
            assert question.text and (question.explain or step.explain)
        problems = step.problems(facts, {})  # type: ignore[arg-type]
        if status.word == BLOCKED:
            assert stopped(problems) is not None, step.name
        if stopped(problems) is None:
            plan = step.plan(facts, {})  # type: ignore[arg-type]
            assert plan.effect.endswith(".")
        assert isinstance(step.watch(facts, {}), tuple)  # type: ignore[arg-type]
