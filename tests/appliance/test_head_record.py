"""What is kept of what was: packets and transfers, installations, and who asked for what."""

from __future__ import annotations

import io
import json
import subprocess
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from appliance.audit import Audit, told
from appliance.recorder import MACHINES, PACKETS, Recorder
from netboot import dhcp
from tests.appliance.process import CHECKOUT, Served, clean_environment, rack_of_one
from tests.appliance.rack import Rack, token_in
from tests.netboot.packets import packet


@pytest.fixture
def rack(tmp_path: Path) -> Iterator[Rack]:
    made = Rack(tmp_path)
    yield made
    made.stop()


def test_an_installation_from_its_first_packet(rack: Rack) -> None:
    machine = rack.approved()
    rack.head.install(["node01"])
    machine.hello(token_in(machine.boot()))
    plan = machine.write()
    machine.home(plan)
    record = rack.head.record("node01")
    kinds = [(entry["way"], entry["kind"]) for entry in record["dhcp"]]
    assert kinds[:4] == [("in", "DISCOVER"), ("out", "OFFER"), ("in", "REQUEST"), ("out", "ACK")]
    first = record["dhcp"][0]
    assert first["mac"] == machine.mac and first["options"]["60 vendor class"].startswith("PXEClient")
    assert dhcp.parse(bytes.fromhex(first["raw"])).kind is dhcp.Kind.DISCOVER
    assert record["transfers"][0]["bytes"] == 268_000
    text = json.dumps(record)
    for secret in (plan.home_secret, token_in(machine.script()) or "none", *rack.head._keys.get(1).values()):
        assert secret not in text
    (row,) = rack.head.history.stats("node", 0.0)
    assert (row["key"], row["good"], row["failed"]) == ("node01", 1, 0) and set(row["spans"]) == {
        "hello",
        "written",
        "up",
    }


def test_a_failed_one_is_counted_with_its_reason(rack: Rack) -> None:
    machine = rack.approved()
    rack.head.install(["node01"])
    machine.hello(token_in(machine.boot()))
    machine.plan()
    machine.report(failed="no disk fits the rule")
    (row,) = rack.head.history.stats("image", 0.0)
    assert row["key"] == "compute" and row["failed"] == 1 and row["reasons"][0][0] == "no disk fits the rule"


def test_a_token_used_twice_and_an_approval_by_rule_are_in_the_log(rack: Rack) -> None:
    rack.head.rule_add([])
    machine = rack.machine()
    machine.boot()
    machine.hello()
    rack.await_keys(machine)
    rack.head.install(["node01"])
    machine.hello(token_in(machine.boot()))
    machine.plan()
    with pytest.raises(Exception, match="is not valid"):
        machine.plan("f" * 32)
    rows = rack.head.audit.rows()
    assert (rows[0]["who"], rows[0]["act"]) == ("gild", "approve") and "node01" in rows[0]["detail"]
    assert rows[-1]["who"] == f"machine {machine.mac}" and rows[-1]["act"] == "refused"


def test_the_log_is_bounded_and_told_nothing_secret(rack: Rack, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("appliance.audit.KEPT", 50)
    audit = Audit(rack.store, rack.clock.wall)
    for number in range(1100):
        audit.note("root (0)", "nodes/set", f"number {number}\x1b[2J" + "x" * 5000)
    rows = audit.rows(limit=10_000)
    assert 50 <= len(rows) <= 200 and rows[-1]["detail"].startswith("number 1099") and len(rows[-1]["detail"]) <= 2000
    assert "\x1b" not in rows[-1]["detail"]
    said = told({"refs": ["n1"] * 60, "password": "geheim", "value": "c2VjcmV0", "name": "x" * 900, "drain": False})
    assert (
        "geheim" not in said and "c2VjcmV0" not in said and "..." in said and len(said) < 1000 and "drain" not in said
    )


def test_memory_is_bounded() -> None:
    recorder = Recorder(lambda: 1.0)
    data = packet("ovmf-pxe-discover")
    for number in range(MACHINES + 10):
        recorder.packet(f"mac{number}", "in", data)
        recorder.transfer(f"10.0.{number >> 8}.{number & 255}", "snponly.efi", 1, 0.1, "tftp", "")
    assert not recorder.packets(("mac0",)) and not recorder.transfers("10.0.0.0")
    for _ in range(PACKETS + 5):
        recorder.packet("mac9000", "in", b"junk")
    found = recorder.packets(("mac9000",))
    assert len(found) == PACKETS and "trouble" in found[0]


@pytest.mark.root
def test_by_the_command_line(tmp_path: Path) -> None:
    def gild(served: Served, *words: str) -> str:
        done = subprocess.run(
            served.command(*words), cwd=CHECKOUT, env=clean_environment(), capture_output=True, text=True, timeout=30
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    with rack_of_one() as served:
        served.start()
        gild(served, "node", "add", "login", "--mac", "52:54:00:00:77:01", "--group", "rack1")
        (served.state / "pw").write_text("geheim")
        gild(served, "secret", "set", "token", "--profile", "default", str(served.state / "pw"))
        served.dhcp()
        log = gild(served, "audit")
        assert "root (0)" in log and "declared/add" in log and "login" in log and "geheim" not in log
        assert json.loads(gild(served, "audit", "--word", "login", "--json"))[0]["detail"].startswith("done {")
        assert "no installation has ended yet" in gild(served, "stats")
        target = tmp_path / "login.tgz"
        assert "begin with README" in gild(served, "node", "export", "login", str(target))
        with tarfile.open(target) as tar:
            names = tar.getnames()
            content = tar.extractfile("gild/login/dhcp.json")
            assert content is not None and b"DISCOVER" in io.BytesIO(content.read()).read()
        assert "gild/README" in names and "gild/login/timeline.txt" in names
        everything = tmp_path / "all.tgz"
        gild(served, "node", "export", "--all", str(everything))
        assert everything.stat().st_size > 500 and everything.stat().st_mode & 0o777 == 0o600
        csv = gild(served, "node", "list", "--csv")
        assert "login,52:54:00:00:77:01," in csv
        (tmp_path / "list.csv").write_text(csv)
        assert "1 same" in gild(served, "node", "load", str(tmp_path / "list.csv"))
        (tmp_path / "bad.csv").write_text("name,address\nx1,10.9.9.9\n")
        done = subprocess.run(
            served.command("node", "load", str(tmp_path / "bad.csv")), cwd=CHECKOUT, env=clean_environment(),
            capture_output=True, text=True, timeout=30,
        )  # fmt: skip
        assert done.returncode and "line 2: address 10.9.9.9 is not one for a node in 10.77.0.0/24" in done.stderr
        assert "it becomes node01" in gild(served, "node", "order", "--begin")
        assert "ended" in gild(served, "node", "order", "--end")
        assert "no job yet" in gild(served, "job", "list")
