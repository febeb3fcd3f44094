"""The setting `services` with a real head, whose /etc is one of its own."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from appliance.cli.main import run
from netboot.report import HELLO, Facts, Hello
from netboot.wire import encode
from tests.appliance.cluster.daemons import head_with_nodes
from tests.appliance.process import MAC, PROGRAM, Served, wait_for

pytestmark = pytest.mark.root
FLAGS = ("--services", "hosts,genders,ansible")


@pytest.fixture
def etc(tmp_path: Path) -> Path:
    folder = tmp_path / "etc"
    (folder / "ansible").mkdir(parents=True)
    (folder / "hosts").write_text("127.0.0.1 localhost\n")
    return folder


@pytest.fixture
def head(etc: Path) -> Iterator[Served]:
    # `ip netns exec` gives a mount namespace of its own: only this head sees what is mounted there.
    program = ("sh", "-ec", 'mount --bind "$0" /etc; exec "$@"', str(etc), *PROGRAM)
    with head_with_nodes("rack1", program, FLAGS) as served:
        yield served


def said(head: Served) -> dict[str, dict[str, Any]]:
    return {row["name"]: row for row in head.client.get("status")["services"]}


def test_files_follow_by_themselves(head: Served, etc: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def gild(*words: str) -> str:
        capsys.readouterr()
        assert run(["--state", str(head.state), *words]) == 0, capsys.readouterr().err
        return capsys.readouterr().out

    def has(name: str, *lines: str) -> bool:
        return (etc / name).exists() and all(line in (etc / name).read_text() for line in lines)

    wait_for(lambda: has("hosts", "10.77.0.31\tnode01.", "10.77.0.32\tnode02.", "127.0.0.1 localhost"))
    wait_for(lambda: has("genders", "node01") and has("ansible/hosts", "node02"))
    wait_for(lambda: all(row["ok"] and row["text"] == "told of 2 nodes" for row in said(head).values()))

    gild("node", "set", "node01", "--name", "first", "--address", "10.77.0.41")
    gild("node", "set", "node02", "--group", "gpu")
    # One file after the other.
    wait_for(lambda: has("hosts", "10.77.0.41\tfirst.") and has("genders", "first", "gpu"))
    wait_for(lambda: has("ansible/hosts", "first", "[gpu]"))
    assert not has("hosts", "node01")

    head.source = head.dhcp()
    assert head.tls(HELLO, encode(Hello(MAC, Facts(vendor="Acme")))).status == 200
    gild("node", "rm", "node02", "--yes")
    gild("node", "approve", "--all", "--name", "fresh")
    wait_for(lambda: has("hosts", "fresh.") and has("ansible/hosts", "fresh"))
    wait_for(lambda: not has("hosts", "node02") and not has("genders", "node02"))

    # What a person has changed in gild's lines is theirs; the others follow, and status says which one does not.
    (etc / "hosts").write_text((etc / "hosts").read_text().replace("10.77.0.41", "10.77.0.42"))
    gild("node", "set", "fresh", "--group", "rack9", "--name", "second")
    wait_for(lambda: has("genders", "second"))
    wait_for(lambda: not said(head)["hosts"]["ok"] and said(head)["genders"]["ok"])
    assert has("hosts", "10.77.0.42", "fresh") and "by hand" in said(head)["hosts"]["text"]
    assert "by hand" in gild("status") and said(head)["genders"]["ok"]
    assert json.loads(gild("node", "list", "--json"))


def test_a_head_that_starts_tells_what_changed_meanwhile(head: Served, etc: Path) -> None:
    wait_for(lambda: "node02" in (etc / "hosts").read_text())
    assert head.stop() == 0
    (etc / "hosts").write_text("127.0.0.1 localhost\n")
    head.start(*FLAGS)
    wait_for(lambda: "node02" in (etc / "hosts").read_text())
    assert (etc / "hosts").read_text().startswith("127.0.0.1 localhost\n")
