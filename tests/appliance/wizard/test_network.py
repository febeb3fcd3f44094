from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from appliance.wizard.engine import BLOCKED, DONE, OPEN, given, stopped
from appliance.wizard.facts import Wire
from appliance.wizard.network import Network, suggested
from tests.appliance.wizard.plain import ETH0, ETH1, FRESH, SERVING

STEP = Network()


def net(**answers: Any) -> dict[str, dict[str, Any]]:
    return {"network": answers}


def test_the_quiet_wire_without_a_way_out_is_suggested() -> None:
    assert suggested(FRESH) is ETH1
    assert suggested(replace(FRESH, wires=(ETH0,))) is None
    wifi = Wire("wlan0", "10.9.0.1/24", True, True, wireless=True)
    down = replace(ETH1, link=False)
    assert suggested(replace(FRESH, wires=(wifi, down))) is None
    asked = STEP.questions(FRESH, {})[0]
    assert asked.default == "eth1" and [choice.suggested for choice in asked.choices] == [True, False]
    assert "eth1  10.20.0.1/24  link 1 Gb/s" in asked.choices[0].text


def test_defaults_need_no_flags() -> None:
    act = STEP.plan(FRESH, {}).acts[0]
    assert act.words == ("serve", "--interface", "eth1") and act.background
    values = given(STEP, FRESH, {})
    assert values["range"] == "10.20.0.25-10.20.0.254" and values["domain"] == "cluster.internal"
    other = net(range="10.20.0.10-10.20.0.99", domain="lab.example")
    assert STEP.plan(FRESH, other).acts[0].line(FRESH.state).startswith(
        "gild.pyz serve --interface eth1 --range 10.20.0.10-10.20.0.99 --domain lab.example"
    )  # fmt: skip


def test_a_service_where_there_can_be_one() -> None:
    facts = replace(FRESH, service="")
    act = STEP.plan(facts, {}).acts[0]
    assert act.words == ("service", "install", "--interface", "eth1") and act.sure == ("--yes",)
    assert stopped(STEP.problems(FRESH, net(start="service")))


@pytest.mark.parametrize(
    ("wires", "answers", "said"),
    [
        ((), {}, "no interface to serve on"),
        ((ETH1,), {"interface": "eth9"}, "there is no interface eth9"),
        ((replace(ETH1, address=""),), {}, "has no address"),
        ((replace(ETH1, up=False),), {}, "eth1 is down"),
        ((ETH0,), {"dhcp": "authority"}, "192.168.7.1"),
        ((ETH1,), {"range": "10.21.0.1-10.21.0.9"}, "not in 10.20.0.0/24"),
    ],
)
def test_what_keeps_a_head_from_serving(wires: tuple[Wire, ...], answers: dict[str, Any], said: str) -> None:
    facts = replace(FRESH, wires=wires)
    stop = stopped(STEP.problems(facts, net(**answers)))
    assert stop is not None and said in stop.text and stop.hint


def test_beside_another_server_it_proposes_to_be_the_proxy() -> None:
    facts = replace(FRESH, wires=(ETH0,))
    assert stopped(STEP.problems(facts, {})) is None
    (act,) = STEP.plan(facts, {}).acts
    assert " --dhcp proxy" in " ".join(act.words)


def test_a_cable_that_is_out_is_only_told() -> None:
    facts = replace(FRESH, wires=(replace(ETH1, link=False),))
    problems = STEP.problems(facts, {})
    assert stopped(problems) is None and "no link" in problems[0].text


def test_the_status_is_that_of_the_process() -> None:
    assert STEP.status(FRESH, {}).word == OPEN
    assert STEP.status(replace(FRESH, root=False), {}).word == BLOCKED
    assert STEP.status(replace(FRESH, wires=()), {}).word == BLOCKED
    served = replace(FRESH, serving=SERVING)
    assert (STEP.status(served, {}).word, STEP.status(served, {}).why) == (DONE, "eth1, 230 places")
    stop = stopped(STEP.problems(served, {}))
    assert stop is not None and "kill 7" in stop.hint
