"""Schedulers on the head, played by scripts that note what they were asked."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from appliance.acceptance.checks import FAIL, NONE, PASS, Target
from appliance.acceptance.login import Login
from appliance.acceptance.run import Examination


@pytest.fixture
def tools(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of programs that is the whole PATH but for sh's own."""
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(
        "shutil.which", lambda name, path="": str(tmp_path / name) if (tmp_path / name).exists() else None
    )
    return tmp_path


def put(tools: Path, name: str, text: str) -> None:
    (tools / name).write_text(f'#!/bin/sh\necho "$*" >>{tools}/asked\n{text}\n')
    (tools / name).chmod(0o755)


def jobs_of(tmp_path: Path, *names: str) -> dict[str, tuple[str, str]]:
    made = Examination([Target(name, "10.0.0.1") for name in names], "c", "10.0.0.254", Login(str(tmp_path), None), (),
                       lambda phase, done, total: None)  # fmt: skip
    made._job(names)
    return {name: (found["job"].word, found["job"].text) for name, found in made.verdicts.items()}


def test_none(tools: Path) -> None:
    assert jobs_of(tools, "n1") == {"n1": (NONE, "no scheduler on this head")}


def test_slurm_that_is_not_set_up_is_none(tools: Path) -> None:
    put(tools, "sinfo", "echo 'sinfo: fatal: Could not establish a configuration source' >&2; exit 1")
    assert jobs_of(tools, "n1")["n1"][0] == NONE


def test_slurm_that_does_not_answer_fails(tools: Path) -> None:
    put(tools, "sinfo", "echo 'slurm_load_partitions: Unable to contact slurm controller' >&2; exit 1")
    assert jobs_of(tools, "n1")["n1"] == (
        FAIL, "Slurm does not answer on this head: slurm_load_partitions: Unable to contact slurm controller"
    )  # fmt: skip


@pytest.mark.parametrize(("version", "asked"), [
    ("pbs_version = 23.06.06", "-W block=true -l select=1:host=n1 "), ("", "-sync y -b y "),
])  # fmt: skip
def test_queues(tools: Path, version: str, asked: str) -> None:
    put(tools, "qsub", f"case $* in --version) echo '{version}' >&2;; *n2*) echo 'no such host n2' >&2; exit 1;; esac")
    found = jobs_of(tools, "n1", "n2")
    assert found == {"n1": (PASS, "a job by qsub ran on it"), "n2": (FAIL, "qsub ran no job on it: no such host n2")}
    lines = (tools / "asked").read_text().splitlines()
    assert len(lines) == 3 and any(line.startswith(asked) for line in lines) and os.environ["PATH"] == str(tools)
