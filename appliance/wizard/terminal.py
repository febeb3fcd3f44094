"""The wizard as a conversation: one step after the other, until all are done or somebody leaves."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from appliance.wizard import acceptance, acting
from appliance.wizard.answers import save
from appliance.wizard.engine import (
    BLOCKED,
    DONE,
    Act,
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
    stopped,
)
from appliance.wizard.facts import Facts
from appliance.wizard.gather import Look
from appliance.wizard.reading import AnswerInvalid, checked, read
from appliance.wizard.screen import Screen
from images.errors import GildError

if TYPE_CHECKING:
    from appliance.cli.main import Site

KEYS = ("Enter do it", "b back", "s skip", "c command only", "? explain", "q leave (gild.pyz wizard goes on here)")
STOPPED = ("Enter again", "b back", "s skip", "? explain", "q leave")
TRIES = 50  # useless answers in a row, after which nobody is there
POLL = 1.0  # seconds between two looks at machines


class Left(Exception):
    """Somebody wants to leave the wizard."""


class Go(Exception):
    """To another step: its place."""

    def __init__(self, place: int) -> None:
        self.place = place


class Conversation:
    """One person before one terminal."""

    def __init__(self, site: Site, steps: Sequence[Step], answers: dict[str, dict[str, Value]], *, plain: bool) -> None:
        self.site, self.steps, self.answers = site, steps, answers
        self.screen = Screen(str(site.paths.state), plain=plain)
        self.look = Look(site)

    def run(self, begin: int | None) -> None:
        """Step after step. Raises GildError only for what no step can mend, and KeyboardInterrupt."""
        self.screen.say("Looking at this machine ...")
        self.look.doctor()
        try:
            if begin is None and self.all_done():
                return self.end()
            place = first_open(self.steps, self.facts(), self.answers) if begin is None else begin
            while place < len(self.steps):
                try:
                    place = self.step(place)
                except Go as go:
                    place = go.place
            self.end()
        except (Left, EOFError):
            self.screen.say(f"Left. It goes on here: {Act(('wizard',)).line(self.screen.state)}")
        finally:
            self.keep()

    def end(self) -> None:
        """Behind the last step: where all of them stand, and what comes next. Raises Left if one is open."""
        self.screen.block(open_list(self.steps, self.facts(), self.answers, plain=self.screen.plain))
        if not self.all_done():
            raise Left
        self.screen.block(acceptance.farewell())

    def all_done(self) -> bool:
        """Whether nothing is left to do."""
        facts = self.facts()
        return all(step.status(facts, self.answers).word == DONE for step in self.steps)

    def step(self, place: int) -> int:
        """Show a step, ask, do; gives the place of the next. Raises Go, Left, EOFError."""
        step = self.steps[place]
        if step.name == "network" and self.look.asks_wires:
            self.screen.say("Asking for other DHCP servers, 5 s ...")
            self.look.ask_wires()
        facts = self.facts()
        status = step.status(facts, self.answers)
        print()
        self.screen.row((facts.host, *header(self.steps, facts, self.answers, place, plain=self.screen.plain)), "  ")
        self.screen.say(f"{place}  {step.headline}" if place else step.headline, indent=3)
        if status.why and status.word != BLOCKED:
            self.screen.say(f"Now: {status.why}.")
        if status.word in step.waits:
            self.watch(step)
        if status.word != BLOCKED:
            self.ask_all(step, place)
        return self.offer(step, place)

    def ask_all(self, step: Step, place: int) -> None:
        """Every question of a step, each once; what is answered may bring another."""
        asked: set[str] = set()
        while True:
            rest = [each for each in step.questions(self.facts(), self.answers) if each.key not in asked]
            if not rest:
                return
            question = rest[0]
            asked.add(question.key)
            value = self.ask(question, self.answers.get(step.name, {}).get(question.key, question.default), place)
            self.answers = answer(self.answers, step.name, question.key, value)

    def ask(self, question: Question, now: Value, place: int) -> Value:
        """One question; Enter keeps what is in brackets."""
        self.screen.choices(question.choices)
        for _ in range(TRIES):
            text = self.screen.line(self.screen.prompt(question, now))
            if text == "?":
                self.screen.say(question.explain or self.steps[place].explain)
                continue
            self.key(text, place)
            try:
                if not text:
                    return checked(question, now)
                return read(question, text[1:-1] if len(text) > 1 and text[0] == text[-1] == '"' else text)
            except AnswerInvalid as error:
                self.screen.problem(Problem(error.message, error.hint))
        raise Left

    def offer(self, step: Step, place: int) -> int:
        """Say what it would do and which command does the same; do it on Enter."""
        for _ in range(TRIES):
            facts = self.facts(preview=step.name == "install")
            problems = step.problems(facts, self.answers)
            for problem in problems:
                self.screen.problem(problem)
            plan = None if stopped(problems) else step.plan(facts, self.answers)
            if plan is not None:
                self.screen.plan(plan)
            self.screen.row(STOPPED if plan is None else KEYS)
            text = self.screen.line("> ").lower()
            self.key(text, place)
            if text == "?":
                self.screen.say(step.explain)
            elif text == "c" and plan is not None:
                self.screen.commands(plan)
                return place + 1
            elif text:
                self.screen.problem(Problem(f"{text[:40]!r} is none of the keys"))
            elif plan is None:
                return place
            elif self.do(step, plan, facts):
                return self.onward(place)
        raise Left

    def onward(self, place: int) -> int:
        """The next step that has something to do; what lies behind the last one if there is none."""
        facts = self.facts()
        rest = range(place + 1, len(self.steps))
        return next((at for at in rest if self.steps[at].status(facts, self.answers).word != DONE), len(self.steps))

    def do(self, step: Step, plan: Plan, facts: Facts) -> bool:
        """Carry a plan out; gives whether all of it went well."""
        if plan.erasure is not None and not self.agreed(plan.erasure):
            self.screen.say("Everything stays as it is.")
            return False
        self.answers = {**self.answers, step.name: given(step, facts, self.answers)}
        self.keep()
        try:
            code = acting.carry_out(self.site, plan, self.sure)
        except GildError as error:
            self.screen.problem(Problem(error.message, error.hint))
            return False
        self.look.ran(step.name, facts, plan, code)
        if code:
            self.screen.problem(Problem(f"it ended with {code}; nothing more of this step was done"))
            return False
        if step.waits:
            self.watch(step)
        return True

    def agreed(self, erasure: Erasure) -> bool:
        """Show every disk that would be erased, and ask: a yes, or their number."""
        self.screen.erasure(erasure)
        number = str(len(erasure.rows))
        if not erasure.typed:
            return self.screen.line(f"Erase {number} and install? [y/N] ").lower() in ("y", "yes")
        return self.screen.line(f"{erasure.typed} Type how many disks will be erased: ") == number

    def sure(self, question: str) -> bool:
        """Enter or y is yes."""
        return self.screen.line(f"{question} [Y/n] ").lower() in ("", "y", "yes")

    def watch(self, step: Step) -> None:
        """Show machines as they come and change, until none is on its way or somebody presses Enter."""
        self.screen.say("Watching; Enter goes on.")
        before: tuple[str, ...] = ()
        while True:
            facts = self.facts()
            lines = step.watch(facts, self.answers)
            for line in lines:
                if line not in before:
                    self.screen.news(line)
            before = lines
            if step.status(facts, self.answers).word not in step.waits:
                return
            if self.screen.typed(POLL):
                self.screen.line("")
                return

    def key(self, text: str, place: int) -> None:
        """Back, on, or out, if that is what was typed."""
        if text.lower() == "q":
            raise Left
        if text.lower() in ("b", "s"):
            raise Go(max(0, place - 1) if text.lower() == "b" else place + 1)

    def keep(self) -> None:
        """What was answered so far."""
        if any(self.answers.values()):
            save(self.site.paths.wizard, self.answers)

    def facts(self, *, preview: bool = False) -> Facts:
        """As it is now."""
        return self.look.facts(self.answers, preview=preview)
