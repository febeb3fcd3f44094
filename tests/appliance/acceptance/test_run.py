"""The whole test with real sshd's, a real head's DNS and, where it is there, a real mpirun."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.appliance.acceptance.townlet import HEAD, Townlet, townlet
from tests.netboot.lan import needs_root

TOOLS = ("ip", "sshd", "ssh", "ssh-keygen", "unshare", "getent")
MISSING = [tool for tool in TOOLS if shutil.which(tool, path=f"{os.environ['PATH']}:/usr/sbin") is None]
pytestmark = [*needs_root, pytest.mark.skipif(bool(MISSING), reason=f"not installed: {', '.join(MISSING)}")]

# 1 to 3 are well, 4 has another name, 5 is switched off, 6 lets nobody in, 7 is another machine.
GOOD, LIAR, DEAD, LOCKED, STRANGER = ("node01", "node02", "node03"), "node04", "node05", "node06", "node07"


@pytest.fixture(scope="module")
def town() -> Iterator[Townlet]:
    with townlet() as made:
        made.journal(7)
        let_in = made.key_pair(made.folder / "id") + made.key_pair(made.folder / "ring")
        for number in (1, 2, 3):
            made.node(number, let_in=let_in)
        made.node(4, let_in=let_in, says="impostor")
        made.node(6, let_in="")
        made.node(7, let_in=let_in, stranger=True)
        made.serve()
        yield made


@pytest.fixture(scope="module")
def report(town: Townlet) -> dict[str, Any]:
    """One test of them all, with a Slurm that knows three of them."""
    tools = town.folder / "bin"
    put(tools / "sinfo", "#!/bin/sh\necho node01 idle\necho node02 allocated\necho node04 'down*'\n")
    put(tools / "srun", f'#!/bin/sh\necho "$*" >{tools}/asked\necho node01\n')
    done = town.gild("cluster", "test", "@all", "--key", town.key, "--json", path=str(tools))
    assert done.returncode == 1, done.stderr
    assert "Traceback" not in done.stderr and "asking the nodes" in done.stderr
    told: dict[str, Any] = json.loads(done.stdout)
    told["asked"] = (tools / "asked").read_text()
    return told


def put(path: Path, text: str) -> None:
    path.parent.mkdir(exist_ok=True)
    path.write_text(text)
    path.chmod(0o755)


def results(report: dict[str, Any], node: str) -> dict[str, str]:
    found = next(row for row in report["nodes"] if row["name"] == node)
    return {name: check["result"] for name, check in found["checks"].items()}


def text(report: dict[str, Any], node: str, check: str) -> str:
    found = next(row for row in report["nodes"] if row["name"] == node)
    return str(found["checks"][check]["text"])


def test_nodes_that_are_well_pass(report: dict[str, Any]) -> None:
    for node in GOOD:
        found = results(report, node)
        assert {found[name] for name in ("reach", "name", "address", "image", "clock", "hardware", "dns")} == {"pass"}
        assert {found[name] for name in ("write", "to", "from")} == {"pass"}, report["nodes"]
        assert found["units"] == "none"
    speeds = [row["checks"]["to"]["value"] for row in report["nodes"] if row["name"] in GOOD]
    assert all(value > 0 for value in speeds)


def test_one_that_lies_about_its_name_is_found_twice(report: dict[str, Any]) -> None:
    assert text(report, LIAR, "name") == "calls itself 'impostor', not node04"
    assert text(report, "node03", "next") == "reaches a machine as node04 that calls itself 'impostor'"
    assert results(report, "node01")["next"] == results(report, "node02")["next"] == "pass"
    assert results(report, LIAR)["next"] == "pass"  # to node01: those that are not there are left out of the ring


def test_a_dead_one_holds_nobody_up(report: dict[str, Any]) -> None:
    assert results(report, DEAD) == {"reach": "fail"}
    assert text(report, DEAD, "reach") == "does not answer at its address"


def test_one_that_lets_nobody_in_and_one_that_is_another_machine(report: dict[str, Any]) -> None:
    assert results(report, LOCKED) == results(report, STRANGER) == {"reach": "fail"}
    assert text(report, LOCKED, "reach") == "lets none of this head's keys in"
    assert "host key that is not the one it was given" in text(report, STRANGER, "reach")


@pytest.mark.skipif(shutil.which("mpirun") is None, reason="mpirun is not installed")
def test_mpi_says_hello_between_the_nodes(report: dict[str, Any]) -> None:
    assert results(report, "node01")["mpi"] == results(report, "node02")["mpi"] == "pass"
    assert results(report, "node03")["mpi"] == "none" and results(report, LIAR)["mpi"] == "fail"


def test_a_job_runs_where_the_scheduler_has_room(report: dict[str, Any]) -> None:
    found = {node: results(report, node)["job"] for node in (*GOOD, LIAR)}
    assert found == {"node01": "pass", "node02": "none", "node03": "fail", LIAR: "fail"}
    assert text(report, "node03", "job") == "Slurm does not know it"
    assert "--nodelist=node01 " in report["asked"]


def test_all_that_is_left_behind_is_nothing(town: Townlet, report: dict[str, Any]) -> None:
    assert not [name for name in os.listdir("/var/tmp") if name.startswith("gild-test")]
    assert not [name for name in os.listdir("/tmp") if name.startswith("gild-test-")]


def test_for_people(town: Townlet, report: dict[str, Any]) -> None:
    left_out = [word for name in ("write", "read", "to", "from", "mpi", "next", "job") for word in ("--skip", name)]
    well = town.gild("cluster", "test", "node[01-02]", "--key", town.key, *left_out)
    assert well.returncode == 0 and "2 nodes passed" in well.stdout, well.stdout + well.stderr
    assert "✓" in well.stdout and "write" not in well.stdout
    ill = town.gild("cluster", "test", DEAD, LOCKED, "--key", town.key, *left_out)
    assert ill.returncode == 1 and "2 of 2 nodes failed" in ill.stdout
    assert "node06 lets none of this head's keys in\n  → build the image with keys = [" in ill.stdout


def test_what_cannot_be(town: Townlet, report: dict[str, Any]) -> None:
    for words, code, part in (
        (("--key", "/nowhere"), 1, "the key /nowhere cannot be read"),
        (("node99",), 3, "there is no node 'node99'"),
        (("--skip", "reach"), 2, "reach"),
    ):
        done = town.gild("cluster", "test", *words)
        assert done.returncode == code and part in done.stderr, done.stderr
    assert HEAD in str(town.gild("status").stdout)
