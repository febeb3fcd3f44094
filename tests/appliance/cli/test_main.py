"""The command line as a whole: help, errors, exit codes, pipes."""

from __future__ import annotations

import subprocess
from pathlib import Path

import click
import pytest

from appliance.cli.main import NOUNS, Site, gild, run
from tests.appliance.process import CHECKOUT, PROGRAM, clean_environment


def verbs(group: click.Group, before: tuple[str, ...] = ()) -> list[tuple[str, ...]]:
    found: list[tuple[str, ...]] = [before]
    context = click.Context(group)
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        assert command is not None
        found += verbs(command, (*before, name)) if isinstance(command, click.Group) else [(*before, name)]
    return found


VERBS = verbs(gild)


@pytest.mark.parametrize("verb", VERBS, ids=" ".join)
def test_every_verb_explains_itself(verb: tuple[str, ...], capsys: pytest.CaptureFixture[str]) -> None:
    assert run([*verb, "-h"]) == 0
    said = capsys.readouterr().out
    assert run([*verb, "--help"]) == 0 and capsys.readouterr().out == said
    assert f"Usage: gild.pyz {' '.join(verb)}".rstrip() in said and max(map(len, said.splitlines())) <= 80
    listed = said.partition("Commands:")[2]
    assert "..." not in listed, "a line of the list is cut off"


def test_all_nouns_of_the_manual_are_there() -> None:
    assert {verb[0] for verb in VERBS if verb} == set(NOUNS)
    assert len(VERBS) > 25


@pytest.mark.parametrize(
    ("typed", "near"), [("nod", "node"), ("statu", "status"), ("node lis", "list"), ("image bild", "build"), ("zz", ""),
     ("node remove", "rm"), ("node rename", "set --name"), ("install", "node install"), ("approve", "node approve")],
)  # fmt: skip
def test_a_mistyped_command_is_told_the_nearest(typed: str, near: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(typed.split()) == 2
    said = capsys.readouterr().err
    assert "there is no command" in said and (f"did you mean {near!r}?" in said) == bool(near)


def call(*arguments: str, state: Path, shell: str = "") -> subprocess.CompletedProcess[str]:
    command: list[str] = [*PROGRAM, "--state", str(state), *arguments]
    if shell:
        command = ["bash", "-c", f'"$@" {shell}; exit ${{PIPESTATUS[0]}}', "bash", *command]
    return subprocess.run(
        command, cwd=CHECKOUT, env=clean_environment(), stdin=subprocess.DEVNULL, capture_output=True, text=True,
        timeout=30,
    )  # fmt: skip


@pytest.mark.parametrize("verb", ["help", "help settings", "image recipe list", "image recipe debian"])
@pytest.mark.parametrize("shell", ["| head -0", "| head -1"])
def test_a_reader_that_has_seen_enough_is_no_error(verb: str, shell: str, tmp_path: Path) -> None:
    said = call(*verb.split(), state=tmp_path, shell=shell)
    assert (said.returncode, said.stderr) == (0, "")


def test_output_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    said = call("help", "safety", state=tmp_path, shell=">/dev/full")
    assert (
        said.returncode == 6
        and said.stderr.startswith("gild: cannot write the output")
        and said.stderr.count("\n") == 1
    )


@pytest.mark.parametrize(("shell", "heard"), [(">&-", False), ("2>&-", True), ("<&-", True), (">&- 2>&- <&-", False)])
def test_closed_streams_are_no_error(shell: str, heard: bool, tmp_path: Path) -> None:
    said = call("help", state=tmp_path, shell=shell)
    assert (said.returncode, said.stderr, bool(said.stdout)) == (0, "", heard)


@pytest.mark.root
def test_a_store_one_may_not_open_says_so(tmp_path: Path) -> None:
    (tmp_path / "state").write_text("")
    said = call("image", "list", state=tmp_path / "state")
    assert said.returncode == 5 and said.stderr.count("\n") == 2 and "--state" in said.stderr
    assert call("node", "list", state=tmp_path / "state").returncode == 4


def test_the_state_comes_from_flag_or_variable(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    seen: list[Path] = []
    monkeypatch.setattr(Site, "__init__", lambda self, state: seen.append(Path(state)))
    monkeypatch.setenv("GILD_STATE", str(tmp_path))
    run(["help"])
    run(["--state", "/elsewhere", "help"])
    monkeypatch.delenv("GILD_STATE")
    run(["help"])
    assert seen == [tmp_path, Path("/elsewhere"), Path("/var/lib/gild")]


def test_an_interrupt_is_130(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def interrupted(*arguments: object, **more: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(gild, "main", interrupted)
    assert run(["node", "list"]) == 130
    assert capsys.readouterr().err == "interrupted\n"
