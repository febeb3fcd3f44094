from __future__ import annotations

from dataclasses import replace

from appliance.wizard.check import Check
from appliance.wizard.engine import DONE, OPEN
from tests.appliance.wizard.plain import FRESH, SERVING

GOOD = {"name": "disk", "level": "ok", "found": "50 GiB free", "fix": ""}
BAD = {"name": "UDP port 67", "level": "error", "found": "dnsmasq has it", "fix": "systemctl disable --now dnsmasq"}
ODD = {"name": "clock", "level": "warning", "found": "1970", "fix": "date"}


def test_an_error_is_open_until_a_head_serves_all_the_same() -> None:
    step = Check()
    assert step.status(FRESH, {}).word == OPEN
    assert step.status(replace(FRESH, findings=(GOOD, ODD)), {}).why == "2 looked at, 1 warning"
    bad = replace(FRESH, findings=(GOOD, BAD))
    assert (step.status(bad, {}).word, step.status(bad, {}).why) == (OPEN, "1 thing to mend")
    assert step.status(replace(bad, serving=SERVING), {}).word == DONE


def test_each_finding_comes_with_its_fix_the_worst_first() -> None:
    facts = replace(FRESH, findings=(ODD, GOOD, BAD), free=1 << 30)
    said = Check().problems(facts, {})
    assert [problem.hint for problem in said[:2]] == ["systemctl disable --now dnsmasq", "date"]
    assert "1 GB are free" in said[2].text and not any(problem.stops for problem in said)
