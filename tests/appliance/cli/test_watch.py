from __future__ import annotations

import json
import subprocess
from typing import Any

import pytest
from rich.console import Console

from appliance.cli.watch import picture
from netboot.report import HELLO, Facts, Hello
from netboot.wire import encode
from tests.appliance.process import CHECKOUT, MAC, clean_environment, rack_of_one

ROW: dict[str, Any] = {
    "id": 1, "name": "node01", "state": "up", "address": "10.1.0.5", "image": "compute:1", "wanted": "", "reason": "",
    "phase": "", "done": 0, "total": 0, "since_seconds": 5.0,
}  # fmt: skip


def drawn(rows: list[dict[str, Any]], height: int = 40) -> str:
    console = Console(width=120, record=True, file=open("/dev/null", "w"))  # noqa: SIM115
    with console.file:
        console.print(picture(rows, height))
        return console.export_text()


def test_who_needs_somebody_comes_first_and_the_rest_is_counted() -> None:
    states = ["up", "ready", "waiting", "failed", "installing", "lost", "installed"]
    rows = [{**ROW, "id": at, "name": f"node{at:02}", "state": state} for at, state in enumerate(states)]
    lines = drawn(rows).splitlines()
    seen = [next(state for state in states if f" {state} " in line) for line in lines if line.startswith("node0")]
    assert seen == ["failed", "installing", "waiting", "lost", "installed", "ready", "up"]
    assert "and 4 more" in drawn(rows, height=7)


@pytest.mark.parametrize(
    ("done", "total", "text"), [(0, 100, "0%"), (50, 100, "50%"), (300, 100, "100%"), (5, 0, "writing")]
)
def test_progress_is_a_share_whatever_the_machine_says(done: int, total: int, text: str) -> None:
    assert text in drawn([{**ROW, "state": "installing", "phase": "writing", "done": done, "total": total}])


def test_machine_text_is_shown_as_it_is() -> None:
    said = drawn([{**ROW, "state": "failed", "reason": "[red]\x1b[2J"}])
    assert "[red]\\x1b[2J" in said and "\x1b" not in said


@pytest.mark.root
def test_events_come_as_lines_while_it_runs() -> None:
    with rack_of_one() as served:
        served.start()
        served.source = served.dhcp()
        command = [*served.program, "--state", str(served.state), "watch", "--json"]
        with subprocess.Popen(command, cwd=CHECKOUT, env=clean_environment(), stdout=subprocess.PIPE) as watching:
            assert watching.stdout is not None
            assert served.tls(HELLO, encode(Hello(MAC, Facts(vendor="Acme")))).status == 200
            event = json.loads(watching.stdout.readline())
            watching.kill()
        assert event["node_id"] == 1 and event["text"]
