"""A node is renamed and readdressed, and its running system is told: a real head, and real sshd's with an /etc each."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from tests.appliance.acceptance.test_run import MISSING
from tests.appliance.acceptance.townlet import Townlet, address, townlet
from tests.netboot.lan import needs_root

pytestmark = [*needs_root, pytest.mark.skipif(bool(MISSING), reason=f"not installed: {', '.join(MISSING)}")]


@pytest.fixture(scope="module")
def town() -> Iterator[Townlet]:
    with townlet() as made:
        made.journal(3)
        let_in = made.key_pair(made.folder / "id") + made.key_pair(made.folder / "ring")
        made.node(1, let_in=let_in)
        made.node(2, let_in=let_in, stranger=True)
        made.serve()
        yield made


def test_a_new_name_and_a_new_address(town: Townlet) -> None:
    own = town.folder / "n1/etc"
    (own / "hosts").write_text(f"127.0.0.1 localhost\n{address(1)} node01.cluster.internal node01\n10.9.9.9 nas\n")
    shown = town.gild("node", "tell", "node01", "--key", town.key, "--json", "--preview")
    assert shown.returncode == 0, shown.stderr
    (row,) = json.loads(shown.stdout)
    assert row["at"] == address(1) and not row["told"] and (own / "hostname").read_text() == "node01\n"

    set_ = town.gild("node", "set", "node01", "--name", "db1")
    assert set_.returncode == 0 and "gild.pyz node tell db1" in set_.stdout, set_.stderr
    before = {path: path.read_bytes() for path in own.rglob("*") if path.is_file() and not path.is_symlink()}
    refused = town.gild("node", "tell", "db1", "--key", town.key, "--no-restart")
    assert refused.returncode and "add --yes" in refused.stderr
    assert {path: path.read_bytes() for path in before} == before, "nothing was written"

    told = town.gild("node", "tell", "db1", "--key", town.key, "--no-restart", "--yes")
    assert told.returncode == 0, told.stdout + told.stderr
    assert "db1 was told" in told.stdout and "restarts" not in told.stdout
    assert (own / "hostname").read_text() == "db1\n"
    hosts = (own / "hosts").read_text()
    assert f"{address(1)}\tdb1.cluster.internal db1" in hosts and "node01" not in hosts and "10.9.9.9 nas" in hosts
    assert not list(own.parent.rglob("gild-tell*"))
    changed = {path.name for path, text in before.items() if path.read_bytes() != text}
    assert "shadow" not in changed and "sshd_config" not in changed
    again = town.gild("node", "tell", "db1", "--key", town.key, "--no-restart", "--yes")
    assert again.returncode == 0 and "nothing: it knows" in again.stdout
    log = town.gild("node", "log", "db1").stdout
    assert "its system was told that it is db1" in log and "hostname db1" in log
    assert "telling" in town.gild("audit").stdout

    # It is to have another address, where nobody answers, and is found where it was told that it is.
    assert town.gild("node", "set", "db1", "--address", "10.78.0.200").returncode == 0
    moved = town.gild("node", "tell", "db1", "--key", town.key, "--yes", "--no-restart")
    assert moved.returncode == 0 and address(1) in moved.stdout, moved.stdout + moved.stderr
    hosts = (own / "hosts").read_text()
    assert "10.78.0.200\tdb1.cluster.internal db1" in hosts and address(1) not in hosts


def test_another_machine_at_its_address_is_told_nothing(town: Townlet) -> None:
    own = town.folder / "n2/etc/hostname"
    said = town.gild("node", "tell", "node02", "--key", town.key, "--yes", "--no-restart")
    assert said.returncode == 1 and "node02" in said.stdout and own.read_text() == "node02\n"
    assert "shows a host key that is not the one it was given" in " ".join(said.stdout.split())


def test_one_that_is_off_does_not_hold_up_the_others(town: Townlet) -> None:
    said = town.gild("node", "tell", "node02", "node03", "--key", town.key, "--json", "--preview")
    rows = {row["node"]: row for row in json.loads(said.stdout)}
    assert said.returncode == 1 and rows["node02"]["trouble"]
    assert f"at {address(3)} does not answer at its address" in rows["node03"]["trouble"]
