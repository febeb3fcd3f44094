from __future__ import annotations

import os
import threading
from dataclasses import replace
from pathlib import Path

import pytest

from appliance import hooks
from appliance.hooks import EVENTS, Hook, happened, run_hook
from netboot.node import Event, Node, State

NODE = Node(1, State.READY, name="node01", address="10.1.0.11", profile="default")


def put(folder: Path, name: str, text: str = "", mode: int = 0o755) -> Path:
    path = folder / name
    path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
    path.parent.chmod(0o755)  # whatever the umask of whoever tests
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(mode)
    return path


def run(path: Path, *, seconds: float = 20.0, stop: threading.Event | None = None) -> hooks.Outcome:
    return run_hook(Hook(path, "up"), "up", b'{"a": 1}', stop or threading.Event(), seconds, state="/state")


def test_which_are_hooks_and_in_which_order(tmp_path: Path) -> None:
    for name in ("20-all", "up/10-up", "up/30-up", "failed/05-f", "up/x~", "up/.x", "up/x.bak", "other/10-x"):
        put(tmp_path, name)
    put(tmp_path, "up/40-no", mode=0o644)
    put(tmp_path, "up/50-open", mode=0o777)
    assert [hook.name for hook in hooks.found(tmp_path)] == [
        "failed/05-f", "up/10-up", "20-all", "up/30-up", "up/40-no", "up/50-open", "other",
    ]  # fmt: skip
    problems = {hook.name: hook.problem for hook in hooks.found(tmp_path) if hook.problem}
    assert list(problems) == ["up/40-no", "up/50-open", "other"]
    assert "chmod +x" in problems["up/40-no"] and "others than root" in problems["up/50-open"]
    assert "no event is called that" in problems["other"]
    assert hooks.found(tmp_path / "none") == []


@pytest.mark.root
def test_what_others_may_change_is_not_run(tmp_path: Path) -> None:
    mark = tmp_path / "mark"
    path = put(tmp_path / "hooks.d", "up/10-x", f"touch {mark}")
    assert hooks.problem(path) == ""
    os.chown(path, 65534, 0)
    assert hooks.problem(path) == "can be changed by others than root: chown root, chmod go-w"
    assert run(path).why == hooks.problem(path) and not mark.exists()
    os.chown(path, 0, 0)
    for folder in (path.parent, path.parent.parent):
        os.chown(folder, 65534, 0)
        assert hooks.problem(path).endswith(f"chmod go-w {folder}")
        os.chown(folder, 0, 0)
    path.parent.chmod(0o775)
    assert hooks.problem(path).endswith(f"chmod go-w {path.parent}")


@pytest.mark.root
def test_links(tmp_path: Path) -> None:
    folder = tmp_path / "hooks.d"
    path, elsewhere = put(folder, "10-x"), put(tmp_path / "elsewhere", "tool")
    path.unlink()
    path.symlink_to(elsewhere)
    assert hooks.problem(path) == ""
    elsewhere.parent.chmod(0o777)
    assert hooks.problem(path) == f"can be replaced by others than root: chown root, chmod go-w {elsewhere.parent}"
    for name, to, why in (("20-x", "20-x", ""), ("30-x", "nothing", "No such file"), ("40-x", "/dev/null", "chmod +x")):
        (folder / name).symlink_to(to)
        assert why in hooks.problem(folder / name) and hooks.problem(folder / name)
    assert [hook.name for hook in hooks.found(folder)] == ["10-x", "20-x", "30-x", "40-x"]


def test_nothing_of_the_head_s_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GILD_SECRET", "word")
    lines = run(put(tmp_path, "h", "env")).lines
    assert {line.partition("=")[0] for line in lines} - {"PWD", "SHLVL", "_", "OLDPWD"} == {
        "PATH", "HOME", "LC_ALL", "GILD_STATE",
    }  # fmt: skip


def test_what_it_gets(tmp_path: Path) -> None:
    outcome = run(put(tmp_path, "h", 'cat; echo; echo "$1 $GILD_STATE"; printf "\\033[31mred\\n" >&2'))
    assert outcome.why == "" and outcome.lines == ('{"a": 1}', "up /state", "?[31mred")


def test_failures_have_words(tmp_path: Path) -> None:
    assert run(put(tmp_path, "h", "exit 3")).why == "failed (3)"
    path = tmp_path / "j"
    path.write_text("#!/no/such/interpreter\n")
    path.chmod(0o755)
    assert "j cannot be started" in run(path).why
    assert "No such file" in run(tmp_path / "none").why


def test_one_that_hangs_is_ended_with_its_children(tmp_path: Path) -> None:
    mark = tmp_path / "mark"
    outcome = run(put(tmp_path, "h", f"(sleep 300; touch {mark}) & echo $!; wait"), seconds=0.3)
    assert outcome.why == "did not end within 0 s and was ended" and outcome.seconds < 10
    child = Path(f"/proc/{outcome.lines[0]}/stat")
    assert not child.exists() or child.read_text().split(")")[1].split()[0] == "Z"
    stop = threading.Event()
    stop.set()
    assert run(put(tmp_path, "h", "sleep 300"), stop=stop).why == "was ended, as the head stops"


def test_output_is_bounded(tmp_path: Path) -> None:
    outcome = run(put(tmp_path, "h", "yes | head -n 100000; head -c 1000000 /dev/zero"))
    assert outcome.why == "" and len(outcome.lines) == hooks.MOST_LINES + 1
    assert outcome.lines[-1] == "(more is left out)" and max(map(len, outcome.lines)) <= 500


@pytest.mark.parametrize(
    ("before", "after", "event", "name"),
    [
        (None, Node(1), None, "seen"), (NODE, None, None, "removed"),
        (Node(1), Node(1), Event.HELLO, "waiting"), (NODE, NODE, Event.HELLO, ""),
        (Node(1), NODE, Event.APPROVED, "approved"), (NODE, NODE, Event.APPROVED, ""),
        (NODE, NODE, Event.ORDERED, "ordered"), (NODE, NODE, Event.CANCELLED, "cancelled"),
        (NODE, NODE, Event.EXPIRED, "expired"),
        (NODE, replace(NODE, state=State.INSTALLING), Event.PLAN_TAKEN, "installing"),
        (NODE, NODE, Event.PROGRESS, ""), (NODE, NODE, Event.SEEN, ""),
        (NODE, replace(NODE, state=State.UP), Event.CALLED_HOME, "up"),
        (NODE, replace(NODE, state=State.CAPTURING), Event.CAPTURE, "capturing"),
        (replace(NODE, state=State.CAPTURING), NODE, Event.FINISHED, ""),
        (NODE, replace(NODE, name="x1"), None, "renamed"), (NODE, replace(NODE, address="10.1.0.9"), None, "renamed"),
        (NODE, replace(NODE, profile="x"), None, "changed"), (NODE, replace(NODE, groups=("x",)), None, "changed"),
        (NODE, replace(NODE, last_seen=5.0), None, ""), (Node(1), replace(Node(1), address="10.1.0.9"), None, ""),
    ],
)  # fmt: skip
def test_what_happened(before: Node | None, after: Node | None, event: Event | None, name: str) -> None:
    assert happened(before, after, event) == name
    assert name == "" or name in EVENTS
