"""The wizard without a person: the same steps, their answers from a file. It stops at the first thing it cannot mend,
and before any erasure whose number of disks was not named."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

from appliance.cli import show
from appliance.errors import Declined, Wrong
from appliance.wizard import acceptance, acting
from appliance.wizard.answers import save
from appliance.wizard.engine import DONE, Answers, Erasure, Step, count, label, stopped
from appliance.wizard.gather import Look
from appliance.wizard.nodes import Nodes
from appliance.wizard.steps import completed

if TYPE_CHECKING:
    from appliance.cli.main import Site

POLL = 1.0  # seconds between two looks at machines


class Unattended:
    """One run over the steps. `erase` is how many disks may be erased, `wait` seconds how long machines may take in one
    step; `until` is the place of the last step."""

    def __init__(
        self, site: Site, steps: Sequence[Step], answers: Answers, *, erase: int | None, wait: float, until: int
    ) -> None:
        self.site, self.steps, self.answers = site, steps[: until + 1], answers
        self.erase, self.wait = erase, wait
        self.look = Look(site)

    def run(self) -> None:
        """All steps. Raises Wrong for what a person would have to mend, Declined before an erasure nobody allowed, and
        what the commands raise."""
        self.look.doctor()
        for place, step in enumerate(self.steps):
            self._step(place, step)
        if len(self.steps) > 1 and self.steps[-1].name == "test":
            print("\n".join(acceptance.farewell()))

    def _step(self, place: int, step: Step) -> None:
        if step.name == "network":
            self.look.ask_wires()
        facts = self.look.facts(self.answers)
        self.answers = completed(facts, self.answers, only=step.name)
        status = step.status(facts, self.answers)
        print(f"{label(place, step)}: {status.why}", flush=True)
        if status.word == DONE:
            return
        if isinstance(step, Nodes):
            self._gathered(step)
        if status.word not in step.waits or isinstance(step, Nodes):
            self._do(step)
        self._waited(step)
        save(self.site.paths.wizard, self.answers)
        status = step.status(self.look.facts(self.answers), self.answers)
        print(f"{label(place, step)}: {status.why}", flush=True)
        if status.word != DONE:
            raise Wrong(f"step {step.name}: {status.why}", f"look at it: gild.pyz wizard --step {step.name}")

    def _do(self, step: Step) -> None:
        facts = self.look.facts(self.answers, preview=step.name == "install")
        problems = step.problems(facts, self.answers)
        stop = stopped(problems)
        if stop is not None:
            raise Wrong(f"step {step.name}: {show.plain(stop.text)}", show.plain(stop.hint))
        for problem in problems:
            print(show.plain(f"! {problem.text}" + (f": {problem.hint}" if problem.hint else "")), flush=True)
        plan = step.plan(facts, self.answers)
        if plan.erasure is not None:
            self._allowed(plan.erasure)
        code = acting.carry_out(self.site, plan, lambda question: True)
        self.look.ran(step.name, facts, plan, code)
        if code and step.name not in ("check", "test"):
            raise Wrong(f"step {step.name}: its command ended with {code}", "what it said stands above")

    def _allowed(self, erasure: Erasure) -> None:
        number = len(erasure.rows)
        print("\n".join(map(show.plain, erasure.lines)), flush=True)
        if self.erase is None:
            raise Declined(f"{count(number, 'disk')} would be erased; nothing was", f"to allow it: --erase {number}")
        if self.erase != number:
            raise Wrong(f"{count(number, 'disk')} would be erased, not {self.erase}; nothing was", "look at them again")

    def _gathered(self, step: Nodes) -> None:
        """Until as many machines are there as are expected."""
        end = time.monotonic() + self.wait
        while (short := step.short(self.look.facts(self.answers), self.answers)) > 0:
            if time.monotonic() > end:
                raise Wrong(f"step {step.name}: {count(short, 'machine')} did not come in {self.wait:.0f} s",
                            "switch them on with network boot first, and start this again")  # fmt: skip
            time.sleep(POLL)

    def _waited(self, step: Step) -> None:
        """Until nothing of the step is on its way any more."""
        end = time.monotonic() + self.wait
        before: tuple[str, ...] = ()
        while step.waits:
            facts = self.look.facts(self.answers)
            lines = step.watch(facts, self.answers)
            for line in lines:
                if line not in before:
                    print(show.plain(line), flush=True)
            before = lines
            if step.status(facts, self.answers).word not in step.waits or time.monotonic() > end:
                return
            time.sleep(POLL)
