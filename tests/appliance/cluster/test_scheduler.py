from __future__ import annotations

import json
import shutil
from collections.abc import Callable

import pytest

from appliance.cluster import scheduler
from appliance.cluster.scheduler import GridEngine, Pbs, Slurm

SINFO = "n1|idle|none\nn2|drained|disk broken\nn3|drained|gild: reinstallation\nn4|down*|Node unexpectedly rebooted\n"


def recorder(**answers: str) -> tuple[list[list[str]], Callable[[list[str]], str]]:
    asked: list[list[str]] = []

    def need(argv: list[str]) -> str:
        asked.append(argv)
        return answers.get(argv[0], "")

    return asked, need


def test_slurm_leaves_what_others_have_drained() -> None:
    asked, need = recorder(sinfo=SINFO)
    Slurm(need).drain(["n1", "n2"])
    assert asked[1:] == [["scontrol", "update", "NodeName=n1", "State=DRAIN", "Reason=gild: reinstallation"]]
    asked.clear()
    Slurm(need).resume(["n1", "n2", "n3", "n4"])
    assert asked == [
        ["sinfo", "-h", "-N", "-n", "n[1-4]", "-o", "%N|%T|%E"],
        ["scontrol", "update", "NodeName=n[3-4]", "State=RESUME"],
    ]
    asked, need = recorder(sinfo="n2|drained|disk broken\n")
    Slurm(need).drain(["n2"])
    Slurm(need).resume(["n2"])
    assert all(argv[0] == "sinfo" for argv in asked)
    assert Slurm(recorder(sinfo="n1 mixed\nn2 idle\n")[1]).busy(["n1", "n2"]) == {"n1"}


def test_grid_engine() -> None:
    asked, need = recorder(qstat="<queue_name>all.q@n1.c</queue_name><queue_name>all.q@x</queue_name>")
    GridEngine(need).drain(["n1", "n2"])
    GridEngine(need).resume(["n1"])
    assert asked == [["qmod", "-d", "*@n1", "*@n2"], ["qmod", "-e", "*@n1"]]
    assert GridEngine(need).busy(["n1", "n2"]) == {"n1"}


def test_pbs() -> None:
    nodes = {"n1": {"jobs": ["1.h/0"]}, "n2": {}, "x": {"jobs": ["2.h"]}}
    asked, need = recorder(pbsnodes=json.dumps({"nodes": nodes}))
    Pbs(need).drain(["n1", "n2"])
    Pbs(need).resume(["n1"])
    assert asked == [
        ["pbsnodes", "-o", "-C", "gild: reinstallation", "n1", "n2"], ["pbsnodes", "-r", "-C", "", "n1"],
    ]  # fmt: skip
    assert Pbs(need).busy(["n1", "n2", "n3"]) == {"n1"}


def test_which_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda name, path: name == "sge_qmaster")
    assert scheduler.found() == GridEngine()
    assert scheduler.found(["hosts", "pbs", "slurm"]) == Pbs()
    monkeypatch.setattr(shutil, "which", lambda name, path: None)
    assert scheduler.found(["hosts"]) is None
