from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from appliance.cli.main import run
from tests.appliance.cluster.daemons import head_with_nodes
from tests.appliance.process import Served

pytestmark = pytest.mark.root


@pytest.fixture(scope="module")
def head() -> Iterator[Served]:
    with head_with_nodes() as served:
        yield served


def test_drained_and_given_back(
    head: Served, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    log = tmp_path / "log"
    nodes = '{"nodes": {"node01": {"jobs": ["1.head/0"]}}}'
    (tmp_path / "pbsnodes").write_text(f"#!/bin/sh\necho \"$*\" >> {log}\necho '{nodes}'\n")
    (tmp_path / "pbsnodes").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    assert run(["--state", str(head.state), "cluster", "drain", "node[01-02]", "--by", "pbs"]) == 0
    assert capsys.readouterr().out == "2 drained; still at work: node01\n"
    assert run(["--state", str(head.state), "cluster", "resume", "@compute", "--by", "pbs"]) == 0
    assert capsys.readouterr().out == "2 given back\n"
    assert log.read_text().splitlines() == [
        "-o -C gild: reinstallation node01 node02", "-a -F json", "-r -C  node01 node02",
    ]  # fmt: skip
    monkeypatch.setattr("appliance.cli.cluster_drain.found", lambda services: None)
    assert run(["--state", str(head.state), "cluster", "drain", "node01"]) == 5
    assert "--by slurm|sge|pbs" in capsys.readouterr().err
