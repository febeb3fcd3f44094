from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from appliance import head_hooks, hooks
from appliance.errors import Unknown, Wrong
from appliance.hooks import Hook, Outcome
from netboot.node import Event, Node
from tests.appliance.rack import Rack
from tests.appliance.test_hooks import put


def told(log: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in log.read_text().splitlines()] if log.exists() else []


def working(rack: Rack, happens: Callable[[], object], until: Callable[[], bool]) -> None:
    """Let hooks work until it is so."""

    async def all_of_it() -> None:
        work = asyncio.create_task(rack.head._hooks.work())
        await asyncio.sleep(0)
        happens()
        async with asyncio.timeout(30):
            while not until():
                await asyncio.sleep(0.02)
        await rack.head._hooks.close()
        work.cancel()
        with pytest.raises(asyncio.CancelledError):
            await work

    asyncio.run(all_of_it())


def test_a_node_from_its_first_packet_on(rack: Rack) -> None:
    log = rack.state / "log"
    put(rack.state / "hooks.d", "10-log", f"cat >> {log}; echo >> {log}; echo heard of $1")

    def happens() -> None:
        machine = rack.approved()
        machine.hello()
        rack.head.set([machine.name], name="first")
        rack.head.install(["first"])
        rack.head.cancel(["first"])
        rack.head.remove(["first"])

    working(rack, happens, lambda: len(told(log)) == 6)
    messages = told(log)
    assert [message["event"] for message in messages] == [
        "seen", "approved", "renamed", "ordered", "cancelled", "removed",
    ]  # fmt: skip
    assert messages[0]["before"] is None and messages[0]["node"]["state"] == "waiting"
    assert messages[2]["before"]["name"] == "node01" and messages[2]["node"]["name"] == "first"
    assert messages[1]["head"] == {"address": "10.1.0.1", "domain": "cluster.internal", "state": str(rack.state)}


def test_its_words_stand_on_the_timeline(rack: Rack) -> None:
    put(rack.state / "hooks.d", "approved/10-x", "echo entered as 4711")
    working(
        rack, lambda: rack.approved() and None, lambda: "hook approved/10-x at approved: done" in rack.timeline("1")
    )
    assert "hook approved/10-x: entered as 4711" in rack.timeline("1")


def test_one_that_fails_is_run_again_and_given_up(rack: Rack) -> None:
    rack.head._hooks.pauses = (0.01, 0.01)
    put(rack.state / "hooks.d", "seen/10-bad", "echo no route; exit 1")
    put(rack.state / "hooks.d", "seen/20-good")
    working(rack, lambda: rack.machine().boot() and None, lambda: "20-good at seen: done" in rack.timeline("1"))
    text = rack.timeline("1")
    assert text.count("hook seen/10-bad at seen: failed (1)") == 3
    assert text.count("; again in") == 2 and text.count("; given up") == 1


def test_one_that_hangs_holds_up_its_own_node_alone(rack: Rack, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hooks, "LOOK", 0.01)
    log = rack.state / "log"
    put(rack.state / "hooks.d", "10-log", f'read x; case "$x" in *:01*) sleep 300;; esac; echo "$x" >> {log}')

    def happens() -> None:
        rack.machine(1).boot()
        rack.machine(2).boot()

    working(rack, happens, lambda: len(told(log)) == 1)
    assert told(log)[0]["node"]["mac"].endswith(":02")


def test_what_waits_is_bounded(rack: Rack, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(head_hooks, "MOST", 2)
    log = rack.state / "log"
    put(rack.state / "hooks.d", "10-log", f'read -r x; echo "$x" >> {log}')
    for number in (1, 2, 3):
        rack.machine(number).boot()
    assert "no hook is told of seen: more than 2 events wait" in rack.timeline("1")
    assert "no hook" not in rack.timeline("2") + rack.timeline("3")
    assert rack.head.status()["hooks"] == {"waiting": 2, "telling": 0, "dropped": 1}
    working(rack, lambda: None, lambda: not rack.head.status()["hooks"]["waiting"] and len(told(log)) == 2)
    assert sorted(message["node"]["id"] for message in told(log)) == [2, 3]


def test_a_storm(rack: Rack, monkeypatch: pytest.MonkeyPatch) -> None:
    """5,000 machines at once, with a hook that takes its time: the last are told of, in order, and nothing grows."""
    ran: list[bytes] = []
    most = [0, 0]

    def played(hook: Hook, event: str, message: bytes, stop: threading.Event, state: str) -> Outcome:
        ran.append(message)
        return Outcome("", (), 0.0)

    monkeypatch.setattr(hooks, "run_hook", played)
    put(rack.state / "hooks.d", "10-x")

    def happens() -> None:
        for number in range(1, 5001):
            rack.head._hooks.heard(None, Node(number), None)
            rack.head._hooks.heard(Node(number), Node(number), Event.EXPIRED)
            counts = rack.head._hooks.counts()
            most[:] = max(most[0], counts["waiting"]), max(most[1], counts["telling"])

    working(rack, happens, lambda: len(ran) == head_hooks.MOST and not rack.head._hooks.counts()["telling"])
    assert most[0] == head_hooks.MOST and most[1] <= head_hooks.STARTED
    assert rack.head._hooks.counts() == {"waiting": 0, "telling": 0, "dropped": 10_000 - head_hooks.MOST}
    events = [json.loads(message) for message in ran]
    assert {each["node"]["id"] for each in events} == set(range(4501, 5001))
    for number in (4501, 4777, 5000):
        assert [each["event"] for each in events if each["node"]["id"] == number] == ["seen", "expired"]


def test_whatever_goes_wrong_the_head_serves(rack: Rack, monkeypatch: pytest.MonkeyPatch) -> None:
    log = rack.state / "log"
    good, calls = hooks.run_hook, iter(range(9))

    def played(*given: Any, **named: Any) -> Outcome:
        if next(calls) == 0:
            raise ValueError("nobody thought of this")
        return good(*given, **named)

    monkeypatch.setattr(hooks, "run_hook", played)
    put(rack.state / "hooks.d", "10-log", f"cat >> {log}; echo >> {log}")

    def happens() -> None:
        rack.machine(1).boot()
        rack.machine(2).boot()

    working(rack, happens, lambda: len(told(log)) == 1)


def test_without_hooks_nothing_waits(rack: Rack) -> None:
    put(rack.state / "hooks.d", "up/10-x")
    rack.machine().boot()
    assert rack.head._hooks.counts()["waiting"] == 0


def test_what_a_hook_would_be_told(rack: Rack) -> None:
    rack.approved()
    message = rack.head.hook_message("up", "node01")
    assert message["event"] == "up" and message["node"]["name"] == "node01" and message["trial"]
    assert rack.head.hook_message("up")["node"]["name"] == "example"
    with pytest.raises(Wrong, match="no event 'upp'"):
        rack.head.hook_message("upp", "node01")
    with pytest.raises(Unknown):
        rack.head.hook_message("up", "node09")
    rack.approved(2)
    with pytest.raises(Unknown, match="are 2 nodes"):
        rack.head.hook_message("up", "@all")
