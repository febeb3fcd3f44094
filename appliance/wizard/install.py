"""The step that erases: which disks, shown one by one; then what becomes of the nodes."""

from __future__ import annotations

from collections.abc import Iterable

from appliance.wizard.engine import (
    BLOCKED,
    DOING,
    DONE,
    OPEN,
    Act,
    Answers,
    Erasure,
    Plan,
    Problem,
    Question,
    Status,
    count,
    given,
    word,
)
from appliance.wizard.facts import Facts, Row

MANY = 20  # nodes; more than these are never erased on a yes alone
ALL = "all"
NODERANGES = r"[^\s-]\S*( +[^\s-]\S*)*"  # netboot.noderange judges each of them
SET_ASIDE = ("failed", "lost")


class Install:
    """Order the installation and follow it."""

    name, title = "install", "Install"
    headline = "Install: erase disks and write the image"
    waits: tuple[str, ...] = (DOING,)
    explain = (
        "Every disk that would be erased is shown, with what stands on it. Nothing happens before you agree, and where"
        " a disk holds something gild did not write, you type how many disks it is. An order works once and for an"
        " hour, at the next boot from the network; machines that wait in the installer begin at once. A node that fails"
        " never stops the others."
    )

    def status(self, facts: Facts, answers: Answers) -> Status:
        """Done when every node is up; those that failed or are lost are named."""
        if facts.serving is None:
            return Status(BLOCKED, "no head serves: step 1")
        chosen = _chosen(facts, answers)
        if not chosen:
            return Status(BLOCKED, "no node is approved: step 4")
        if not facts.images:
            return Status(BLOCKED, "no image yet: step 2")
        up = [row for row in chosen if row["state"] == "up"]
        moving = [row for row in chosen if row["ordered"] or row["state"] in ("installing", "installed")]
        aside = [row for row in chosen if row["state"] in SET_ASIDE and row not in moving]
        need = f"; {count(len(aside), 'needs', 'need')} you: {_names(aside)}" if aside else ""
        if moving:
            return Status(DOING, f"{len(up)} of {len(chosen)} up, {len(moving)} on their way{need}")
        if len(up) + len(aside) == len(chosen) and up:
            return Status(DONE, f"{len(up)} up{need}")
        return Status(OPEN, f"{len(up)} of {len(chosen)} up{need}")

    def questions(self, facts: Facts, answers: Answers) -> tuple[Question, ...]:
        """Which nodes."""
        return (
            Question(
                "nodes", "Nodes", ALL, pattern=NODERANGES, wants="names, or all",
                note="every approved one without a system of ours",
                explain="Names, or a range: node[01-16], @group, @profile:NAME, and '!node07' to leave one out.",
            ),
        )  # fmt: skip

    def problems(self, facts: Facts, answers: Answers) -> tuple[Problem, ...]:
        """Why it cannot be ordered; nothing of it is ordered then."""
        status = self.status(facts, answers)
        if status.word == BLOCKED:
            return (Problem(status.why),)
        if facts.refused[0]:
            return (Problem(*facts.refused),)
        if facts.preview is not None and not facts.preview["nodes"]:
            return (Problem("no node is left to install", "those that run are named one by one: Nodes"),)
        unseen = [row for row in _rows(facts) if row["content"] == "unknown"]
        found = []
        if unseen:
            names = ", ".join(row["node"] for row in unseen[:5])
            found.append(Problem(f"what is on the disk of {names} is not known: not seen yet", stops=False))
        return tuple(found)

    def plan(self, facts: Facts, answers: Answers) -> Plan:
        """The preview, and the order for exactly what it shows."""
        which = refs(word(given(self, facts, answers), "nodes"))
        rows = _rows(facts)
        digest = str(facts.preview["digest"]) if facts.preview else ""
        act = Act(("node", "install", *which), sure=("--yes", "--expect", digest))
        foreign, typed = danger(rows, [image.name for image in facts.images])
        erasure = Erasure(rows, digest, foreign, typed)
        effect = (
            f"erase {count(len(rows), 'disk')} and install, at the next boot of each; those that wait begin at once."
        )
        return Plan(effect, (act,), erasure)

    def watch(self, facts: Facts, answers: Answers) -> tuple[str, ...]:
        """Each node that is on its way or in trouble, in a line."""
        shown = []
        for row in _chosen(facts, answers):
            state = row["phase"] if row["state"] == "installing" and row["phase"] else row["state"]
            percent = f" {100 * row['done'] // row['total']} %" if row["state"] == "installing" and row["total"] else ""
            why = f": {row['reason']} (node show {row['name']})" if row["state"] in SET_ASIDE and row["reason"] else ""
            shown.append(f"  {row['name']}  {state}{percent}{why}")
        return tuple(shown)


def refs(text: str) -> tuple[str, ...]:
    """The nodes that were named, as words of a command."""
    return ("--all",) if text == ALL else tuple(text.split())


def danger(rows: Iterable[Row], ours: Iterable[str]) -> tuple[frozenset[str], str]:
    """The nodes whose disk holds something that is not ours, or that nobody has seen; and why the number of disks has
    to be typed, "" where a yes is enough. `ours` are the names of the images of this head."""
    rows, known = list(rows), set(ours)
    foreign = frozenset(row["node"] for row in rows if not _ours(row["content"], known))
    if foreign:
        hold = "holds" if len(foreign) == 1 else "hold"
        return foreign, f"{count(len(foreign), 'disk')} {hold} something gild did not write, or nobody has looked."
    return foreign, f"These are more than {MANY} nodes." if len(rows) > MANY else ""


def _ours(content: str, ours: set[str]) -> bool:
    """Whether a disk is empty, or holds an image of this head as the installer tells it ("gild compute:3")."""
    mark, _, rest = content.partition(" ")
    return content == "empty" or (mark == "gild" and rest.partition(":")[0] in ours)


def _rows(facts: Facts) -> tuple[Row, ...]:
    return tuple(facts.preview["nodes"]) if facts.preview else ()


def _chosen(facts: Facts, answers: Answers) -> list[Row]:
    """The approved nodes; where some were named, those."""
    if word(answers.get("install", {}), "nodes") in ("", ALL):
        return facts.approved
    chosen = set(facts.chosen)
    return [row for row in facts.approved if row["name"] in chosen]


def _names(rows: list[Row]) -> str:
    return ", ".join(row["name"] for row in rows[:5]) + (f" and {len(rows) - 5} more" if len(rows) > 5 else "")
