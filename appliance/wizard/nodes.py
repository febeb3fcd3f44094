"""From machines that were switched on to nodes with names: the waiting room, and who leaves it how."""

from __future__ import annotations

from typing import Any

from appliance.config import BY_NAME
from appliance.wizard.engine import (
    BLOCKED,
    DOING,
    DONE,
    OPEN,
    Act,
    Answers,
    Choice,
    Plan,
    Problem,
    Question,
    Status,
    count,
    given,
    word,
    words,
)
from appliance.wizard.facts import Facts, Row

ORDER, LIST, PICK = "order", "list", "pick"
MOST = 20  # machines that are shown one by one


class Nodes:
    """Approve machines, in the order of power-on, from a list, or one by one."""

    name, title = "nodes", "Nodes"
    headline = "Nodes: which machines are yours?"
    waits: tuple[str, ...] = (OPEN, DOING)
    explain = (
        "Set the machines to boot from the network first, and switch them on. Each loads the installer, shows its"
        " hardware and waits; nothing on it is touched. Approved, it gets a name and an address of its own. If you"
        " switch them on one after the other, their names follow the rack."
    )

    def status(self, facts: Facts, answers: Answers) -> Status:
        """Done when nobody waits and there are as many nodes as were expected."""
        if facts.serving is None:
            return Status(BLOCKED, "nobody hears them before a head serves: step 1")
        waiting, approved, expected = len(facts.in_state("waiting")), len(facts.approved), _expected(answers)
        of = f" of {expected}" if expected else ""
        if waiting:
            return Status(DOING, f"{waiting} waiting, {approved}{of} approved")
        if approved and approved >= expected:
            return Status(DONE, f"{approved} approved")
        return Status(DOING if approved else OPEN, f"{approved}{of} approved" if approved else "nobody has asked yet")

    def questions(self, facts: Facts, answers: Answers) -> tuple[Question, ...]:
        """How many, how they get their names, which."""
        how, waiting = word(answers.get(self.name, {}), "how") or ORDER, _waiting(facts)
        asked = [
            Question("expect", "How many machines do you expect?", max(len(facts.nodes), 1),
                     explain="The step is done when so many are approved."),
            Question("how", "Names", ORDER, (
                Choice(ORDER, "in the order in which they were switched on", "", True),
                *([Choice(LIST, "from a file: CSV, hosts or ethers")] if "node load" in facts.verbs else []),
                Choice(PICK, "pick from those that wait"),
            ), explain="A file can be loaded before the machines are switched on."),
        ]  # fmt: skip
        if how == LIST:
            asked.append(Question("file", "File", pattern="/.+", wants="a path from the root, /...",
                                  explain="CSV with a first line such as name,mac,address,profile."))  # fmt: skip
            return tuple(asked)
        if how == PICK:
            asked.append(Question(
                "pick", "Which", [], tuple(Choice(row["mac"] or str(row["id"]), machine(row)) for row in waiting),
                many=True, free=True, note="several with commas",
                pattern=r"[0-9A-Za-z@#][0-9A-Za-z:._#@-]*", wants="a MAC or a number of the list",
                explain="Numbers of the list, or MAC addresses.",
            ))  # fmt: skip
        asked += [
            Question("pattern", "Pattern of names", str(BY_NAME["names"].default), setting="names",
                     explain="{n:02} becomes 01, 02 and so on."),
            Question("profile", "Profile", word(answers.get("packages", {}), "profile") or "default",
                     tuple(Choice(row["name"], row["name"], row["image"]) for row in facts.profiles), free=True,
                     pattern="[a-z][a-z0-9-]{0,62}", wants="a-z, 0-9 and '-'",
                     explain="What kind of node they become."),
        ]  # fmt: skip
        return tuple(asked)

    def problems(self, facts: Facts, answers: Answers) -> tuple[Problem, ...]:
        """No head, nobody there, fewer than expected, more than there are addresses for."""
        if facts.serving is None:
            return (Problem("nobody hears them before a head serves", "first step 1"),)
        values, waiting, found = given(self, facts, answers), _waiting(facts), []
        how, profile = word(values, "how"), word(values, "profile")
        if how == LIST:
            path = word(values, "file")
            if not path or path in facts.missing:
                return (Problem(f"there is no {path}" if path else "which file?", "give its path"),)
            return ()
        if not waiting:
            found.append(Problem("no machine is in the waiting room", "switch one on, with network boot first"))
        if facts.profiles and facts.profile(profile) is None:
            found.append(Problem(f"there is no profile {profile}", f"make it: gild.pyz profile set {profile}"))
        if how == PICK and waiting and not words(values, "pick"):
            found.append(Problem("none is picked", "give numbers of the list"))
        if len(waiting) > facts.serving["free"] + facts.serving["leases"]:
            found.append(Problem(f"{len(waiting)} machines, and {facts.serving['free']} addresses are left",
                                 "more addresses: step 1"))  # fmt: skip
        if others := facts.serving["foreign"]:
            found.append(Problem(f"another DHCP server is there: {others[0]['server_id']} ({others[0]['mac']})",
                                 "machines may get their answer from it: gild.pyz status", stops=False))  # fmt: skip
        short = self.short(facts, answers)
        if waiting and short > 0:
            found.append(Problem(f"{short} fewer than you expect", "they can be approved later", stops=False))
        return tuple(found)

    def short(self, facts: Facts, answers: Answers) -> int:
        """How many machines are to come yet; none is awaited that a list declares."""
        if word(answers.get(self.name, {}), "how") == LIST:
            return 0
        return _expected(answers) - len(facts.approved) - len(_waiting(facts))

    def plan(self, facts: Facts, answers: Answers) -> Plan:
        """Approve them, or load the list."""
        values = given(self, facts, answers)
        if word(values, "how") == LIST:
            return Plan(
                "declare the nodes of the list. Nothing is erased.", (Act(("node", "load", word(values, "file"))),)
            )
        pattern, profile = word(values, "pattern"), word(values, "profile")
        flags = ["--profile", profile]
        if pattern != BY_NAME["names"].default:
            flags += ["--name", pattern]
        picked = words(values, "pick") if word(values, "how") == PICK else ()
        number = len(picked) or len(_waiting(facts))
        act = Act(("node", "approve", *(picked or ("--all",)), *flags))
        return Plan(f"name {count(number, 'machine')} and give addresses. Nothing is erased.", (act,))

    def watch(self, facts: Facts, answers: Answers) -> tuple[str, ...]:
        """Who waits; if nobody does, what was heard instead."""
        waiting = _waiting(facts)
        if not waiting and self.status(facts, answers).word == DONE:
            return ()
        if not waiting:
            return (*quiet(facts),)
        shown = [f"  {place:>2}  {machine(row)}" for place, row in enumerate(waiting[:MOST], 1)]
        more = [f"      and {len(waiting) - MOST} more"] if len(waiting) > MOST else []
        total = len(facts.approved) + len(waiting)
        return (
            *shown,
            *more,
            f"  {count(len(waiting), 'machine')} waiting; {total} of {max(_expected(answers), total)}",
        )


def quiet(facts: Facts) -> list[str]:
    """Why nobody may be there, by what was heard."""
    serving: Row = facts.serving or {}
    heard = sum(serving.get("dhcp", {}).values())
    if heard:
        return [f"  nobody waits; {count(heard, 'DHCP message')} heard: gild.pyz node list"]
    why = (
        "network boot is not first in a machine's boot order; its cable is in another network; or the switch port waits"
        " (spanning tree, 30-50 s)"
    )
    return [f"  nobody has asked yet on {serving.get('interface', '?')}. Mostly: {why}."]


def machine(row: Row) -> str:
    """A waiting machine in a line."""
    told = [f"#{row['id']}", row["machine"] or "(not seen yet)", row["mac"], row["firmware"]]
    return "  ".join(str(part) for part in told if part)


def _waiting(facts: Facts) -> list[Row]:
    """In the order in which they first asked."""
    return sorted(facts.in_state("waiting"), key=lambda row: int(row["id"]))


def _expected(answers: Answers) -> int:
    value: Any = answers.get("nodes", {}).get("expect", 0)
    return value if isinstance(value, int) else 0
