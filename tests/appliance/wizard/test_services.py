from __future__ import annotations

from dataclasses import replace

from appliance.wizard.engine import BLOCKED, DONE, OPEN, stopped
from appliance.wizard.services import Services
from tests.appliance.wizard.plain import FRESH, Told, row, serving

STEP = Services()
UP = serving(row(1, "up"), services=("slurm",))


def test_what_is_installed_here_is_told_a_look_first() -> None:
    acts = STEP.plan(UP, {}).acts
    assert [(act.words[1], act.preview) for act in acts] == [
        ("hosts", True), ("slurm", True), ("hosts", False), ("slurm", False),
    ]  # fmt: skip
    assert acts[0].words == ("cluster", "hosts", "--dry-run") and acts[3].words == ("cluster", "slurm")


def test_status() -> None:
    assert STEP.status(FRESH, {}).word == BLOCKED
    assert STEP.status(UP, {}).why == "to be told of the nodes: hosts, slurm" and STEP.status(UP, {}).word == OPEN
    assert (
        STEP.status(
            replace(
                UP,
                told=(
                    "hosts",
                    "slurm",
                ),
            ),
            {},
        ).word
        == DONE
    )
    none: Told = {"services": {"tools": []}}
    assert STEP.status(UP, none).word == DONE and STEP.plan(UP, none).acts == ()


def test_a_service_that_is_not_here_is_told_with_its_package() -> None:
    problems = STEP.problems(serving(row(1, "up")), {"services": {"tools": ["slurm"]}})
    assert stopped(problems) is None and "slurmctld" in problems[0].hint
    assert stopped(STEP.problems(replace(UP, root=False), {})) is not None


def test_only_what_this_program_can_do_is_offered() -> None:
    assert [choice.value for choice in STEP.questions(UP, {})[0].choices] == ["hosts", "slurm"]
