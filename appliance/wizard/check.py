"""The step before the first: what keeps this machine from serving. It asks nothing; doctor does the work."""

from __future__ import annotations

from appliance.wizard.engine import DONE, OPEN, Act, Answers, Plan, Problem, Question, Status, count
from appliance.wizard.facts import Facts

LEAST = 10 << 30  # bytes: an image, its working copy and the next version of it


class Check:
    """Doctor's findings, without the network: which one is the next step's question."""

    name, title = "check", "Check"
    headline = "Check: can this machine serve?"
    waits: tuple[str, ...] = ()
    explain = (
        "Looks at the ports, the packet filter, the clock, the disk, the memory and the tools of this machine, and"
        " changes nothing. Each thing that is wrong comes with the command that mends it; give that in another"
        " terminal, then look again here."
    )

    def status(self, facts: Facts, answers: Answers) -> Status:
        """Done when nothing is an error, or when a head serves here already."""
        if facts.findings is None:
            return Status(OPEN, "not looked yet")
        errors = sum(row["level"] == "error" for row in facts.findings)
        warnings = sum(row["level"] == "warning" for row in facts.findings)
        if errors and facts.serving is None:
            return Status(OPEN, f"{count(errors, 'thing')} to mend")
        looked = len(facts.findings)
        return Status(DONE, f"{looked} looked at" + (f", {count(warnings, 'warning')}" if warnings else ", all good"))

    def questions(self, facts: Facts, answers: Answers) -> tuple[Question, ...]:
        """None."""
        return ()

    def problems(self, facts: Facts, answers: Answers) -> tuple[Problem, ...]:
        """What doctor calls a warning or an error. Nothing stops looking again."""
        found = [
            Problem(f"{row['name']}: {row['found']}", row["fix"], stops=False)
            for level in ("error", "warning")
            for row in facts.findings or ()
            if row["level"] == level
        ]
        if 0 < facts.free < LEAST:
            found.append(
                Problem(
                    f"{facts.free / 1e9:.0f} GB are free for {facts.state}: there may be no room for an image",
                    "give a larger disk: gild.pyz --state DIR wizard",
                    stops=False,
                )
            )
        return tuple(found)

    def plan(self, facts: Facts, answers: Answers) -> Plan:
        """Look again."""
        return Plan("look at this machine. Nothing is changed.", (Act(("doctor",)),))

    def watch(self, facts: Facts, answers: Answers) -> tuple[str, ...]:
        """It waits for nothing."""
        return ()
