from __future__ import annotations

import json
from collections.abc import Callable, Iterator

import pytest

from appliance.cli.main import run
from tests.appliance.cluster.daemons import head_with_nodes
from tests.appliance.process import Served, wait_for
from tests.appliance.test_hooks import put

Say = Callable[..., tuple[int, str, str]]
pytestmark = pytest.mark.root


@pytest.fixture(scope="module")
def head() -> Iterator[Served]:
    with head_with_nodes() as served:
        yield served


@pytest.fixture
def say(head: Served, capsys: pytest.CaptureFixture[str]) -> Say:
    def call(*arguments: str) -> tuple[int, str, str]:
        capsys.readouterr()
        code = run(["--state", str(head.state), *arguments])
        said = capsys.readouterr()
        return code, said.out, said.err

    return call


def test_listed_run_by_hand_and_by_the_head(say: Say, head: Served) -> None:
    code, out, _ = say("hook", "list")
    assert code == 0 and "there is no hook in" in out and "approved" in out
    log = head.state / "hook.log"
    put(head.paths.hooks, "renamed/10-log", f"cat >> {log}; echo >> {log}; echo heard")
    put(head.paths.hooks, "20-off", mode=0o644)
    rows = json.loads(say("hook", "list", "--json")[1])["hooks"]
    assert [(row["name"], bool(row["problem"])) for row in rows] == [("renamed/10-log", False), ("20-off", True)]

    for name, node in (("renamed", "node01"), ("renamed/10-log", "node01"), ("renamed/10-log", "")):
        code, out, _ = say("hook", "run", name, *(["--node", node] if node else []))
        assert code == 0 and out.splitlines()[0] == "renamed/10-log: heard" and "done after" in out
        message = json.loads(log.read_text())
        assert (message["node"]["name"], message["event"], message["trial"]) == (node or "example", "renamed", True)
        log.unlink()

    assert say("node", "set", "node01", "--name", "first")[0] == 0
    wait_for(log.exists)
    wait_for(lambda: "hook renamed/10-log at renamed: done" in say("node", "log", "first")[1])
    message = json.loads(log.read_text())
    assert (message["before"]["name"], message["node"]["name"], message["trial"]) == ("node01", "first", False)
    assert "hooks" not in say("status")[1] and json.loads(say("status", "--json")[1])["hooks"]["dropped"] == 0


def test_what_is_not_there(say: Say, head: Served) -> None:
    assert say("hook", "run", "up", "--node", "node02")[0] == 3
    assert say("hook", "run", "upp")[0] == 3
    put(head.paths.hooks, "lost/10-bad", "echo no; exit 4")
    assert say("hook", "run", "lost", "--node", "node09")[0] == 3
    code, out, err = say("hook", "run", "lost", "--node", "node02")
    assert code == 1 and "lost/10-bad: failed (4) after" in out and "1 of 1 failed" in err
    code, _, err = say("hook", "run", "lost/10-bad", "--event", "up")
    assert code == 1 and "lost/10-bad is run at lost alone" in err
    put(head.paths.hooks, "30-off", mode=0o644)
    code, out, _ = say("hook", "run", "30-off", "--event", "up")
    assert code == 1 and "30-off: is not executable" in out


def test_a_hook_that_hangs_does_not_hold_up_the_end(head: Served) -> None:
    put(head.paths.hooks, "changed/10-hang", f"touch {head.state}/begun; sleep 300")
    head.client.post("nodes", "set", refs=["node02"], group=["x"])
    wait_for((head.state / "begun").exists)
    assert head.stop() == 0
    head.start()
