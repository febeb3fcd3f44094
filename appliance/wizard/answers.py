"""Answers as a TOML file, both ways: a table a step, a line a question. No secret is ever among them."""

from __future__ import annotations

import json
import os
import tomllib
from collections.abc import Iterator, Sequence
from pathlib import Path

from appliance.wizard.engine import Answers, Step, Value
from appliance.wizard.facts import Facts
from appliance.wizard.reading import AnswerInvalid
from images.disk import disk_errors

MOST = 1 << 20  # bytes of a file of answers
HEAD = "# Answers of gild.pyz wizard. Used again by: gild.pyz wizard --answers FILE\n"


def render(answers: Answers) -> str:
    """The text of a file that holds these answers."""
    return HEAD + "".join(
        f"\n[{name}]\n" + "".join(f"{key} = {_value(value)}\n" for key, value in table.items())
        for name, table in answers.items()
        if table
    )


def template(steps: Sequence[Step], facts: Facts, answers: Answers) -> str:
    """The text of a file that holds these answers and, as remarks, the default of every other question."""
    text = HEAD + "# A line behind # is what counts as long as nobody answers.\n"
    for step in steps:
        lines = list(_lines(step, facts, answers))
        if lines:
            text += f"\n[{step.name}]\n" + "".join(f"{line}\n" for line in lines)
    return text


def parse(text: str, where: str) -> dict[str, dict[str, Value]]:
    """The answers in a text; `where` names it. They are not yet checked against the questions. Raises AnswerInvalid."""
    try:
        body = tomllib.loads(text)
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        raise AnswerInvalid(f"{where}: {error}") from None
    found: dict[str, dict[str, Value]] = {}
    for name, table in body.items():
        if not isinstance(table, dict):
            raise AnswerInvalid(f"{where}: {name} stands outside of a step", "such as [network] above it")
        for key, value in table.items():
            if isinstance(value, bool) or not isinstance(value, str | int | list):
                raise AnswerInvalid(f"{where}: {name}.{key} is no text, number or list")
        found[name] = dict(table)
    return found


def load(path: Path) -> dict[str, dict[str, Value]]:
    """The answers in a file, none if it is not there. Raises AnswerInvalid, and ImageError if it cannot be read."""
    with disk_errors(f"reading {path}"):
        try:
            if path.stat().st_size > MOST:
                raise AnswerInvalid(f"{path} is too large to be a file of answers")
            text = path.read_text(encoding="utf-8")
        except FileNotFoundError:
            return {}
        except UnicodeDecodeError as error:
            raise AnswerInvalid(f"{path} is not UTF-8 text at byte {error.start}") from None
    return parse(text, str(path))


def save(path: Path, answers: Answers) -> None:
    """Keep answers, mode 600, whole or not at all. Raises ImageError."""
    with disk_errors(f"writing {path}"):
        path.parent.mkdir(parents=True, exist_ok=True)
        fresh = path.with_name(f".{path.name}.{os.getpid()}")
        try:
            with open(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w", encoding="utf-8") as file:
                file.write(render(answers))
                file.flush()
                os.fsync(file.fileno())
            fresh.rename(path)
        finally:
            fresh.unlink(missing_ok=True)


def _lines(step: Step, facts: Facts, answers: Answers) -> Iterator[str]:
    mine = answers.get(step.name, {})
    for question in step.questions(facts, answers):
        known = question.key in mine
        value = mine[question.key] if known else question.default
        words = f"  # {', '.join(choice.value for choice in question.choices)}" if _listed(question.choices) else ""
        yield f"{'' if known else '# '}{question.key} = {_value(value)}{words}"


def _listed(choices: Sequence[object]) -> bool:
    return 0 < len(choices) < 8 and all(len(getattr(choice, "value", "")) < 20 for choice in choices)


def _value(value: Value) -> str:
    if isinstance(value, list):
        return f"[{', '.join(map(_value, value))}]"
    # A basic string of TOML is one of JSON, but for the delete character.
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
