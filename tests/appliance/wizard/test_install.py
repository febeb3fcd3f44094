from __future__ import annotations

import pytest

from appliance.wizard.engine import BLOCKED, DOING, DONE, OPEN, stopped
from appliance.wizard.install import Install, danger
from appliance.wizard.reading import AnswerInvalid, read
from tests.appliance.wizard.plain import FRESH, erased, row, serving

STEP = Install()


def test_the_order_is_for_exactly_what_was_shown() -> None:
    facts = serving(row(1, "ready"), row(2, "ready"), preview=erased("empty", "gild compute:1 (node02)"))
    plan = STEP.plan(facts, {})
    act = plan.acts[0]
    assert act.words == ("node", "install", "--all") and act.sure == ("--yes", "--expect", "d" * 64)
    assert plan.erasure is not None and len(plan.erasure.rows) == 2 and not plan.erasure.typed
    assert "--expect" not in act.line(facts.state)
    some = STEP.plan(facts, {"install": {"nodes": "node[01-02,07] !node02"}})
    assert some.acts[0].words == ("node", "install", "node[01-02,07]", "!node02")
    asked = STEP.questions(facts, {})[0]
    assert read(asked, "@rack1 node[01,03]") == "@rack1 node[01,03]"
    with pytest.raises(AnswerInvalid):
        read(asked, "node01 --image")


@pytest.mark.parametrize(
    ("contents", "typed"),
    [
        (["empty"], False), (["gild compute:3 (node01)"], False), (["empty", "NTFS 'photos'"], True),
        (["unknown"], True), (["gild other:1 (n1)"], True), (["GPT: gild compute"], True), (["empty"] * 20, False),
        (["empty"] * 21, True), ([], False),
    ],
)  # fmt: skip
def test_what_is_not_ours_asks_for_the_number(contents: list[str], typed: bool) -> None:
    foreign, why = danger(erased(*contents)["nodes"], ["compute"])
    assert bool(why) is typed and bool(foreign) is (typed and len(contents) < 20)


def test_what_is_not_ours_has_a_sign() -> None:
    plan = STEP.plan(serving(row(1, "ready"), preview=erased("NTFS", "empty")), {})
    assert plan.erasure is not None
    assert plan.erasure.lines == ("  node01  S1: ! NTFS  (gets compute:1)", "  node02  S2: empty  (gets compute:1)")


def test_the_status_follows_the_nodes() -> None:
    assert STEP.status(FRESH, {}).word == BLOCKED and STEP.status(serving(), {}).word == BLOCKED
    assert STEP.status(serving(row(1, "ready"), images=()), {}).why == "no image yet: step 2"
    assert STEP.status(serving(row(1, "ready")), {}).word == OPEN
    assert STEP.status(serving(row(1, "ready", ordered=True)), {}).word == DOING
    two = serving(row(1, "up"), row(2, "failed"), row(3, "installing"))
    assert STEP.status(two, {}).why == "1 of 3 up, 1 on their way; 1 needs you: node02"
    over = serving(row(1, "up"), row(2, "failed"))
    assert (STEP.status(over, {}).word, STEP.status(over, {}).why) == (DONE, "1 up; 1 needs you: node02")
    assert STEP.status(serving(row(1, "failed")), {}).word == OPEN
    one = serving(row(1, "up"), row(2, "ready"), chosen=("node01",))
    assert STEP.status(one, {"install": {"nodes": "node01"}}).word == DONE


def test_a_refusal_of_the_head_is_the_problem() -> None:
    facts = serving(row(1, "ready"), refused=("two disks fit the rule", "choose one"))
    stop = stopped(STEP.problems(facts, {}))
    assert stop is not None and stop.hint == "choose one"
    stop = stopped(STEP.problems(serving(row(1, "up"), preview=erased()), {}))
    assert stop is not None and "no node is left" in stop.text
    soft = STEP.problems(serving(row(1, "ready"), preview=erased("unknown")), {})
    assert stopped(soft) is None and "node01" in soft[0].text


def test_progress_in_lines() -> None:
    facts = serving(row(1, "installing", phase="writing", done=62, total=100), row(2, "failed", reason="two disks"))
    assert STEP.watch(facts, {}) == ("  node01  writing 62 %", "  node02  failed: two disks (node show node02)")
