"""Files, templates, units and scripts in a tree that can run programs."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import pytest

from images.errors import CommandFailed, RecipeInvalid
from images.sources.furnish import furnish, gather
from images.sources.recipetables import RecipeFile, Script
from images.sources.recipetext import Recipe
from tests.images.shelltree import shell_tree
from tests.images.systems import put

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
# Stands for systemctl, which would need half of systemd in the tree.
SYSTEMCTL = '#!/bin/sh\ntest "$SYSTEMD_OFFLINE" = 1 && echo "$@" >> /etc/systemctl\n'


def put_in(tree: Path, recipe: Recipe) -> list[tuple[str, int, int]]:
    told: list[tuple[str, int, int]] = []
    furnish(tree, recipe, gather(recipe, "x"), "building x", lambda *at: told.append(at))
    return told


def template(text: str) -> Recipe:
    return Recipe(
        suite="bookworm", variables=(("rack", "7"),), files=(RecipeFile("/t", text, "", 0o644, "root", True),)
    )


def test_variables_are_put_into_templates() -> None:
    what = gather(template("${name} on $suite ($family), rack $rack, $$HOME"), "compute")
    assert what.files[0][1] == b"compute on bookworm (debian), rack 7, $HOME"


@pytest.mark.parametrize(
    ("text", "message"),
    [("$rock", r"template /t: no variable 'rock' \(known: name, suite, family, rack"), ("a\n$(x)", "line 2, col 1")],
)
def test_a_template_that_cannot_be_filled(text: str, message: str) -> None:
    with pytest.raises(RecipeInvalid, match=message):
        gather(template(text), "x")


def test_a_template_that_is_no_text(tmp_path: Path) -> None:
    (tmp_path / "t").write_bytes(b"\xff$name")
    recipe = Recipe(files=(RecipeFile("/t", None, str(tmp_path / "t"), 0o644, "root", True),))
    with pytest.raises(RecipeInvalid, match="not UTF-8 text"):
        gather(recipe, "x")


@needs_root
def test_units_are_enabled_with_the_systems_own_tool(tmp_path: Path) -> None:
    tree = shell_tree(tmp_path / "tree")
    put(tree, "usr/bin/systemctl", SYSTEMCTL, 0o755)
    for unit in ("a.service", "b@.service", "c.timer"):
        put(tree, f"usr/lib/systemd/system/{unit}", "[Unit]\n")
    (tree / "usr/lib/systemd/system/old-a.service").symlink_to("a.service")
    put_in(tree, Recipe(enable=("old-a.service", "b@one.service", "a.service"), disable=("c.timer", "none.timer")))
    assert (tree / "etc/systemctl").read_text() == "enable -- a.service b@one.service\ndisable -- c.timer\n"
    with pytest.raises(RecipeInvalid, match=r"enable: the system has no unit none\.service"):
        put_in(tree, Recipe(enable=("none.service",)))


@needs_root
def test_scripts_run_in_order_and_leave_nothing_of_ours(tmp_path: Path) -> None:
    tree = shell_tree(tmp_path / "tree")
    (tree / "etc/resolv.conf").unlink()
    (tree / "etc/resolv.conf").symlink_to("../run/systemd/resolve/stub-resolv.conf")
    before = sorted(os.listdir(tree))
    scripts = (
        Script("echo one > /etc/log"),
        Script("#!/bin/cat\nsaid by cat"),
        Script("echo two >> /etc/log; ls / >&2"),
    )
    told = put_in(tree, Recipe(scripts=scripts))
    assert (tree / "etc/log").read_text() == "one\ntwo\n" and told[-1] == ("script", 3, 3)
    assert sorted(os.listdir(tree)) == before and not (tree / "usr/sbin/policy-rc.d").exists()
    assert os.readlink(tree / "etc/resolv.conf") == "../run/systemd/resolve/stub-resolv.conf"


@needs_root
def test_a_policy_of_the_image_itself_stays(tmp_path: Path) -> None:
    tree = shell_tree(tmp_path / "tree")
    put(tree, "usr/sbin/policy-rc.d", "#!/bin/sh\nexit 0\n", 0o755)
    put_in(tree, Recipe(scripts=(Script("true"),)))
    assert (tree / "usr/sbin/policy-rc.d").read_text() == "#!/bin/sh\nexit 0\n"


@needs_root
def test_what_a_script_leaves_running_is_ended(tmp_path: Path) -> None:
    tree = shell_tree(tmp_path / "tree")
    put_in(tree, Recipe(scripts=(Script("setsid sleep 4321 > /dev/null 2>&1 &"),)))
    running = [path.read_bytes() for path in Path("/proc").glob("[0-9]*/cmdline") if path.exists()]
    assert b"sleep\x004321\x00" not in running


@needs_root
def test_a_script_stops_at_its_first_error(tmp_path: Path) -> None:
    tree = shell_tree(tmp_path / "tree")
    with pytest.raises(CommandFailed, match=r"building x: script 1: .*NOTHING"):
        put_in(tree, Recipe(scripts=(Script('echo "$NOTHING"; touch /etc/after'),)))
    assert not (tree / "etc/after").exists() and not (tree / ".gild-script").exists()


@needs_root
def test_files_get_owner_and_mode_and_follow_no_link_out(tmp_path: Path) -> None:
    tree = shell_tree(tmp_path / "tree")
    put(tree, "etc/passwd", "man:x:6:12::/:/bin/sh\n")
    (tree / "srv").symlink_to(tmp_path)
    one = RecipeFile("/etc/one", "1", "", 0o4750, "man")
    put_in(tree, Recipe(files=(one, replace(one, path="/srv/two", owner="root"))))
    status = (tree / "etc/one").stat()
    assert (status.st_uid, status.st_gid, status.st_mode & 0o7777) == (6, 12, 0o4750)
    assert not (tmp_path / "two").exists()
    with pytest.raises(RecipeInvalid, match="owner 'anna': the system has no user anna"):
        put_in(tree, Recipe(files=(replace(one, owner="anna"),)))
