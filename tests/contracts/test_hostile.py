"""Whatever a machine says of itself: it is shown harmless, and reaches no zone, boot script or kernel command line."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from netboot import dhcp
from netboot.report import Disk, Hello, Nic
from tests.appliance.rack import Machine, Rack, token_in

# Control characters, terminal sequences, markup, line ends, right-to-left, shell, Unicode that looks like a dot.
NASTY = (
    "x\r\nset evil 1\n", "\x1b[2J\x1b]0;pwned\x07", "[red]bold[/red]", "<script>alert(1)</script>", "‮gnp.exe",
    "$(reboot) `reboot` ;reboot", 'quo"te\'s \\ {{ 7*7 }} %s', "nul\x00byte", "ｅvil。cluster", "A" * 4000,
    "../../etc/passwd",
    "init=/bin/sh gild.token=0", "\ud800".encode("utf-8", "surrogatepass").decode("utf-8", "replace"),
)  # fmt: skip
FORBIDDEN = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")
MARKS = ("evil", "pwned", "script>", "reboot", "gnp", "passwd", "init=/bin/sh", "7*7", "{{", "[red]", "AAAAAAAA")


@pytest.fixture
def rack(tmp_path: Path) -> Iterator[Rack]:
    made = Rack(tmp_path)
    yield made
    made.stop()


def hostile(rack: Rack, text: str) -> Machine:
    """A machine that says this wherever it can, from its first packet until it is up."""
    raw = text.encode("utf-8", "replace")
    machine = rack.machine(1, extra={
        dhcp.HOSTNAME: raw[:255] or b"x", dhcp.USER_CLASS: raw[:255] or b"x", 81: raw[:255] or b"x",
        dhcp.CLIENT_ID: raw[:255] or b"x",
    })  # fmt: skip
    machine.boot()
    disk = Disk("/dev/vda", 20 << 30, text, text, wwn=text, bus="virtio", content=text)
    facts = replace(
        machine.facts(), vendor=text, product=text, serial=text, cpu=text, kernel=text, disks=(disk,),
        nics=(Nic("eth0", machine.mac, boot=True), Nic(text, text)),
    )  # fmt: skip
    rack.head.hello(Hello(machine.mac, facts, agent=text), machine.address)
    rack.head.approve([machine.mac])
    rack.await_keys(machine)
    rack.head.install(["node01"], disk="pick=only")
    script = machine.boot()
    machine.answer = rack.head.hello(Hello(machine.mac, facts, token_in(script)), machine.address)
    machine.session = machine.answer.session
    plan = machine.plan()
    machine.report(lines=(text,), disk=text)
    machine.report(finished=True, finish=plan.finish)
    machine.home(plan, f"hostname {text}\nkernel {text}\naddress {text}\n".encode("utf-8", "replace"))
    return machine


@pytest.mark.parametrize("text", NASTY, ids=range(len(NASTY)))
def test_what_machines_say(rack: Rack, text: str) -> None:
    machine = hostile(rack, text)
    head = rack.head
    shown = {
        "rows": head.nodes(), "node": head.node("node01"), "log": head.log("node01", 0),
        "record": head.record("node01"),
        "status": head.status(), "audit": head.audit.rows(), "stats": head.history.stats("node", 0.0),
        "list": head.declared.listed().splitlines(),
    }  # fmt: skip
    for name, value in shown.items():
        for word in texts(value):
            assert not FORBIDDEN.search(word), f"{name}: {word!r}"
            assert len(word) < 3000, name
        json.dumps(value)
    obeyed = [
        machine.script(), head.grub_cfg(machine.address), *head.zone().forward, *head.zone().reverse.values(),
    ]  # fmt: skip
    for word in obeyed:
        assert not FORBIDDEN.search(word.replace("\n", "")), word
        assert not any(mark in word for mark in MARKS), word


def texts(value: object) -> Iterator[str]:
    """Every text in a value for JSON."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for key, inner in value.items():
            yield str(key)
            yield from texts(inner)
    elif isinstance(value, list | tuple):
        for inner in value:
            yield from texts(inner)
