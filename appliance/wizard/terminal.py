"""The wizard as a conversation: lines out, lines in. No colours and no cursor, so that it works on a serial console, in
a recording, and read aloud."""

from __future__ import annotations

import select
import shutil
import sys
import textwrap
from collections.abc import Sequence
from typing import TYPE_CHECKING

from appliance.cli import show
from appliance.wizard import acceptance, acting
from appliance.wizard.answers import save
from appliance.wizard.engine import (
    DONE,
    Act,
    AnswerInvalid,
    Erasure,
    Plan,
    Problem,
    Question,
    Step,
    Value,
    answer,
    first_open,
    given,
    header,
    open_list,
    read,
    stopped,
)
from appliance.wizard.facts import Facts
from appliance.wizard.gather import Look
from images.errors import GildError

if TYPE_CHECKING:
    from appliance.cli.main import Site

KEYS = ("Enter do it", "b back", "s skip", "c command only", "? explain", "q leave (gild.pyz wizard goes on here)")
LOOK_KEYS = ("Enter look again", "b back", "s skip", "? explain", "q leave")
TRIES = 50  # useless answers in a row, after which nobody is there
POLL = 1.0  # seconds between two looks at machines
NARROW, WIDE = 30, 110  # columns that lines are broken at, whatever the terminal says


class Left(Exception):
    """Somebody wants to leave the wizard: `code` is its exit code."""


class Go(Exception):
    """To another step: its place."""

    def __init__(self, place: int) -> None:
        self.place = place


class Conversation:
    """One person before one terminal."""

    def __init__(self, site: Site, steps: Sequence[Step], answers: dict[str, dict[str, Value]], *, plain: bool) -> None:
        self.site, self.steps, self.answers, self.plain = site, steps, answers, plain
        self.state = str(site.paths.state)
        self.look = Look(site)

    def run(self, begin: int | None) -> None:
        """Step after step, until all are done or somebody leaves. Raises GildError only for what no step can mend."""
        self.say("Looking at this machine ...")
        self.look.doctor()
        place = first_open(self.steps, self.facts(), self.answers) if begin is None else begin
        try:
            while True:
                try:
                    place = self.step(place)
                except Go as go:
                    place = go.place
                if place >= len(self.steps):
                    facts = self.facts()
                    place = first_open(self.steps, facts, self.answers)
                    if self.steps[place].status(facts, self.answers).word == DONE:
                        break
                    self.block(open_list(self.steps, facts, self.answers, plain=self.plain))
                    raise Left
            self.block(acceptance.farewell())
        except KeyboardInterrupt:
            self.keep()
            raise
        except Left:
            self.say(f"Left. It goes on here: {Act(('wizard',)).line(self.state)}")

    # --- one step

    def step(self, place: int) -> int:
        """Show a step, ask, do; gives the place of the next."""
        step = self.steps[place]
        if step.name == "network":
            self.say("Asking for other DHCP servers, 5 s ...")
            self.look.ask_wires()
        facts = self.facts()
        print()
        self.row((facts.host, *header(self.steps, facts, self.answers, place, plain=self.plain)), "  ")
        self.say(f"{place}  {step.headline}" if place else step.headline)
        status = step.status(facts, self.answers)
        if status.why:
            self.say(f"Now: {status.why}.")
        if status.word in step.waits:
            self.watch(step)
        self.ask_all(step, place)
        return self.offer(step, place)

    def ask_all(self, step: Step, place: int) -> None:
        """Every question of a step, each once; what is answered may bring another."""
        asked: set[str] = set()
        while True:
            facts = self.facts()
            rest = [question for question in step.questions(facts, self.answers) if question.key not in asked]
            if not rest:
                return
            question = rest[0]
            asked.add(question.key)
            value = self.ask(question, self.answers.get(step.name, {}).get(question.key, question.default), place)
            self.answers = answer(self.answers, step.name, question.key, value)

    def ask(self, question: Question, now: Value, place: int) -> Value:
        """One question; Enter keeps what is in brackets. Raises Go, Left."""
        for number, choice in enumerate(question.choices, 1):
            note = f"   {show.plain(choice.note)}" if choice.note else ""
            mark = "   <- suggested" if choice.suggested else ""
            self.say(f"{number:>3}  {show.plain(choice.text)}{note}{mark}", indent=5)
        shown = self.shown(question, now)
        for _ in range(TRIES):
            note = question.note if now == question.default else ""
            usual = ", ".join(part for part in (shown, note) if part)
            text = self.line(f"{question.text} [{usual}]: " if usual else f"{question.text}: ")
            if not text:
                return now
            key = text.lower()
            if key == "?":
                self.say(question.explain or self.steps[place].explain)
            elif key in ("b", "s", "q"):
                self.leave(key, place)
            else:
                try:
                    return read(question, text[1:-1] if len(text) > 1 and text[0] == text[-1] == '"' else text)
                except AnswerInvalid as error:
                    self.say(f"! {error.message}" + (f": {error.hint}" if error.hint else ""))
        raise Left

    def shown(self, question: Question, value: Value) -> str:
        """An answer as it stands in brackets: the numbers of choices, or the text."""
        places = {choice.value: str(number) for number, choice in enumerate(question.choices, 1)}
        values = value if isinstance(value, list) else [str(value)]
        return ", ".join(places.get(each, show.plain(each)) for each in values)

    def offer(self, step: Step, place: int) -> int:
        """Say what it would do and which command does the same; do it on Enter. Raises Go, Left."""
        for _ in range(TRIES):
            facts = self.facts(preview=step.name == "install")
            problems = step.problems(facts, self.answers)
            for problem in problems:
                self.problem(problem)
            if stopped(problems):
                self.row(LOOK_KEYS)
                text = self.line("> ").lower()
            else:
                plan = step.plan(facts, self.answers)
                self.show(plan)
                self.row(KEYS)
                text = self.line("> ").lower()
            if text == "?":
                self.say(step.explain)
            elif text in ("b", "s", "q"):
                self.leave(text, place)
            elif text == "c" and not stopped(problems):
                self.commands(plan)
                return place + 1
            elif text:
                self.say(f"! {show.plain(text)[:40]!r} is none of the keys")
            elif stopped(problems):
                if not place:
                    self.look.doctor()
                if step.waits:
                    self.watch(step)
            elif self.do(step, plan, facts):
                return place + 1
        raise Left

    def do(self, step: Step, plan: Plan, facts: Facts) -> bool:
        """Carry a plan out; gives whether all of it went well."""
        if plan.erasure is not None and not self.agreed(plan.erasure):
            return False
        self.answers = {**self.answers, step.name: given(step, facts, self.answers)}
        self.keep()
        try:
            code = acting.carry_out(self.site, plan, self.sure)
        except GildError as error:
            self.problem(Problem(error.message, error.hint))
            return False
        if step.name == "check":
            self.look.doctor()
            return code == 0 or self.facts().serving is not None
        if step.name == "test":
            self.look.tested = code == 0
        if code:
            self.say(f"! it ended with {code}; nothing more of this step was done")
            return False
        if step.waits:
            self.watch(step)
        return True

    def agreed(self, erasure: Erasure) -> bool:
        """Show every disk that would be erased, and ask: a yes, or their number."""
        print()
        self.say("These disks will be erased:")
        show.table(
            ["node", "image", "disk", "what is on it"],
            [[show.safe(row[key]) for key in ("node", "image", "disk", "content")] for row in erasure.rows],
            "",
        )
        number = len(erasure.rows)
        if not erasure.typed:
            return self.line(f"Erase {number} and install? [y/N] ").lower() in ("y", "yes")
        text = self.line(f"{erasure.why} Type how many disks will be erased: ")
        if text != str(number):
            self.say("Everything stays as it is.")
        return text == str(number)

    def sure(self, question: str) -> bool:
        """Enter or y is yes."""
        return self.line(f"{question} [Y/n] ").lower() in ("", "y", "yes")

    def watch(self, step: Step) -> None:
        """Show machines as they come and change, until the step is done or somebody presses Enter."""
        self.say("Watching; Enter goes on.")
        before: tuple[str, ...] = ()
        while True:
            facts = self.facts()
            lines = step.watch(facts, self.answers)
            for line in lines:
                if line not in before:
                    print(show.plain(line), flush=True)
            before = lines
            if step.status(facts, self.answers).word not in step.waits:
                return
            if not _waits(POLL):
                continue
            if not sys.stdin.readline():
                raise Left
            return

    # --- words

    def leave(self, key: str, place: int) -> None:
        """Back, on, or out."""
        self.keep()
        if key == "q":
            raise Left
        raise Go(max(0, place - 1) if key == "b" else place + 1)

    def show(self, plan: Plan) -> None:
        """What it would do, and the commands for it."""
        self.say(f"This will: {plan.effect}")
        for file in (file for wanted in plan.acts for file in wanted.files):
            self.say(f"Writes:    {file.path}", indent=11)
        # Never broken: the terminal itself breaks what is too long, and it can be copied whole.
        for place, wanted in enumerate(plan.acts):
            print(f"{' ' * 11 if place else 'Same as:   '}{show.plain(wanted.line(self.state))}", flush=True)

    def commands(self, plan: Plan) -> None:
        """The commands alone, to be copied, and what is in the files they read."""
        for wanted in plan.acts:
            for file in wanted.files:
                print(f"\n# {file.path}\n{file.text}", end="")
            print(f"\n{show.plain(wanted.line(self.state))}", flush=True)

    def problem(self, problem: Problem) -> None:
        """What is wrong, and the way out."""
        self.say(f"! {show.plain(problem.text)}", indent=2)
        if problem.hint:
            self.say(f"  {show.plain(problem.hint)}", indent=2)

    def block(self, lines: Sequence[str]) -> None:
        """Lines that stay as they are."""
        print()
        print("\n".join(lines), flush=True)

    def row(self, pieces: Sequence[str], gap: str = "   ") -> None:
        """Pieces side by side, as many in a line as fit; none is broken."""
        lines: list[str] = []
        for piece in pieces:
            if lines and len(lines[-1]) + len(gap) + len(piece) <= _width():
                lines[-1] += gap + piece
            else:
                lines.append(piece)
        print("\n".join(lines), flush=True)

    def say(self, text: str, indent: int = 0) -> None:
        """A line, broken where the terminal ends. What is typed must not be: commands stay whole if they can."""
        lines = textwrap.wrap(
            text, _width(), subsequent_indent=" " * indent, break_long_words=False, break_on_hyphens=False
        )
        print("\n".join(lines) or text, flush=True)

    def line(self, prompt: str) -> str:
        """What somebody types. Raises Left at the end of the input."""
        print(prompt, end="", flush=True)
        text = sys.stdin.readline()
        if not text:
            print()
            self.keep()
            raise Left
        return text.strip()

    def keep(self) -> None:
        """What was answered so far."""
        if any(self.answers.values()):
            save(self.site.paths.wizard, self.answers)

    def facts(self, *, preview: bool = False) -> Facts:
        """As it is now."""
        return self.look.facts(self.answers, preview=preview)


def _width() -> int:
    """Columns that lines are broken at."""
    return max(NARROW, min(WIDE, shutil.get_terminal_size().columns - 1))


def _waits(seconds: float) -> bool:
    """Whether somebody has typed a line, or the input has ended, within that time."""
    return bool(select.select([sys.stdin], [], [], seconds)[0])
