"""What else on this machine has to know the nodes: the hosts file, schedulers, tools of administrators."""

from __future__ import annotations

from appliance.wizard.engine import (
    BLOCKED,
    DONE,
    OPEN,
    Act,
    Answers,
    Choice,
    Plan,
    Problem,
    Question,
    Status,
    given,
    words,
)
from appliance.wizard.facts import Facts

# Tool -> what it does, the package of Debian that brings its service ("" where nothing has to be installed).
TOOLS = {
    "hosts": ("names and addresses in /etc/hosts", ""),
    "slurm": ("Slurm: its node lines, then restart and reconfigure", "slurmctld"),
    "pbs": ("OpenPBS: its nodes, by qmgr", "openpbs-server, from openpbs.org"),
    "sge": ("Grid Engine: its hosts, by qconf", "gridengine-master"),
    "ansible": ("an inventory for ansible", "ansible"),
    "genders": ("genders and groups for pdsh and clustershell", "clustershell"),
}
ALWAYS = "hosts"


class Services:
    """Tell the services of this machine which nodes there are."""

    name, title = "services", "Services"
    headline = "Services: who else shall know the nodes?"
    waits: tuple[str, ...] = ()
    explain = (
        "Each writes what it manages and nothing else, shows the difference first, and can be run again at any time:"
        " then only what has changed is written. gild.pyz help cluster tells what each file holds."
    )

    def status(self, facts: Facts, answers: Answers) -> Status:
        """Done when those that were chosen were told, in this session: to tell them again changes nothing."""
        if not facts.approved:
            return Status(BLOCKED, "no node is approved: step 4")
        chosen = words(given(self, facts, answers), "tools")
        if not chosen:
            return Status(DONE, "none is wanted")
        stale = [tool for tool in chosen if tool not in facts.told]
        if stale:
            return Status(OPEN, f"to be told of the nodes: {', '.join(stale)}")
        return Status(DONE, ", ".join(chosen))

    def questions(self, facts: Facts, answers: Answers) -> tuple[Question, ...]:
        """Which tools."""
        return (
            Question(
                "tools", "Services", [name for name in (ALWAYS, *facts.services) if f"cluster {name}" in facts.verbs],
                tuple(
                    Choice(name, text, "" if not package else "here" if name in facts.services else "not here",
                           name == ALWAYS or name in facts.services)
                    for name, (text, package) in TOOLS.items() if f"cluster {name}" in facts.verbs
                ),
                many=True, note="several with commas; - for none",
            ),
        )  # fmt: skip

    def problems(self, facts: Facts, answers: Answers) -> tuple[Problem, ...]:
        """No nodes; a service that is not installed; not root."""
        if not facts.approved:
            return (Problem("there is no node to tell of", "first step 4"),)
        chosen = words(given(self, facts, answers), "tools")
        found = [
            Problem(f"the service of {tool} is not installed here", f"its package: {TOOLS[tool][1]}", stops=False)
            for tool in chosen
            if TOOLS.get(tool, ("", ""))[1] and tool not in facts.services
        ]
        if not facts.root:
            found.insert(0, Problem("these files belong to root", "run it with sudo"))
        return tuple(found)

    def plan(self, facts: Facts, answers: Answers) -> Plan:
        """For each tool what would change, then the change."""
        chosen = words(given(self, facts, answers), "tools")
        if not chosen:
            return Plan("nothing; none is wanted.", ())
        looks = [Act(("cluster", tool, "--dry-run"), preview=True) for tool in chosen]
        acts = [Act(("cluster", tool)) for tool in chosen]
        return Plan(f"write what {', '.join(chosen)} know of the nodes. Nothing on any node changes.", (*looks, *acts))

    def watch(self, facts: Facts, answers: Answers) -> tuple[str, ...]:
        """It waits for nothing."""
        return ()
