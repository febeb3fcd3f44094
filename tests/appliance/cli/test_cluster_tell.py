from __future__ import annotations

import json
import stat
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from appliance.cli.main import run
from tests.appliance.cluster.daemons import head_with_nodes
from tests.appliance.process import Served

Say = Callable[..., tuple[int, str, str]]
pytestmark = pytest.mark.root


@pytest.fixture(scope="module")
def head() -> Iterator[Served]:
    with head_with_nodes() as served:
        yield served


@pytest.fixture
def say(head: Served, capsys: pytest.CaptureFixture[str]) -> Say:
    def call(*arguments: str | Path) -> tuple[int, str, str]:
        capsys.readouterr()
        code = run(["--state", str(head.state), "cluster", *map(str, arguments)])
        said = capsys.readouterr()
        return code, said.out, said.err

    return call


def test_hosts_shown_written_and_right(say: Say, tmp_path: Path) -> None:
    path = tmp_path / "hosts"
    path.write_text("127.0.0.1 localhost\n")
    code, out, _ = say("hosts", "--conf", path, "--dry-run")
    assert code == 0 and "+10.77.0.31\tnode01.cluster.internal node01\n" in out
    assert path.read_text() == "127.0.0.1 localhost\n"
    assert say("hosts", "--conf", path)[:2] == (0, f"{path} written\n")
    assert "10.77.0.32\tnode02.cluster.internal node02\n" in path.read_text()
    assert say("hosts", "--conf", path) == (0, "hosts: nothing to do\n", "")
    said = json.loads(say("hosts", "--conf", path, "--nodes", "node01", "--json", "--dry-run")[1])
    assert said["changed"] and not said["done"] and "-10.77.0.32" in said["files"][0]["diff"]
    assert json.loads(say("hosts", "--conf", path, "--json")[1])["changed"] is False


def test_lines_changed_by_hand(say: Say, tmp_path: Path) -> None:
    path = tmp_path / "genders"
    say("genders", "--conf", path, "--nodes", "node01")
    path.write_text(path.read_text().replace("node01", "node1"))
    code, out, _ = say("genders", "--conf", path, "--dry-run")
    assert code == 0 and "somebody has changed gild's lines by hand; --take overwrites them" in out
    code, _, err = say("genders", "--conf", path)
    assert code == 1 and f"{path}: somebody has changed gild's lines by hand" in err and "node1\t" in path.read_text()
    assert say("genders", "--conf", path, "--take")[0] == 0 and "node1\t" not in path.read_text()


def test_a_system_below_a_root(say: Say, tmp_path: Path) -> None:
    (tmp_path / "etc/clustershell/groups.d").mkdir(parents=True)
    for service in ("hosts", "ansible", "genders", "slurm"):
        assert say(service, "--root", tmp_path)[0] == 0
        assert say(service, "--root", tmp_path)[1].splitlines()[-1] == f"{service}: nothing to do"
    written = sorted(str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if path.is_file())
    assert written == [
        "etc/ansible/hosts", "etc/clustershell/groups.d/gild.yaml", "etc/genders", "etc/hosts",
        "etc/slurm/gild-nodes.conf", "etc/slurm/slurm.conf",
    ]  # fmt: skip
    code, _, err = say("sge", "--root", tmp_path)
    assert code == 1 and "on a machine that runs" in err


def test_a_dynamic_inventory(say: Say) -> None:
    code, out, _ = say("ansible", "--list", "--nodes", "@compute")
    assert code == 0 and json.loads(out)["compute"] == {"hosts": ["node01", "node02"]}


def test_the_key_of_munge(say: Say, tmp_path: Path) -> None:
    code, out, _ = say("slurm", "--munge-key", "--root", tmp_path)
    key = tmp_path / "etc/munge/munge.key"
    assert code == 0 and f"{key} is made" in out and "gild.pyz secret set munge.key --profile PROFILE" in out
    assert len(key.read_bytes()) == 1024 and stat.S_IMODE(key.stat().st_mode) == 0o400
    before = key.read_bytes()
    assert "is there" in say("slurm", "--munge-key", "--root", tmp_path)[1] and key.read_bytes() == before


def test_nodes_nobody_knows(say: Say) -> None:
    code, _, err = say("hosts", "--nodes", "node77", "--dry-run")
    assert code == 3 and "no node 'node77'" in err
