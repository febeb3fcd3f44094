"""What a person in front of the machine sees, and the head with them: every line goes both ways."""

from __future__ import annotations

from collections.abc import Callable

from netboot.report import Answer, Do, Facts, Nic

WIDTH = 72
# What the machine is waiting for, in the words of somebody who stands before it.
DOING = {
    Do.WAIT: "nothing is written to this machine until it is ordered on the head",
    Do.INSTALL: "an order is here: this machine is being installed",
    Do.CAPTURE: "an order is here: the disk of this machine is being read, and nothing is written to it",
    Do.LOCAL: "starting from its own disk",
    Do.REBOOT: "restarting",
    Do.POWEROFF: "switching off",
}


class Screen:
    """Prints on the machine's console and hands each line to `also` (the head), once there is one."""

    def __init__(self, out: Callable[[str], None]) -> None:
        self.out = out
        self.also: Callable[[str], None] | None = None
        self._early: list[str] = []
        self._shown: tuple[str, ...] = ()

    def say(self, line: str) -> None:
        """One line, to both."""
        self.out(f"gild: {line}")
        if self.also is not None:
            self.also(line)
        elif len(self._early) < 500:
            self._early.append(line)

    def connect(self, also: Callable[[str], None]) -> None:
        """From here on the head hears too, and first what was said before."""
        self.also = also
        for line in self._early:
            also(line)
        self._early.clear()

    def card(self, answer: Answer, facts: Facts, nic: Nic, ip: str, trouble: str = "") -> None:
        """The large notice of who this machine is and what it waits for; printed only when it changes."""
        rows = card(answer, facts, nic, ip, trouble)
        if rows != self._shown:
            self._shown = rows
            for row in rows:
                self.out(row)


def card(answer: Answer, facts: Facts, nic: Nic, ip: str, trouble: str = "") -> tuple[str, ...]:
    """The notice as lines."""
    if answer.node:
        title = f"NODE {answer.node.upper()}"
    elif answer.number:
        title = f"WAITING ROOM, NUMBER {answer.number}"
    else:
        title = "WAITING ROOM"
    machine = " ".join(filter(None, (facts.vendor, facts.product, facts.serial and f"serial {facts.serial}")))
    doing = "waiting for a new order" if trouble and answer.do is Do.WAIT else DOING[answer.do]
    rows = [title, "", f"{ip} {nic.mac}", machine, "", answer.message or doing]
    if trouble:
        rows += ["", "FAILED: " + trouble]
    bar = "=" * WIDTH
    return ("", bar, *(f"   {piece}" if piece else "" for row in rows for piece in _wrap(row)), bar, "")


def _wrap(text: str) -> list[str]:
    """Lines of at most WIDTH - 6 characters, printable, at most eight."""
    plain = "".join(c if c.isprintable() else "?" for c in text)
    lines = [""]
    for word in plain.split():
        if lines[-1] and len(lines[-1]) + 1 + len(word) > WIDTH - 6:
            lines.append("")
        lines[-1] = f"{lines[-1]} {word}".strip()[:200]
    return lines[:8]
