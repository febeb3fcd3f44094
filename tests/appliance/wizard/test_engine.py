from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from appliance.wizard.engine import (
    BLOCKED,
    DONE,
    Act,
    AnswerInvalid,
    Choice,
    Problem,
    Question,
    checked,
    first_open,
    header,
    open_list,
    read,
    stopped,
)
from appliance.wizard.steps import STEPS
from tests.appliance.wizard.plain import FRESH, serving

WAY = Question("way", "How", "build", (Choice("build", "Build"), Choice("import", "Import")))
SETS = Question("sets", "Sets", [], (Choice("ntp", "ntp"), Choice("tools", "tools")), many=True)
RANGE = Question("range", "Addresses", "", setting="range")
COUNT = Question("expect", "How many", 1)
NAME = Question("name", "Name", "compute", pattern="[a-z]+", wants="letters")


@pytest.mark.parametrize(
    ("question", "text", "value"),
    [
        (WAY, "2", "import"), (WAY, " build ", "build"), (SETS, "2, 1", ["tools", "ntp"]), (SETS, "ntp", ["ntp"]),
        (SETS, "-", []),
        (RANGE, "10.0.0.1 - 10.0.0.9", "10.0.0.1-10.0.0.9"), (RANGE, "-", ""), (COUNT, "12", 12),
        (NAME, "gpu", "gpu"),
    ],
)  # fmt: skip
def test_what_is_typed_becomes_an_answer(question: Question, text: str, value: object) -> None:
    assert read(question, text) == value
    assert checked(question, read(question, text)) == value


@pytest.mark.parametrize(
    ("question", "text", "said"),
    [
        (WAY, "3", "from 1 to 2"), (WAY, "0", "from 1 to 2"), (WAY, "bild", "none of build, import"),
        (SETS, "1,nfs", "none of ntp"), (RANGE, "10.0.0.9-10.0.0.1", "two IPv4"), (COUNT, "many", "no number"),
        (NAME, "B 2", "letters"),
        (NAME, "x" * 5000, "no line"), (NAME, "a\x1b[2J", "no line"),
        (Question("key", "Key"), "-----BEGIN OPENSSH PRIVATE KEY-----", "private key"),
    ],
)  # fmt: skip
def test_what_is_no_answer_says_what_is_wanted(question: Question, text: str, said: str) -> None:
    with pytest.raises(AnswerInvalid, match=said):
        read(question, text)


@pytest.mark.parametrize(
    ("question", "value"), [(WAY, "zfs"), (WAY, ["build"]), (SETS, "ntp"), (SETS, ["zfs"]), (COUNT, "12"), (NAME, 7)]
)  # fmt: skip
def test_a_file_may_be_wrong_too(question: Question, value: object) -> None:
    with pytest.raises(AnswerInvalid, match=question.key):
        checked(question, value)  # type: ignore[arg-type]


@given(st.text(max_size=40))
def test_reading_answers_or_refuses(text: str) -> None:
    for question in (WAY, SETS, RANGE, COUNT, NAME):
        try:
            value = read(question, text)
        except AnswerInvalid:
            continue
        assert checked(question, value) == value


def test_a_command_names_the_state_only_where_it_is_not_the_usual_one() -> None:
    act = Act(("image", "import", "/my file", "--name", "a"))
    assert act.line("/var/lib/gild") == "gild.pyz image import '/my file' --name a"
    assert act.line("/srv/g").startswith("gild.pyz --state /srv/g image")
    assert Act(("serve",), background=True).line("/srv/g").endswith("serve >> /srv/g/serve.log 2>&1 &")


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
