from __future__ import annotations

from dataclasses import replace

from appliance.wizard.acceptance import Acceptance, farewell
from appliance.wizard.engine import BLOCKED, DONE, OPEN, stopped
from tests.appliance.wizard.plain import row, serving

STEP = Acceptance()


def test_it_tests_what_is_up() -> None:
    assert STEP.status(serving(row(1, "ready")), {}).word == BLOCKED
    assert stopped(STEP.problems(serving(), {})) is not None
    facts = serving(row(1, "up"))
    assert STEP.status(facts, {}).word == OPEN
    assert STEP.plan(facts, {}).acts[0].words == ("cluster", "test")
    named = {"test": {"nodes": "node[01-04] @rack1"}}
    assert STEP.plan(facts, named).acts[0].words == ("cluster", "test", "node[01-04]", "@rack1")
    assert STEP.status(replace(facts, tested=False), {}).word == OPEN
    assert STEP.status(replace(facts, tested=True), {}).word == DONE


def test_the_end_names_what_comes_next() -> None:
    assert farewell()[0].startswith("Your cluster is ready") and len(farewell()) == 5
