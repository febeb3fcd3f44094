"""The last step: whether what was installed works as a cluster."""

from __future__ import annotations

from appliance.wizard.engine import (
    BLOCKED,
    DONE,
    OPEN,
    PROGRAM,
    Act,
    Answers,
    Plan,
    Problem,
    Question,
    Status,
    count,
    given,
    word,
)
from appliance.wizard.facts import Facts
from appliance.wizard.install import ALL, NODERANGES, refs

# What a new cluster wants next, shown when all is well.
NEXT = (
    ("backup head.tar", "everything this head knows, in one file"),
    ("profile set login --extends default", "a second kind of node"),
    ("image capture NAME --from ssh:root@NODE", "an image of a node that was set up by hand"),
    ("image edit NAME", "one more package on all nodes: help images"),
)


class Acceptance:
    """Test the cluster."""

    name, title = "test", "Test"
    headline = "Test: does it work as a cluster?"
    waits: tuple[str, ...] = ()
    explain = (
        "Asks every node over ssh: its name, address, image and clock, the speed of its disk and network beside the"
        " others of its kind, whether nodes reach each other, and whether MPI and the scheduler run where they are."
        " What is out of line is named with the node."
    )

    def status(self, facts: Facts, answers: Answers) -> Status:
        """Done when the last test of this session found nothing; a test of yesterday says nothing about today."""
        up = [row for row in facts.approved if row["state"] == "up"]
        if not up:
            return Status(BLOCKED, "no node is up: step 5")
        if facts.tested is None:
            return Status(OPEN, f"{count(len(up), 'node')} to test")
        return Status(DONE, "all passed") if facts.tested else Status(OPEN, "something failed; see above")

    def questions(self, facts: Facts, answers: Answers) -> tuple[Question, ...]:
        """Which nodes."""
        return (
            Question("nodes", "Nodes", ALL, pattern=NODERANGES, wants="names, or all",
                     note="every one that is up", explain="Names, or a range such as node[01-16] or @group."),
        )  # fmt: skip

    def problems(self, facts: Facts, answers: Answers) -> tuple[Problem, ...]:
        """Nobody is up."""
        status = self.status(facts, answers)
        return (Problem(status.why),) if status.word == BLOCKED else ()

    def plan(self, facts: Facts, answers: Answers) -> Plan:
        """The test."""
        nodes = word(given(self, facts, answers), "nodes")
        named = () if nodes == ALL else refs(nodes)
        return Plan("test the nodes over ssh. Nothing is changed.", (Act(("cluster", "test", *named)),))

    def watch(self, facts: Facts, answers: Answers) -> tuple[str, ...]:
        """It waits for nothing."""
        return ()


def farewell() -> list[str]:
    """What is said when every step is done."""
    width = max(len(command) for command, _ in NEXT)
    return ["Your cluster is ready. Next, perhaps:",
            *(f"  {PROGRAM} {command:<{width}}  {what}" for command, what in NEXT)]  # fmt: skip
