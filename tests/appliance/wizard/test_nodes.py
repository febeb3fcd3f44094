from __future__ import annotations

from dataclasses import replace

from appliance.wizard.engine import BLOCKED, DOING, DONE, OPEN, stopped
from appliance.wizard.nodes import Nodes
from tests.appliance.wizard.plain import FRESH, SERVING, Told, row, serving

STEP = Nodes()


def test_the_status_counts() -> None:
    assert STEP.status(FRESH, {}).word == BLOCKED
    assert STEP.status(serving(), {}).word == OPEN
    expect = {"nodes": {"expect": 2}}
    assert STEP.status(serving(row(1), row(2, "ready")), expect).why == "1 waiting, 1 of 2 approved"
    assert STEP.status(serving(row(1, "ready")), expect).word == DOING
    assert STEP.status(serving(row(1, "ready"), row(2, "up")), expect).word == DONE
    assert STEP.short(serving(row(1), row(2, "ready")), {"nodes": {"expect": 5}}) == 3
    assert STEP.short(serving(), {"nodes": {"expect": 5, "how": "list"}}) == 0


def test_ways_to_names() -> None:
    facts = serving(row(3), row(2))
    assert STEP.plan(facts, {}).acts[0].words == ("node", "approve", "--all", "--profile", "default")
    some: Told = {"nodes": {"how": "pick", "pick": ["52:54:00:00:00:03"], "pattern": "gpu{n:02}", "profile": "default"}}
    assert STEP.plan(facts, some).acts[0].words == (
        "node", "approve", "52:54:00:00:00:03", "--profile", "default", "--name", "gpu{n:02}",
    )  # fmt: skip
    picked = next(question for question in STEP.questions(facts, some) if question.key == "pick")
    assert [choice.value[-2:] for choice in picked.choices] == ["02", "03"], "in the order of arrival"
    listed = {"nodes": {"how": "list", "file": "/n.csv"}}
    assert STEP.plan(facts, listed).acts[0].words == ("node", "load", "/n.csv")


def test_what_is_wrong_is_told() -> None:
    stop = stopped(STEP.problems(serving(), {}))
    assert stop is not None and "waiting room" in stop.text
    tight = {**SERVING, "free": 0, "leases": 1}
    stop = stopped(STEP.problems(serving(row(1), row(2), serving=tight), {}))
    assert stop is not None and "2 machines, and 0 addresses" in stop.text
    stop = stopped(STEP.problems(serving(row(1)), {"nodes": {"profile": "gpu"}}))
    assert stop is not None and "no profile gpu" in stop.text
    soft = STEP.problems(serving(row(1)), {"nodes": {"expect": 4}})
    assert stopped(soft) is None and "3 fewer" in soft[0].text
    foreign = {**SERVING, "foreign": [{"server_id": "10.20.0.9", "mac": "aa:bb"}]}
    assert "10.20.0.9" in STEP.problems(serving(row(1), serving=foreign), {})[0].text


def test_nobody_there_gets_the_usual_causes() -> None:
    assert "spanning tree" in STEP.watch(serving(), {})[0]
    heard = {**SERVING, "dhcp": {"discover": 3}}
    assert "3 DHCP messages heard" in STEP.watch(serving(serving=heard), {})[0]
    seen = STEP.watch(serving(row(1), row(2)), {"nodes": {"expect": 4}})
    assert "#1  Acme Box  52:54:00:00:00:01" in seen[0] and "2 machines waiting; 2 of 4" in seen[2]
    many = STEP.watch(replace(serving(), nodes=tuple(row(n) for n in range(1, 100))), {})
    assert len(many) < 30 and "and 79 more" in many[-2]
