from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from appliance import head_hooks, hooks
from appliance.errors import Unknown, Wrong
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
    put(rack.state / "hooks.d", "10-x")
    for number in (1, 2, 3):
        rack.machine(number).boot()
    assert "no hook is told of seen: 2 events wait already" in rack.timeline("3")
    assert "no hook" not in rack.timeline("1")


def test_without_hooks_nothing_waits(rack: Rack) -> None:
    put(rack.state / "hooks.d", "up/10-x")
    rack.machine().boot()
    assert rack.head._hooks._count == 0


def test_what_a_hook_would_be_told(rack: Rack) -> None:
    rack.approved()
    message = rack.head.hook_message("up", "node01")
    assert message["event"] == "up" and message["node"]["name"] == "node01"
    with pytest.raises(Wrong, match="no event 'upp'"):
        rack.head.hook_message("upp", "node01")
    with pytest.raises(Unknown):
        rack.head.hook_message("up", "node09")
    rack.approved(2)
    with pytest.raises(Unknown, match="are 2 nodes"):
        rack.head.hook_message("up", "@all")
