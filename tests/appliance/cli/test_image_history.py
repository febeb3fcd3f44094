"""gild image log, diff, tag, rollback on a store of three versions; a head that serves is played by a function."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from appliance.cli.client import Client
from appliance.cli.main import run
from appliance.errors import NotServing
from images.editing.edit import edit
from images.options import Options
from images.store import Store
from images.working import publish_tree
from tests.images.tinytree import tiny_tree

Say = Callable[..., tuple[int, str, str]]
pytestmark = [pytest.mark.root, pytest.mark.skipif(os.geteuid() != 0, reason="needs root")]

DPKG = "Package: {}\nStatus: install ok installed\nVersion: {}\n\n"


@pytest.fixture(scope="module")
def state(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """x:1, x:2 edited from it, x:3 edited from x:1; y:1."""
    path = tmp_path_factory.mktemp("history")
    store = Store(path / "state/store")
    tree = tiny_tree(path / "tree")
    (tree / "var/lib/dpkg").mkdir()
    (tree / "var/lib/dpkg/status").write_text(DPKG.format("bash", "5.2") + DPKG.format("gone", "1"))
    with store.lineage_lock("x"):
        publish_tree(store, "x", tree, Options(message="first"), source={"kind": "test"})

    def second(root: Path) -> None:
        (root / "var/lib/dpkg/status").write_text(DPKG.format("bash", "5.3") + DPKG.format("new", "7"))
        (root / "usr/lib/large").write_bytes(os.urandom(1 << 20))
        (root / "etc/[odd]\n").touch()

    def third(root: Path) -> None:
        for number in range(60):
            (root / f"etc/{number}").touch()

    assert edit(store, "x", second, Options(message="second [one]")) is not None
    assert edit(store, "x:1", third, Options()) is not None
    with store.lineage_lock("y"):
        publish_tree(store, "y", tiny_tree(path / "other", seed=2))
    return path / "state"


@pytest.fixture
def say(state: Path, capsys: pytest.CaptureFixture[str]) -> Say:
    """Run a verb: exit code, output, error output."""

    def call(*arguments: str) -> tuple[int, str, str]:
        capsys.readouterr()
        code = run(["--state", str(state), "image", *arguments])
        said = capsys.readouterr()
        return code, said.out, said.err

    return call


@pytest.fixture
def serving(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Play a head whose nodes are up with these images."""

    def nodes(*images: str) -> None:
        rows = [{"state": "up", "image": image} for image in images] + [{"state": "failed", "image": "x:1"}]
        monkeypatch.setattr(Client, "get", lambda self, *parts: rows if parts == ("nodes",) else None)

    return nodes


def as_json(said: tuple[int, str, str]) -> Any:
    assert said[0] == 0, said[2]
    return json.loads(said[1])


def test_the_log_names_parents_and_what_is_new(say: Say, serving: Callable[..., None]) -> None:
    rows = as_json(say("log", "x", "--json"))
    assert [(row["version"], row["parent"], row["source"], row["tagged"]) for row in rows] == [
        (3, 1, "edit", False),
        (2, 1, "edit", False),
        (1, 0, "test", True),
    ]
    third, second, first = (row["new"] for row in rows)
    assert 1 << 20 < second < 2 << 20 and third < 1 << 20 and first > 0
    serving("x:1", "x:1", "x:2", "y:1")
    page = [line.split() for line in say("log", "x")[1].splitlines()]
    assert [line[:2] for line in page if line[0][:2] == "x:"][:2] == [["x:3", "x:1"], ["x:2", "x:1"]]
    assert next(line for line in page if line[0] == "x:1")[1:3] == ["●", "2"]
    assert "second [one]" in say("log", "x")[1] and "y:1" not in say("log", "x")[1]
    assert say("log", "none")[0] == 3


def test_a_diff_tells_files_packages_and_cost(say: Say) -> None:
    code, out, _ = say("diff", "x:1", "x:2")
    assert code == 0
    for words in (
        "  + /etc/[odd]\\x0a",
        "  ~ /var/lib/dpkg/status  (size 112 to 111)",
        "  + new 7",
        "  - gone 1",
        "  ~ bash 5.2 to 5.3",
        "1 files changed, 2 added, 0 removed",
        "from x:1 to x:2 a node fetches 1.",
    ):
        assert words in out, out
    assert say("diff", "x:2")[1] == out  # its parent


def test_a_long_diff_is_cut_and_whole_on_request(say: Say) -> None:
    out = say("diff", "x:1", "x:3")[1]
    assert "  and 20 more; all of them: --files" in out and len(out.splitlines()) < 50
    whole = say("diff", "x:1", "x:3", "--files")[1]
    assert whole.count("  + /etc/") == 60 and "0 files changed, 60 added" in whole and "more" not in whole


def test_a_diff_for_scripts(say: Say) -> None:
    told = as_json(say("diff", "x:2", "x:1", "--json"))
    assert told["packages"] == {"added": {"gone": "1"}, "removed": {"new": "7"}, "changed": {"bash": ["5.3", "5.2"]}}
    assert told["files"] == {"added": 0, "changed": 1, "removed": 2}
    assert {"path": "/usr/lib/large", "how": "removed", "what": []} in told["changes"]
    assert told["cost"]["kept"] > 0 and told["kernels"]["before"] == told["kernels"]["after"] == ["6.1.0-9-test"]
    assert len(as_json(say("diff", "x:1", "x:3", "--json"))["changes"]) == 40
    assert len(as_json(say("diff", "x:1", "x:3", "--json", "--files"))["changes"]) == 60


def test_a_diff_of_two_images(say: Say) -> None:
    code, out, _ = say("diff", "x:1", "y")
    assert code == 0 and "packages: unknown" in out and "/boot/vmlinuz-6.1.0-9-test  (content)" in out


def test_a_diff_with_nothing_to_compare(say: Say) -> None:
    code, _, err = say("diff", "x:1")
    assert code == 3 and "no parent" in err
    assert say("diff", "x:1", "none")[0] == 3
    assert "0 files changed, 0 added" in say("diff", "x:1", "x:1")[1]


def test_the_tag_goes_forth_and_back(say: Say, state: Path, serving: Callable[..., None]) -> None:
    store = Store(state / "store")
    code, _, err = say("rollback", "x")
    assert code == 3 and "never got another version" in err
    assert say("tag", "x:2")[1] == "nodes get x:2 from now on, and no more x:1\n"
    serving("x:1", "x:1", "x:2", "y:1")
    out = say("tag", "x:3")[1]
    assert out.splitlines() == [
        "nodes get x:3 from now on, and no more x:2",
        "  2 nodes are up with x:1, until installed again",
        "  1 node is up with x:2, until installed again",
    ]
    assert say("rollback", "x")[1].startswith("nodes get x:2 from now on, and no more x:3\n")
    assert say("rollback", "x")[1].startswith("nodes get x:1 from now on, and no more x:2\n")
    assert say("rollback", "x")[0] == 3 and store.tag("x") == 1
    assert say("tag", "x:9")[0] == 3 and say("rollback", "none")[0] == 3


def test_without_a_head_no_nodes_are_told(say: Say, monkeypatch: pytest.MonkeyPatch) -> None:
    def silent(self: Client, *parts: str) -> None:
        raise NotServing("nobody is there")

    monkeypatch.setattr(Client, "get", silent)
    assert say("tag", "x:1") == (0, "nodes get x:1 from now on\n", "")
