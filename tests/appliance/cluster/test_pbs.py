"""Plans for OpenPBS, and the commands as a stand-in for qmgr records them: Debian has no OpenPBS."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from appliance.cluster import pbs
from appliance.cluster.apply import Here, apply
from appliance.cluster.pbs import Seen, Vnode
from appliance.cluster.services import SERVICES, Wanted
from appliance.errors import Wrong
from images.errors import CommandFailed
from tests.appliance.cluster.test_inventory import CLUSTER

# Keeps what a server would keep of these directives: which nodes there are, and their mark.
QMGR = """\
#!/bin/sh
echo "$2" >> {log}
set -- $2
case "$1 $2" in
"list server") exit 0;;
"list resource") [ -e {folder}/resource ];;
"create resource") touch {folder}/resource;;
"create node") echo > {folder}/nodes/$3;;
"set node") [ -e {folder}/nodes/$3 ] && echo "${{4#*=}}" > {folder}/nodes/$3;;
"delete node") rm {folder}/nodes/$3;;
*) echo "qmgr: Syntax error" >&2; exit 1;;
esac
"""
PBSNODES = """\
#!/bin/sh
[ -n "$(ls {folder}/nodes)" ] || {{ echo 'pbsnodes: Server has no node list' >&2; exit 1; }}
echo '{{"nodes":{{'; comma=
for file in {folder}/nodes/*; do
  echo "$comma\\"${{file##*/}}\\":{{\\"resources_available\\":{{\\"gild\\":\\"$(cat $file)\\"}}}}"; comma=,
done
echo '}}}}'
"""


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "nodes").mkdir()
    for name, text in (("qmgr", QMGR), ("pbsnodes", PBSNODES)):
        (tmp_path / name).write_text(text.format(folder=tmp_path, log=tmp_path / "log"))
        (tmp_path / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    return tmp_path


def test_nodes_come_and_go(server: Path) -> None:
    here = Here()
    apply(SERVICES["pbs"](CLUSTER, here, Wanted()), here)
    assert (server / "log").read_text().splitlines()[2:] == [
        "create resource gild type=string,flag=h",
        "create node node01 Mom=node01.cluster.internal", "set node node01 resources_available.gild=compute",
        "create node node02 Mom=node02.cluster.internal", "set node node02 resources_available.gild=compute",
        "create node store1 Mom=store1.cluster.internal", "set node store1 resources_available.gild=storage",
    ]  # fmt: skip
    assert not SERVICES["pbs"](CLUSTER, here, Wanted()).needed
    apply(SERVICES["pbs"](CLUSTER.only(["node01"]), here, Wanted()), here)
    assert sorted(os.listdir(server / "nodes")) == ["node01"]


def test_a_server_that_does_not_answer(server: Path) -> None:
    (server / "qmgr").write_text("#!/bin/sh\necho 'qmgr: cannot connect to server head' >&2\nexit 2\n")
    with pytest.raises(CommandFailed, match=r"asking qmgr: qmgr failed .*cannot connect to server head"):
        SERVICES["pbs"](CLUSTER, Here(), Wanted())


def test_nodes_of_others_are_left_alone() -> None:
    seen = Seen({"node01": Vnode(), "theirs": Vnode(), "old": Vnode(mark="compute"), "node02": Vnode(mark="x")}, True)
    change = pbs.plan(CLUSTER.only(["node01", "node02"]), seen)
    assert [command.argv[2] for command in change.commands] == [
        "set node node02 resources_available.gild=compute", "delete node old",
    ]  # fmt: skip
    assert change.notes == ("node01 was not made by gild: left as it is",)


def test_reading_pbsnodes() -> None:
    text = json.dumps({"nodes": {"n1": {"Mom": "n1.c", "jobs": ["1.head/0"], "resources_available": {"gild": "a"}}}})
    assert pbs.nodes_shown(text) == {"n1": Vnode("n1.c", "a", ("1.head/0",))}
    assert pbs.nodes_shown("") == {}
    for bad in ("{", "[]", '{"nodes": [1]}', '{"nodes": {"a": 1}}'):
        with pytest.raises(Wrong, match="pbsnodes does not print"):
            pbs.nodes_shown(bad)
