"""Lines on a terminal, and lines from it. No colours and no cursor, so that it works on a serial console, in a
recording, and read aloud."""

from __future__ import annotations

import select
import shutil
import sys
import textwrap
from collections.abc import Sequence

from appliance.cli import show
from appliance.wizard.engine import Choice, Erasure, Plan, Problem, Question, Value

NARROW, WIDE = 30, 110  # columns that lines are broken at, whatever the terminal says


class Screen:
    """What one person sees; `state` is the state directory, `plain` means ASCII signs."""

    def __init__(self, state: str, *, plain: bool) -> None:
        self.state, self.plain = state, plain

    def say(self, text: str, indent: int = 0) -> None:
        """A line, broken between words where the terminal ends; what follows is indented."""
        lines = textwrap.wrap(
            text, _width(), subsequent_indent=" " * indent, break_long_words=False, break_on_hyphens=False
        )
        print("\n".join(lines) or text, flush=True)

    def row(self, pieces: Sequence[str], gap: str = "   ") -> None:
        """Pieces side by side, as many in a line as fit; none is broken."""
        lines: list[str] = []
        for piece in pieces:
            if lines and len(lines[-1]) + len(gap) + len(piece) <= _width():
                lines[-1] += gap + piece
            else:
                lines.append(piece)
        print("\n".join(lines), flush=True)

    def block(self, lines: Sequence[str]) -> None:
        """Lines that stay as they are, behind an empty one."""
        print()
        print("\n".join(lines), flush=True)

    def news(self, line: str) -> None:
        """One line about a machine."""
        self.say(show.plain(line), indent=6)

    def choices(self, choices: Sequence[Choice]) -> None:
        """Numbered, with the one that is suggested marked."""
        for number, choice in enumerate(choices, 1):
            note = f"   {show.plain(choice.note)}" if choice.note else ""
            mark = f"   {'<-' if self.plain else '←'} suggested" if choice.suggested else ""
            self.say(f"{number:>3}  {show.plain(choice.text)}{note}{mark}", indent=5)

    def prompt(self, question: Question, now: Value) -> str:
        """The question with what counts if nobody types anything: the numbers of choices, or the text."""
        places = {choice.value: str(number) for number, choice in enumerate(question.choices, 1)}
        values = now if isinstance(now, list) else [str(now)]
        shown = ", ".join(places.get(each, show.plain(each)) for each in values)
        usual = ", ".join(part for part in (shown, question.note if now == question.default else "") if part)
        return f"{question.text} [{usual}]: " if usual else f"{question.text}: "

    def problem(self, problem: Problem) -> None:
        """What is wrong, and the way out."""
        self.say(f"! {show.plain(problem.text)}", indent=2)
        if problem.hint:
            self.say(f"  {show.plain(problem.hint)}", indent=2)

    def plan(self, plan: Plan) -> None:
        """What it would do, and the commands for it."""
        self.say(f"This will: {plan.effect}")
        for file in (file for act in plan.acts for file in act.files):
            self.say(f"Writes:    {file.path}", indent=11)
        # Never broken here: the terminal itself breaks what is too long, and it can be copied whole.
        for place, act in enumerate(plan.acts):
            print(f"{' ' * 11 if place else 'Same as:   '}{show.plain(act.line(self.state))}", flush=True)

    def commands(self, plan: Plan) -> None:
        """The commands alone, to be copied, and what is in the files they read."""
        for act in plan.acts:
            for file in act.files:
                print(f"\n# {file.path}\n{file.text}", end="")
            print(f"\n{show.plain(act.line(self.state))}", flush=True)

    def erasure(self, erasure: Erasure) -> None:
        """Every disk that would be erased."""
        print()
        self.say("These disks will be erased:")
        for line in erasure.lines:
            self.news(line)

    def line(self, prompt: str) -> str:
        """What somebody types. Raises EOFError at the end of the input."""
        print(prompt, end="", flush=True)
        text = sys.stdin.readline()
        if not text:
            print()
            raise EOFError
        return text.strip()

    def typed(self, seconds: float) -> bool:
        """Whether somebody has typed a line, or the input has ended, within that time."""
        return bool(select.select([sys.stdin], [], [], seconds)[0])


def _width() -> int:
    return max(NARROW, min(WIDE, shutil.get_terminal_size().columns - 1))
