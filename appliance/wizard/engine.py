"""What a step of the wizard is, and what all steps have in common. Nothing here asks, looks or acts."""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from appliance.config import BY_NAME
from appliance.wizard.facts import Facts

PROGRAM = "gild.pyz"

Value = str | int | list[str]
Answers = Mapping[str, Mapping[str, Value]]

# Status words, and the sign of each; the plain sign is for screens that know ASCII alone.
DONE, DOING, OPEN, BLOCKED = "done", "doing", "open", "blocked"
SIGNS = {DONE: ("✓", "x"), DOING: ("◐", "~"), OPEN: ("·", "-"), BLOCKED: ("·", "-")}
HERE = ("▶", ">")  # the step that is being shown


@dataclass(frozen=True)
class Status:
    """Where a step stands: one of DONE, DOING, OPEN and BLOCKED, and why in a few words."""

    word: str
    why: str = ""


@dataclass(frozen=True)
class Choice:
    """One of several answers. `note` stands beside it; `suggested` marks the one that a careful person would take."""

    value: str
    text: str
    note: str = ""
    suggested: bool = False


@dataclass(frozen=True)
class Question:
    """One thing to know. `default` counts where nobody answers. With `choices` the answer is one of them, or several
    (`many`), or any text besides (`free`); `setting` names the row of the settings that judges a text; `pattern` is a
    regular expression for one, told in words by `wants`."""

    key: str
    text: str
    default: Value = ""
    choices: tuple[Choice, ...] = ()
    many: bool = False
    free: bool = False
    setting: str = ""
    pattern: str = ""
    wants: str = ""
    note: str = ""  # beside the default: what it means, or how many that are
    explain: str = ""


@dataclass(frozen=True)
class Problem:
    """Something a step would run into. `stops`: nothing is done before it is mended."""

    text: str
    hint: str = ""
    stops: bool = True


@dataclass(frozen=True)
class NewFile:
    """A text file that a command reads, and that is written before it; `mode` its rights."""

    path: str
    text: str
    mode: int = 0o644


@dataclass(frozen=True)
class Act:
    """One command of this program, `words` as a person would type them; `sure` are more words that keep it from asking
    what was asked already. `background`: it goes on when the wizard has ended. `preview`: it changes nothing and comes
    first, to be looked at."""

    words: tuple[str, ...]
    files: tuple[NewFile, ...] = ()
    sure: tuple[str, ...] = ()
    background: bool = False
    preview: bool = False

    def line(self, state: str) -> str:
        """The command as it is typed, for the state directory `state`."""
        named = () if state == BY_NAME["state"].default else ("--state", state)
        text = shlex.join((PROGRAM, *named, *self.words))
        return f"{text} >> {shlex.quote(f'{state}/serve.log')} 2>&1 &" if self.background else text


@dataclass(frozen=True)
class Erasure:
    """Disks that a plan erases: `rows` have node, image, disk and content (what is on it); `digest` names exactly this
    preview; `foreign` are the nodes whose disk holds something that is not ours. `typed`, if it is not empty, says why
    a yes is not enough and their number has to be typed."""

    rows: tuple[Mapping[str, str], ...]
    digest: str
    foreign: frozenset[str] = frozenset()
    typed: str = ""

    @property
    def lines(self) -> tuple[str, ...]:
        """Each disk in a line, with a sign before what is not ours."""
        return tuple(
            f"  {row['node']}  {row['disk']}: {'! ' if row['node'] in self.foreign else ''}{row['content']}"
            f"  (gets {row['image']})"
            for row in self.rows
        )


@dataclass(frozen=True)
class Plan:
    """What a step would do: `effect` in a sentence, the commands, and the disks it would erase."""

    effect: str
    acts: tuple[Act, ...]
    erasure: Erasure | None = None


class Step(Protocol):
    """One step. `name` is its word in files of answers, `title` its word on the screen, `headline` its question;
    `waits`: the status words in which machines are on their way and `watch` is worth looking at again and again."""

    name: str
    title: str
    headline: str
    explain: str
    waits: tuple[str, ...]

    def status(self, facts: Facts, answers: Answers) -> Status:
        """Where it stands, by the facts; answers count only as wishes that the facts are compared with."""
        ...

    def questions(self, facts: Facts, answers: Answers) -> tuple[Question, ...]:
        """What is to be known, in order; later questions may depend on earlier answers."""
        ...

    def problems(self, facts: Facts, answers: Answers) -> tuple[Problem, ...]:
        """What would go wrong, the worst first."""
        ...

    def plan(self, facts: Facts, answers: Answers) -> Plan:
        """What it would do. Called when no problem stops it."""
        ...

    def watch(self, facts: Facts, answers: Answers) -> tuple[str, ...]:
        """What there is to see meanwhile, a line each; empty for steps that wait for nothing."""
        ...


def given(step: Step, facts: Facts, answers: Answers) -> dict[str, Value]:
    """The answer to each question of a step, the default where there is none."""
    mine = answers.get(step.name, {})
    return {question.key: mine.get(question.key, question.default) for question in step.questions(facts, answers)}


def word(values: Mapping[str, Value], key: str) -> str:
    """An answer that is a text, "" if there is none."""
    return str(values.get(key, ""))


def words(values: Mapping[str, Value], key: str) -> tuple[str, ...]:
    """An answer that is a list of texts; a text is split at blanks and commas."""
    value = values.get(key, "")
    return tuple(value) if isinstance(value, list) else tuple(re.split(r"[\s,]+", str(value).strip())) if value else ()


def answer(answers: Answers, step: str, key: str, value: Value) -> dict[str, dict[str, Value]]:
    """The answers with one more."""
    copy = {name: dict(table) for name, table in answers.items()}
    copy.setdefault(step, {})[key] = value
    return copy


def stopped(problems: Sequence[Problem]) -> Problem | None:
    """The first problem that stops a step."""
    return next((problem for problem in problems if problem.stops), None)


def first_open(steps: Sequence[Step], facts: Facts, answers: Answers) -> int:
    """The place of the step to go on with: the first that is not done; the last if all are."""
    for place, step in enumerate(steps):
        if step.status(facts, answers).word != DONE:
            return place
    return len(steps) - 1


def header(steps: Sequence[Step], facts: Facts, answers: Answers, here: int, *, plain: bool) -> list[str]:
    """All steps with their signs, a piece each; `here` is the place of the one that is shown."""
    shown = []
    for place, step in enumerate(steps):
        signs = HERE if place == here else SIGNS[step.status(facts, answers).word]
        shown.append(f"{signs[plain]} {label(place, step)}")
    return shown


def label(place: int, step: Step) -> str:
    """The title of a step with its number; the first one, which runs by itself, has none."""
    return f"{place} {step.title}" if place else step.title


def open_list(steps: Sequence[Step], facts: Facts, answers: Answers, *, plain: bool) -> list[str]:
    """Every step in a line: sign, title, and why it is where it is."""
    lines = []
    width = max(len(label(place, step)) for place, step in enumerate(steps))
    for place, step in enumerate(steps):
        status = step.status(facts, answers)
        lines.append(
            f"{SIGNS[status.word][plain]} {label(place, step):<{width}}  {status.word}: {status.why}".rstrip(" :")
        )
    return lines


def count(number: int, one: str, many: str = "") -> str:
    """3 machines, 1 machine."""
    return f"{number} {one if number == 1 else many or one + 's'}"
