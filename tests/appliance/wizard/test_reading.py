from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from appliance.wizard.engine import Choice, Question
from appliance.wizard.reading import AnswerInvalid, checked, read

WAY = Question("way", "How", "build", (Choice("build", "Build"), Choice("import", "Import")))
SETS = Question("sets", "Sets", [], (Choice("ntp", "ntp"), Choice("tools", "tools")), many=True)
RANGE = Question("range", "Addresses", "", setting="range")
COUNT = Question("expect", "How many", 1)
NAME = Question("name", "Name", "compute", pattern="[a-z]+", wants="letters")


@pytest.mark.parametrize(
    ("question", "text", "value"),
    [
        (WAY, "2", "import"), (WAY, " build ", "build"), (SETS, "2, 1", ["tools", "ntp"]), (SETS, "ntp", ["ntp"]),
        (SETS, "-", []),
        (RANGE, "10.0.0.1 - 10.0.0.9", "10.0.0.1-10.0.0.9"), (RANGE, "-", ""), (COUNT, "12", 12),
        (NAME, "gpu", "gpu"),
    ],
)  # fmt: skip
def test_what_is_typed_becomes_an_answer(question: Question, text: str, value: object) -> None:
    assert read(question, text) == value
    assert checked(question, read(question, text)) == value


@pytest.mark.parametrize(
    ("question", "text", "said"),
    [
        (WAY, "3", "from 1 to 2"), (WAY, "0", "from 1 to 2"), (WAY, "bild", "none of build, import"),
        (SETS, "1,nfs", "none of ntp"), (RANGE, "10.0.0.9-10.0.0.1", "two IPv4"), (COUNT, "many", "no number"),
        (NAME, "B 2", "letters"),
        (NAME, "x" * 5000, "no line"), (NAME, "a\x1b[2J", "no line"),
        (Question("key", "Key"), "-----BEGIN OPENSSH PRIVATE KEY-----", "private key"),
    ],
)  # fmt: skip
def test_what_is_no_answer_says_what_is_wanted(question: Question, text: str, said: str) -> None:
    with pytest.raises(AnswerInvalid, match=said):
        read(question, text)


@pytest.mark.parametrize(
    ("question", "value"), [(WAY, "zfs"), (WAY, ["build"]), (SETS, "ntp"), (SETS, ["zfs"]), (COUNT, "12"), (NAME, 7)]
)  # fmt: skip
def test_a_file_may_be_wrong_too(question: Question, value: object) -> None:
    with pytest.raises(AnswerInvalid, match=question.key):
        checked(question, value)  # type: ignore[arg-type]


@given(st.text(max_size=40))
def test_reading_answers_or_refuses(text: str) -> None:
    for question in (WAY, SETS, RANGE, COUNT, NAME):
        try:
            value = read(question, text)
        except AnswerInvalid:
            continue
        assert checked(question, value) == value
