"""`node power`, `node wake` and `node bmc` against a head that serves, a real BMC simulator and a stand-in machine."""

from __future__ import annotations

import io
import json
import socket
import stat
import subprocess
import time
from collections.abc import Callable, Iterator

import pytest

from appliance.cli.main import run
from netboot.wol import magic
from tests.appliance.power.bmcs import PASSWORD, USER, Simulated, ipmi_sim, needs_ipmi
from tests.appliance.process import MAC, Served, rack_of_one, wait_for
from tests.netboot.lan import Lan, needs_root

Say = Callable[..., tuple[int, str, str]]
pytestmark = [*needs_root, needs_ipmi]


def firmware(lan: Lan) -> str:
    """What a machine does when it gets power: its firmware asks for an address and something to boot."""
    ask = "busybox udhcpc -i node0 -n -q -f -t 3 -T 1 -s /bin/true -V PXEClient:Arch:00007 -x 0x5d:0007"
    return f"ip netns exec {lan.node} {ask}"


@pytest.fixture(scope="module")
def head() -> Iterator[Served]:
    with rack_of_one() as served:
        served.start("--power-wait", "10")
        yield served


@pytest.fixture(scope="module")
def bmc(head: Served, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Simulated]:
    inside = ["ip", "netns", "exec", head.lan.head]
    with ipmi_sim(tmp_path_factory.mktemp("bmc") / "n1", inside, firmware(head.lan)) as made:
        yield made


@pytest.fixture
def say(head: Served, capsys: pytest.CaptureFixture[str]) -> Say:
    def call(*arguments: str) -> tuple[int, str, str]:
        capsys.readouterr()
        code = run(["--state", str(head.state), *arguments])
        said = capsys.readouterr()
        return code, said.out, said.err

    return call


def story(say: Say) -> str:
    return "\n".join(event["text"] for event in json.loads(say("node", "log", "node01", "--json")[1]))


def test_a_bmc_is_entered_and_what_it_switches_on_is_heard(
    say: Say, head: Served, bmc: Simulated, monkeypatch: pytest.MonkeyPatch
) -> None:
    subprocess.run(firmware(head.lan).split(), capture_output=True, check=False)  # somebody presses the button, once
    wait_for(lambda: json.loads(say("node", "list", "--json")[1]))
    assert say("node", "approve", "--all")[0] == 0
    enter = ("node", "bmc", "set", "node01", "--kind", "ipmi", "--address", bmc.address, "--user", USER)
    assert "where is the password" in say(*enter)[2]
    monkeypatch.setattr("sys.stdin", io.StringIO(PASSWORD + "\n"))
    code, out, err = say(*enter, "--password-file", "-")
    assert code == 0 and f"node01: ipmi at {bmc.address}" in out, err
    assert bmc.address in say("node", "bmc", "list")[1] and json.loads(
        say("node", "bmc", "list", "node01", "--json")[1]
    )
    code, out, err = say("node", "bmc", "test", "node01")
    assert code == 0 and out.split()[:2] == ["node01", "off"] and "MontaVista" in out, err

    head.lan.ip("-n", head.lan.node, "address", "flush", "dev", "node0")
    before = time.time()
    code, out, err = say("node", "power", "on", "node01")
    assert code == 0 and out.split()[:2] == ["node01", "on"] and "should ask for an address" in out, err
    assert bmc.told == ["set power 1"]
    wait_for(lambda: time.time() - json.loads(say("node", "show", "node01", "--json")[1])["seen_seconds"] > before)
    told = story(say)
    assert "its BMC is told to switch on" in told and "asks for something to boot" in told
    assert json.loads(say("node", "power", "status", "node01", "--json")[1])[0]["power"] == "on"

    assert "this needs a yes" in say("node", "power", "off", "node01")[2] and bmc.power == "on"
    assert say("node", "power", "off", "node01", "--yes")[0] == 0 and bmc.power == "off"
    for text in (head.log, story(say), *(say("node", "bmc", *words)[1] for words in (["list"], ["list", "--json"]))):
        assert PASSWORD not in text
    assert stat.S_IMODE(head.paths.database.stat().st_mode) == 0o600


def test_what_does_not_come_is_named(say: Say, head: Served, bmc: Simulated) -> None:
    (bmc.folder / "power").write_text("0\n")
    head.lan.ip("-n", head.lan.node, "link", "set", "node0", "down")
    try:
        assert say("node", "power", "cycle", "node01", "--yes")[0] == 0
        wait_for(lambda: "ago and has not asked for an address" in story(say))
    finally:
        head.lan.ip("-n", head.lan.node, "link", "set", "node0", "up")


def test_a_machine_is_woken_by_what_its_card_waits_for(say: Say, head: Served) -> None:
    with head.lan.at_node():
        card = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(0x0842))
    with card:
        card.bind(("node0", 0x0842))
        card.settimeout(10)
        code, out, err = say("node", "wake", "node01", "--broadcast", "10.77.0.255")
        assert code == 0 and "sent on head0, 10.77.0.255" in out, err
        assert card.recv(2048).endswith(magic(MAC))
    assert "sent what wakes it" in story(say)


def test_failures_have_an_exit_code_and_one_line(say: Say, bmc: Simulated) -> None:
    code, _, err = say("node", "wake", "node01", "--broadcast", "10.77")
    assert code == 1 and "no address to broadcast to" in err
    assert say("node", "power", "on", "nobody")[0] == 3
    assert say("node", "power", "explode", "node01")[0] == 2
    assert say("node", "bmc", "trust", "node01")[0] == 1
    assert say("node", "bmc", "rm", "node01") == (0, "node01: no BMC any more\n", "")
    code, _, err = say("node", "power", "status", "node01")
    assert code == 1 and "node01 has no BMC here" in err and "node bmc set node01" in err
    assert say("node", "bmc", "rm", "node01")[0] == 3
