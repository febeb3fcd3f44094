from __future__ import annotations

from dataclasses import replace

import pytest

from appliance.wizard.reading import AnswerInvalid
from appliance.wizard.steps import STEPS, completed, kept, offered, place, validated
from tests.appliance.wizard.plain import FRESH, Told, serving


def test_a_step_by_name_or_number() -> None:
    assert (place("nodes"), place("4"), place("test")) == (4, 4, 7)
    with pytest.raises(AnswerInvalid, match="netwrk") as wrong:
        place("netwrk")
    assert "network" in wrong.value.hint


def test_steps_without_their_command_are_not_offered() -> None:
    assert offered(FRESH) == STEPS
    assert [step.name for step in offered(replace(FRESH, verbs=()))][-1] == "install"


def test_a_file_is_checked_against_the_questions() -> None:
    good: Told = {"network": {"interface": "eth1", "start": "background"}, "nodes": {"expect": 4}}
    assert validated(FRESH, good) == good
    wrongs: list[tuple[Told, str]] = [
        ({"network": {"interface": "eth7"}}, "network.interface"),
        ({"network": {"iface": "eth1"}}, "does not ask 'iface'"),
        ({"netwrk": {}}, "no step"),
        ({"image": {"way": "build", "path": "/x"}}, "does not ask 'path'"),
        ({"nodes": {"expect": "four"}}, "nodes.expect"),
    ]
    for wrong, said in wrongs:
        with pytest.raises(AnswerInvalid, match=said):
            validated(FRESH, wrong)


def test_what_was_kept_is_dropped_where_it_means_nothing_any_more() -> None:
    old: Told = {"network": {"interface": "eth7", "domain": "lab.example"}, "gone": {"x": 1}, "image": {"path": "/x"}}
    assert kept(FRESH, old) == {"network": {"domain": "lab.example"}}


def test_defaults_fill_one_step_with_what_follows_from_its_answers() -> None:
    found = completed(FRESH, {"image": {"way": "import"}}, only="image")
    assert set(found["image"]) == {"way", "path", "name"}
    assert completed(serving(), {}, only="install") == {"install": {"nodes": "all"}}
