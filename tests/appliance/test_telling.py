"""A running system takes on another name: what is read of it is enough, and what changes is what should."""

from __future__ import annotations

import io
import subprocess
import tarfile
from pathlib import Path
from typing import Any

import pytest

from appliance import telling
from appliance.errors import Wrong
from images.errors import GildError
from images.sources.tar import unpack
from tests.appliance.rack import Rack
from tests.images import trees

SYSTEMS = {name: system for name, system in trees.load().items() if system.all("is")}


def wanted(name: str = "n02", address: str = "10.7.0.12") -> list[dict[str, Any]]:
    network = {"mac": "52:54:00:00:00:01", "prefix": 24, "gateway": "", "dns": ["10.7.0.1"], "name": "lan0"}
    return [
        {"edit": "hostname", "options": {"name": name, "domain": "c"}},
        {"edit": "network", "options": {**network, "address": address, "domain": "c"}},
        {"edit": "hosts", "options": {"name": name, "domain": "c", "address": address, "entries": {}}},
        {"edit": "resolv", "options": {"dns": ["10.7.0.1"], "domain": "c"}},
    ]


def sent(root: Path, shell: str = "sh") -> bytes:
    """What a node with that tree sends."""
    script = telling.reading(str(root))
    done = subprocess.run([*shell.split(), "-c", script], capture_output=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr.decode()
    return done.stdout


@pytest.mark.root
@pytest.mark.parametrize("name", SYSTEMS)
def test_what_is_read_of_a_system_is_enough(tmp_path: Path, name: str) -> None:
    root, copy = SYSTEMS[name].build(tmp_path / "root"), tmp_path / "copy"
    copy.mkdir()
    if (root / "etc/cloud/cloud.cfg.d").is_dir():  # never empty in life, and files are what is sent
        (root / "etc/cloud/cloud.cfg.d/05_logging.cfg").touch()
    unpack(io.BytesIO(sent(root)), copy)
    few = telling.changes(str(copy), wanted(), ())
    whole = telling.changes(str(root), wanted(), ())
    assert (few.lines, few.written, few.removed) == (whole.lines, whole.written, whole.removed)
    assert "etc/hostname" in few.written and any("network" in line for line in few.lines)
    again = telling.changes(str(copy), wanted(), ())
    assert (again.lines, again.written, again.removed) == ((), (), ()), "it knows"


@pytest.mark.root
def test_busybox_is_enough(tmp_path: Path) -> None:
    root = next(iter(SYSTEMS.values())).build(tmp_path / "root")
    with tarfile.open(fileobj=io.BytesIO(sent(root, "busybox sh"))) as archive:
        assert "etc/os-release" in archive.getnames() or "usr/lib/os-release" in archive.getnames()


@pytest.mark.root
def test_secrets_stay_where_they_are(tmp_path: Path) -> None:
    root = next(iter(SYSTEMS.values())).build(tmp_path / "root")
    for path in ("etc/shadow", "etc/shadow-", "etc/ssh/ssh_host_rsa_key", "etc/munge/munge.key", "etc/ssl/private/k"):
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_text("secret")
    with tarfile.open(fileobj=io.BytesIO(sent(root))) as archive:
        names = archive.getnames()
    assert "etc/hostname" in names or "etc/os-release" in names
    assert not [name for name in names if "shadow" in name or "ssh" in name or "munge" in name or "ssl" in name]


@pytest.mark.root
def test_old_lines_about_itself_go_and_all_others_stay(tmp_path: Path) -> None:
    root = next(iter(SYSTEMS.values())).build(tmp_path / "root")
    telling.changes(str(root), wanted("n01", "10.7.0.11"), ())
    hosts = root / "etc/hosts"
    hosts.write_text(hosts.read_text() + "10.7.0.11 other\n10.7.0.50 nas\n")
    made = telling.changes(str(root), wanted(), ["10.7.0.11"])
    text = hosts.read_text()
    assert "n01" not in text and "10.7.0.11 other" in text and "10.7.0.50 nas" in text
    assert "10.7.0.12\tn02.c n02" in text and "hosts: 1 old lines go" in made.lines
    with tarfile.open(fileobj=io.BytesIO(made.archive)) as archive:
        (member,) = [member for member in archive if member.name == "etc/hosts"]
        assert (member.uname, member.gname, member.mode & 0o777) == ("", "", hosts.stat().st_mode & 0o777)


def test_what_a_node_sends_has_an_end(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(telling, "MAX_BYTES", 1000)
    with pytest.raises(GildError, match="it sends more than"):
        telling._Bounded(io.BytesIO(b"x" * 4096)).read(1001)


def test_where_a_node_is_looked_for(rack: Rack) -> None:
    machine = rack.approved()
    with pytest.raises(Wrong, match="node01 is ready: there is no running system"):
        rack.head.telling(["node01"])
    rack.head.install(["node01"])
    machine.hello()
    plan = machine.write()
    first = machine.address
    machine.home(plan, f"hostname node01\naddress {first}/24 fe80::1/64\n".encode())
    rack.head.set(["node01"], name="db1", address="10.1.0.99")
    (row,) = rack.head.telling(["db1"])
    assert row["addresses"] == ["10.1.0.99", first] and len(row["host_keys"]) == 3
    edits = {edit["edit"]: edit["options"] for edit in row["edits"]}
    assert list(edits) == ["hostname", "network", "hosts", "resolv"]
    assert edits["hostname"]["name"] == "db1" and edits["network"]["address"] == "10.1.0.99"
    rack.head.told("db1", ["hostname db1"], True)
    rack.head.set(["db1"], address="10.1.0.98")
    assert rack.head.telling(["db1"])[0]["addresses"] == ["10.1.0.98", "10.1.0.99", first]
    assert "told that it is db1, 10.1.0.99, and restarts: hostname db1" in rack.timeline("db1")
