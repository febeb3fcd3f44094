"""RPM families: programs that stand for dnf, zypper and rpm record how they are called; the real ones need a mirror."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from images.errors import CommandFailed, NoSpace, RecipeInvalid, ToolMissing
from images.ext4 import EPOCH
from images.options import Options
from images.sources.recipe import build_recipe
from images.sources.recipetables import Repo
from images.sources.recipetext import parse_recipe
from images.sources.rpmbuild import check, fill, repo_file, require
from images.store import Store
from tests.images.shelltree import shell_tree

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
DNF = """name = "el"
family = "dnf"
suite = "9"
packages = ["@core", "kernel"]
[repos.base]
url = "https://m.example/$releasever/BaseOS/"
key = "RPM-GPG-KEY"
[repos.own]
url = "file:///srv/own"
unsigned = true
"""
ZYPPER = DNF.replace('"dnf"', '"zypper"').replace('"9"', '"15.6"').replace("@core", "pattern:base")
# Records arguments, environment and what lies around the tree at that time.
STAND_IN = """#!/bin/sh
name=${0##*/}
for argument; do printf '%s\\n' "$argument"; done >> "$LOG/$name.arguments"
env > "$LOG/$name.environment"
for argument; do case $argument in --installroot=*) tree=${argument#*=};; */tree) tree=$argument;; esac; done
[ $name = rpm ] && exit 0
for argument; do case $argument in
--config=*) cp "${argument#*=}" "$LOG/dnf.conf";;
--setopt=reposdir=*) cp -r "${argument##*=}" "$LOG/repos";;
esac; done
[ -d "$tree/etc/zypp" ] && cp -r "$tree/etc/zypp/repos.d" "$LOG/repos"
[ -c "$tree/dev/null" ] && [ -e "$tree/proc/self" ] && [ -d "$tree/sys/kernel" ] && : > "$LOG/mounted"
[ -n "$SAY" ] && printf "$SAY\\n"
[ -n "$FAIL" ] && exit 1
cp -a "$TREE/usr" "$TREE/etc" "$TREE/bin" "$TREE/lib" "$TREE/lib64" "$TREE/boot" "$TREE/root" "$TREE/var" "$tree"
exit 0
"""


@pytest.fixture
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "bin").mkdir()
    for name in ("dnf", "zypper", "rpm"):
        (tmp_path / "bin" / name).write_text(STAND_IN)
        (tmp_path / "bin" / name).chmod(0o755)
    (tmp_path / "RPM-GPG-KEY").write_text("key\n")
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{os.environ['PATH']}")
    monkeypatch.setenv("LOG", str(tmp_path))
    monkeypatch.setenv("TREE", str(shell_tree(tmp_path / "built")))
    return tmp_path


@needs_root
def test_dnf_is_told_everything_and_nothing_of_the_heads_own(bench: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    heard: list[tuple[str, int, int]] = []
    monkeypatch.setenv("SAY", "Install  2 Packages\\n  Installing : kernel-6 1/2\\n  Installing : bash-5 2/2")
    options = Options(progress=lambda *at: heard.append(at))
    manifest = build_recipe(Store(bench / "store"), DNF, options=options, base=bench)
    assert manifest.ref == "el:1" and manifest.source["family"] == "dnf"
    arguments = (bench / "dnf.arguments").read_text().splitlines()
    assert arguments[-4:] == ["--assumeyes", "install", "@core", "kernel"] and "--releasever=9" in arguments
    for setting in ("reposdir", "cachedir", "logdir", "varsdir"):
        assert any(word.startswith(f"--setopt={setting}=") and "/build-" in word for word in arguments), setting
    assert f"SOURCE_DATE_EPOCH={EPOCH}\n" in (bench / "dnf.environment").read_text()
    assert "install_weak_deps=False" in (bench / "dnf.conf").read_text()
    assert (bench / "repos/base.repo").read_text() == (
        "[base]\nname=base\nbaseurl=https://m.example/$releasever/BaseOS/\nenabled=1\ngpgcheck=1\n"
        f"gpgkey=file://{bench}/RPM-GPG-KEY\n"
    )
    assert "gpgcheck=0" in (bench / "repos/own.repo").read_text()
    assert (bench / "mounted").exists(), "scriptlets find /dev/null, /proc and /sys"
    assert ("build", 1, 2) in heard and ("build", 2, 2) in heard


@needs_root
def test_zypper_takes_the_keys_it_was_given_and_no_other(bench: Path) -> None:
    store = Store(bench / "store")
    manifest = build_recipe(store, ZYPPER, base=bench)
    arguments = (bench / "zypper.arguments").read_text().splitlines()
    assert arguments[:2] == ["--root", str(store.work("el") / "tree")] and "--non-interactive" in arguments
    assert arguments[-4:] == ["--auto-agree-with-licenses", "--", "pattern:base", "kernel"]
    assert "--gpg-auto-import-keys" not in arguments and arguments[arguments.index("--releasever") + 1] == "15.6"
    assert (bench / "rpm.arguments").read_text().splitlines()[-2:] == ["--import", f"{bench}/RPM-GPG-KEY"]
    assert manifest.source["family"] == "zypper" and sorted(os.listdir(bench / "repos")) == ["base.repo", "own.repo"]
    assert (bench / "mounted").exists()


@needs_root
def test_the_nodes_keep_no_repository_of_the_heads_disk(bench: Path, tmp_path: Path) -> None:
    recipe = parse_recipe(ZYPPER.replace('"RPM-GPG-KEY"', f'"{bench}/RPM-GPG-KEY"'))
    (tmp_path / "some/tree").mkdir(parents=True)
    (tmp_path / "scratch").mkdir()
    fill(recipe, tmp_path / "some/tree", tmp_path / "scratch", "building el", lambda *at: None)
    assert os.listdir(tmp_path / "some/tree/etc/zypp/repos.d") == ["base.repo"]
    assert os.listdir(tmp_path / "some/tree/dev") == [], "what was mounted there is gone"


@needs_root
@pytest.mark.parametrize(
    ("text", "said", "wanted", "message"),
    [
        (
            DNF,
            "No match for argument: kernle\\nError: Unable to find a match: kernle",
            RecipeInvalid,
            "no package kernle",
        ),
        (ZYPPER, "Package 'kernle' not found.", RecipeInvalid, "no package kernle"),
        (ZYPPER, "No provider of 'kernle' found.", RecipeInvalid, "no package kernle"),
        (
            ZYPPER,
            " - Signature verification failed for repomd.xml\\nNo provider of 'kernel' found.",
            CommandFailed,
            "Signature verification failed for repomd.xml .is it the right repository",
        ),
        (DNF, "At least 300MB more space needed on the / filesystem.", NoSpace, "the disk is full"),
        (DNF, "Error: Curl error (6): no such host", CommandFailed, "no such host"),
    ],
)
def test_what_the_tools_complain_about_is_named(
    bench: Path, monkeypatch: pytest.MonkeyPatch, text: str, said: str, wanted: type[Exception], message: str
) -> None:
    monkeypatch.setenv("SAY", said)
    monkeypatch.setenv("FAIL", "1")
    store = Store(bench / "store")
    with pytest.raises(wanted, match=message):
        build_recipe(store, text, base=bench)
    assert store.images() == [] and not any(store.work("el").glob("*/*"))


@pytest.mark.parametrize(("text", "tool"), [(DNF, "dnf"), (ZYPPER, "zypper")])
def test_without_the_tool_there_is_a_way_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, tool: str
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ToolMissing, match=f"{tool} is not installed .apt install {tool}"):
        build_recipe(Store(tmp_path / "store"), text, base=tmp_path)
    with pytest.raises(ToolMissing):
        require(tool)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('family = "dnf"\nsuite = "9"\npackages = ["x"]\n', "needs repositories"),
        (DNF.replace('suite = "9"\n', ""), "needs a suite"),
        (DNF.replace('packages = ["@core", "kernel"]\n', ""), "needs packages"),
        (DNF, "there is no key RPM-GPG-KEY"),
    ],
)
def test_what_a_recipe_must_say(text: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(RecipeInvalid, match=message):
        check(parse_recipe(text))


def test_a_key_on_the_web_is_named_as_it_is() -> None:
    assert repo_file(Repo("x", "https://m", "https://m/key")).endswith("gpgcheck=1\ngpgkey=https://m/key\n")
    assert "gpgkey" not in repo_file(Repo("x", "https://m", "/key"), key=False)
