from __future__ import annotations

import json

import pytest

from appliance.cli.main import run
from appliance.cli.topics import TOPICS, WORDS
from appliance.config import SETTINGS
from appliance.errors import EXIT_CODES


@pytest.mark.parametrize("topic", sorted(set(TOPICS) - {"components"}))
def test_every_topic_prints(topic: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["help", topic]) == 0
    assert len(capsys.readouterr().out) > 200


def test_the_list_names_every_topic(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["help"]) == 0
    said = capsys.readouterr().out
    assert all(topic in said and text in said for topic, text in TOPICS.items())


def test_every_setting_stands_there_with_flag_variable_and_default(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["help", "settings"]) == 0
    lines = capsys.readouterr().out.splitlines()
    for setting in SETTINGS:
        (line,) = (line for line in lines if line.startswith(setting.name + " "))
        assert f"--{setting.name.replace('_', '-')}" in line and f"GILD_{setting.name.upper()}" in line
        assert str(setting.default) in line


def test_every_exit_code_stands_there(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["help", "exit-codes"]) == 0
    said = capsys.readouterr().out
    assert {int(line.split()[0]) for line in said.splitlines() if line[:1].isdecimal()} == {
        0, 2, *(code for _, code, _ in EXIT_CODES),
    }  # fmt: skip


def test_components_are_listed_or_said_to_be_in_the_built_file(capsys: pytest.CaptureFixture[str]) -> None:
    code = run(["help", "components", "--json"])
    said = capsys.readouterr()
    if code == 0:
        assert all(row["licence"] and len(row["sha256"]) == 64 for row in json.loads(said.out))
    else:
        assert code == 5 and "build.py app" in said.err


def test_a_topic_is_found_by_other_words_too(capsys: pytest.CaptureFixture[str]) -> None:
    words = [word for several in WORDS.values() for word in several.split()]
    assert set(WORDS) <= set(TOPICS) and not set(words) & set(TOPICS) and len(set(words)) == len(words)
    assert run(["help", "slurm"]) == 0
    said = capsys.readouterr().out
    assert run(["help", "cluster"]) == 0 and capsys.readouterr().out == said


@pytest.mark.parametrize(("topic", "near"), [("setings", "settings"), ("imags", "images"), ("xyz", "help")])
def test_an_unknown_topic(topic: str, near: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["help", topic]) == 3
    said = capsys.readouterr().err
    assert said.startswith(f"gild: there is no topic '{topic}'\n") and near in said
