"""What somebody typed, or what stands in a file, as the answer to a question."""

from __future__ import annotations

import re

from appliance.config import BY_NAME
from appliance.wizard.engine import Question, Value
from images.errors import GildError

MOST = 4096  # characters of an answer; a public key of RSA 16384 has 2800


class AnswerInvalid(GildError):
    """What was typed, or stands in a file of answers, is no answer to the question."""


def read(question: Question, text: str) -> Value:
    """What somebody typed as an answer: the number of a choice or its word, several with commas where `many`, or a
    text; "-" is nothing. Raises AnswerInvalid saying what is wanted."""
    text = text.strip()
    if len(text) > MOST or not text.isprintable():
        raise AnswerInvalid(f"{question.text}: that is no line of text")
    if question.many:
        return _several(question, "" if text == "-" else text)
    if question.choices:
        return _one(question, text)
    value = "" if text == "-" else text
    if isinstance(question.default, int):
        if not re.fullmatch(r"[0-9]{1,6}", value):
            raise AnswerInvalid(f"{value!r} is no number")
        return int(value)
    return check(question, value)


def check(question: Question, value: str) -> str:
    """A text as the answer to `question`, in its usual form. Raises AnswerInvalid."""
    if "PRIVATE KEY" in value:
        raise AnswerInvalid("that is a private key", "give the public one: the file that ends in .pub")
    if question.setting:
        try:
            return str(BY_NAME[question.setting].read(value))
        except ValueError as error:
            raise AnswerInvalid(f"{value!r} should be {error}") from None
    if question.pattern and not re.fullmatch(question.pattern, value):
        raise AnswerInvalid(f"{value!r} should be {question.wants}")
    return value


def checked(question: Question, value: Value) -> Value:
    """An answer out of a file. Raises AnswerInvalid naming the question's key."""
    try:
        if question.many or isinstance(value, list):
            if not question.many or not isinstance(value, list) or not all(isinstance(each, str) for each in value):
                raise AnswerInvalid("a list of texts is " + ("wanted" if question.many else "too much"))
            return [_known(question, each) for each in value]
        if isinstance(question.default, int) != isinstance(value, int):
            raise AnswerInvalid(f"{value!r} should be a {'number' if isinstance(question.default, int) else 'text'}")
        if isinstance(value, int):
            return value
        return _known(question, value) if question.choices else check(question, value)
    except AnswerInvalid as error:
        raise AnswerInvalid(f"{question.key}: {error.message}", error.hint) from None


def _one(question: Question, text: str) -> str:
    if re.fullmatch(r"[0-9]{1,4}", text):
        if not 1 <= int(text) <= len(question.choices):
            raise AnswerInvalid(f"there is no {text}; they go from 1 to {len(question.choices)}")
        return question.choices[int(text) - 1].value
    return _known(question, text)


def _several(question: Question, text: str) -> list[str]:
    if not question.choices or question.free:
        return [_one(question, each) if each.isdecimal() else check(question, each) for each in _split(question, text)]
    return [_one(question, each) for each in _split(question, text)]


def _split(question: Question, text: str) -> list[str]:
    # What has blanks in itself, as keys do, comes one at a time.
    parts = text.split(",") if question.free and question.choices else re.split(r"[\s,]+", text)
    return [part.strip() for part in parts if part.strip()]


def _known(question: Question, value: str) -> str:
    values = [choice.value for choice in question.choices]
    if value in values or not (values or question.free or question.pattern):
        return value
    if question.free or not values:
        return check(question, value)
    raise AnswerInvalid(f"{value!r} is none of {', '.join(values)}")
