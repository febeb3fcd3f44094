from __future__ import annotations

from dataclasses import replace
from typing import Any

from appliance.wizard.engine import BLOCKED, DONE, OPEN, stopped
from appliance.wizard.packages import Packages
from appliance.wizard.recipes import recipe_file
from images.sources.recipe import read_recipe
from tests.appliance.wizard.plain import COMPUTE, DEFAULT, FRESH, KEY, Told, serving

STEP = Packages()
BUILD: Told = {"image": {"way": "build", "name": "compute"}}
LOCKED = replace(COMPUTE, locked=True)


def built(answers: Told, **more: Any) -> Any:
    return serving(images=(replace(COMPUTE, recipe=recipe_file(FRESH, answers).text),), **more)


def test_the_recipe_is_one_and_good() -> None:
    answers: Told = {**BUILD, "packages": {"sets": ["ntp"], "extra": ["hwloc"], "keys": [KEY]}}
    recipe = read_recipe(recipe_file(FRESH, answers).text)
    assert recipe.name == "compute" and recipe.keys == (KEY,) and "hwloc" in recipe.packages
    assert recipe_file(FRESH, answers) == recipe_file(FRESH, answers)


def test_nothing_more_is_no_second_build() -> None:
    facts = built(BUILD)
    assert STEP.status(facts, BUILD).word == DONE
    assert [act.words[:2] for act in STEP.plan(facts, BUILD).acts] == [("profile", "set")]


def test_a_set_is_the_next_version() -> None:
    more: Told = {**BUILD, "packages": {"sets": ["scheduler-slurm"]}}
    facts = built(BUILD)
    assert STEP.status(facts, more).word == OPEN
    plan = STEP.plan(facts, more)
    assert [act.words[:2] for act in plan.acts] == [("image", "build"), ("image", "tag"), ("profile", "set")]
    assert "compute:2" in plan.effect and "scheduler-slurm" in plan.acts[0].files[0].text


def test_an_imported_image_gets_packages_by_its_own_means_and_keys_with_the_profile() -> None:
    answers: Told = {"image": {"way": "import", "name": "compute"}, "packages": {"extra": ["hwloc"]}}
    facts = serving(images=(LOCKED,))
    assert STEP.status(facts, answers).word == OPEN
    edit, profile = STEP.plan(facts, answers).acts
    assert edit.words[-4:] == ("apt-get", "install", "-y", "hwloc") and profile.files[0].mode == 0o600
    assert profile.files[0].path == "/var/lib/gild/profiles/default/overlay/root/.ssh/authorized_keys"
    assert profile.files[0].text == f"{KEY}\n"
    after = serving(images=(replace(LOCKED, added=("hwloc",)),), keyed=("default",))
    assert STEP.status(after, answers).word == DONE
    strange = serving(images=(replace(COMPUTE, family="gentoo", system="Gentoo"),))
    stop = stopped(STEP.problems(strange, answers))
    assert stop is not None and "Gentoo" in stop.text


def test_nobody_could_log_in_stops_it_unless_that_is_wanted() -> None:
    facts = serving(images=(LOCKED,), keys=())
    stop = stopped(STEP.problems(facts, {}))
    assert stop is not None and "no way to log in" in stop.text and "ssh-keygen" in stop.hint
    assert STEP.status(facts, {}).word == OPEN
    # Enter is no way to say so.
    assert STEP.questions(facts, {})[1].default == []
    assert stopped(STEP.problems(facts, {"packages": {"keys": []}})) is not None
    nobody: Told = {"packages": {"keys": ["none"]}}
    assert stopped(STEP.problems(facts, nobody)) is None and STEP.status(facts, nobody).word == DONE


def test_two_schedulers_exclude_each_other() -> None:
    answers: Told = {**BUILD, "packages": {"sets": ["scheduler-slurm", "scheduler-pbs"]}}
    stop = stopped(STEP.problems(built(BUILD), answers))
    assert stop is not None and "exclude each other" in stop.text


def test_disk_and_layout_are_the_profile_s() -> None:
    layout = ({"name": "root"},)
    answers: Told = {"packages": {"disk": "bus=nvme,pick=smallest", "layout": "/l.toml"}}
    facts = serving(layout=layout)
    assert STEP.status(facts, answers).word == OPEN
    words = STEP.plan(facts, answers).acts[-1].words
    assert words == ("profile", "set", "default", "--image", "compute", "--disk", "bus=nvme,pick=smallest", "--layout",
                     "/l.toml")  # fmt: skip
    so = {**DEFAULT, "disk": "bus=nvme,pick=smallest", "layout": [{"name": "root"}]}
    assert STEP.status(serving(layout=layout, profiles=(so,)), answers).word == DONE
    for wrong in ({"disk": "colour=red"}, {"layout": "/gone"}):
        facts = serving(missing=("/gone",))
        assert stopped(STEP.problems(facts, {"packages": wrong})) is not None


def test_it_needs_an_image_and_a_head() -> None:
    assert STEP.status(FRESH, {}).word == BLOCKED
    assert STEP.status(serving(serving=None), {}).word == BLOCKED
    for image in ("", "login"):
        other = {**DEFAULT, "image": image}
        assert "does not name compute" in STEP.status(serving(profiles=(other,)), {}).why
