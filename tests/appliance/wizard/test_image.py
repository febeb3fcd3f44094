from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from appliance.wizard.engine import BLOCKED, DONE, OPEN, stopped
from appliance.wizard.image import Image
from tests.appliance.wizard.plain import COMPUTE, FRESH, KEY, serving

STEP = Image()


def way(word: str, **more: Any) -> dict[str, dict[str, Any]]:
    return {"image": {"way": word, **more}}


def test_the_first_of_all_ways_is_to_build() -> None:
    plan = STEP.plan(FRESH, {})
    file = plan.acts[0].files[0]
    assert plan.acts[0].words == ("image", "build", "/var/lib/gild/recipes/compute.toml") and "compute:1" in plan.effect
    assert file.path.endswith("compute.toml") and KEY in file.text and 'extends = "debian"' in file.text


@pytest.mark.parametrize(
    ("answers", "words"),
    [
        (way("recipe", recipe="/r.toml"), "build /r.toml --name compute"),
        (way("import", path="/d.qcow2", name="gpu"), "import /d.qcow2 --name gpu"),
        (way("capture", **{"from": "ssh:root@gold"}), "capture compute --from ssh:root@gold"),
        (way("head"), "capture compute --from /"),
    ],
)
def test_each_way_is_one_command(answers: dict[str, Any], words: str) -> None:
    assert " ".join(STEP.plan(FRESH, answers).acts[0].words) == f"image {words}"


@pytest.mark.parametrize(
    ("facts", "answers", "said"),
    [
        (replace(FRESH, builder=False), way("build"), "mmdebstrap"),
        (FRESH, way("import"), "which file"),
        (replace(FRESH, missing=("/x",)), way("import", path="/x"), "there is no /x"),
        (FRESH, way("capture"), "serves"),
        (replace(FRESH, root=False), {}, "root"),
    ],
)
def test_what_a_way_lacks_is_told_before(facts: Any, answers: dict[str, Any], said: str) -> None:
    stop = stopped(STEP.problems(facts, answers))
    assert stop is not None and said in stop.text + stop.hint


def test_without_mmdebstrap_another_way_is_suggested() -> None:
    asked = STEP.questions(replace(FRESH, builder=False), {})[0]
    assert asked.default == "import" and [choice.value for choice in asked.choices if choice.suggested] == ["import"]


def test_done_is_an_image_however_it_came() -> None:
    assert STEP.status(FRESH, {}).word == OPEN
    assert STEP.status(serving(), {}).word == DONE
    assert STEP.status(serving(), {"image": {"name": "gpu"}}).word == OPEN
    assert STEP.status(replace(FRESH, root=False), {}).word == BLOCKED
    assert STEP.plan(serving(images=(replace(COMPUTE, newest=3),)), {}).effect.startswith("build compute:4")
