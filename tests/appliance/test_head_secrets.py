from __future__ import annotations

import io
import json
import logging
from pathlib import Path

import pytest

from appliance.backup import backup, scratch_below
from appliance.errors import Unknown, Wrong
from appliance.head_secrets import MAX_SECRET
from appliance.paths import Paths
from images.errors import GildError
from netboot.report import Phase
from netboot.wire import encode
from tests.appliance.rack import Rack
from tests.appliance.test_overlays import put

VALUE = "hunter2-Kq7x"


def found(rack: Rack, name: str, node: str = "node01") -> bytes | None:
    machine = rack.head.roster.find(node)
    return rack.head._secrets.find(name, machine, rack.head.roster.wanted(machine).chain)


def test_the_nearest_counts(rack: Rack) -> None:
    rack.head.profile_set("base")
    rack.head.profile_set("login", extends="base")
    rack.approved(1)
    rack.approved(2)
    rack.head.set(["node01"], profile="login")
    assert found(rack, "pw") is None
    for value, to in ((b"all", {}), (b"base", {"profile": "base"}), (b"login", {"profile": "login"}),
                      (b"own", {"node": "node01"})):  # fmt: skip
        rack.head.secret_set("pw", value, **to)
        assert found(rack, "pw") == value and found(rack, "pw", "node02") == b"all"
    assert [(row["for"], row["bytes"]) for row in rack.head.secrets()] == [
        ("every node", 3), ("node node01", 3), ("profile base", 4), ("profile login", 5),
    ]  # fmt: skip
    rack.head.set(["node01"], name="first")
    assert found(rack, "pw", "first") == b"own"
    rack.stop()
    rack.start()
    assert found(rack, "pw", "first") == b"own"
    rack.head.secret_remove("pw", node="first")
    assert found(rack, "pw", "first") == b"login"
    with pytest.raises(Unknown, match="no secret 'pw' for node first") as caught:
        rack.head.secret_remove("pw", node="first")
    assert "profile login" in caught.value.hint
    rack.head.secret_set("pw", b"own again", node="first")
    rack.head.remove(["first"])
    rack.store.flush()
    assert "node" not in json.dumps([row["for"] for row in rack.head.secrets()]).replace("every node", "")


@pytest.mark.parametrize(
    ("name", "value", "to", "kind"),
    [
        ("a b", b"x", {}, Wrong), ("", b"x", {}, Wrong), ("x" * 65, b"x", {}, Wrong), ("a", b"", {}, Wrong),
        ("a", b"x" * (MAX_SECRET + 1), {}, Wrong), ("a", b"x", {"node": "none"}, Unknown),
        ("a", b"x", {"profile": "none"}, Unknown), ("a", b"x", {"node": "1", "profile": "default"}, Wrong),
        ("a", b"x", {"node": "1"}, Wrong), ("../a", b"x", {}, Wrong),
    ],
)  # fmt: skip
def test_what_is_no_secret(rack: Rack, name: str, value: bytes, to: dict[str, str], kind: type[GildError]) -> None:
    rack.machine().boot()
    with pytest.raises(kind) as caught:
        rack.head.secret_set(name, value, **to)
    assert rack.head.secrets() == [] and "\n" not in caught.value.message


def test_their_number_is_bounded(rack: Rack, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("appliance.head_secrets.MAX_SECRETS", 2)
    rack.head.secret_set("a", b"1")
    rack.head.secret_set("b", b"1")
    with pytest.raises(Wrong, match="there are 2 secrets already"):
        rack.head.secret_set("c", b"1")
    rack.head.secret_set("b", b"2")


def test_a_secret_shows_in_the_plan_and_nowhere_else(
    rack: Rack, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    """Everything anybody can be shown, with a secret at work in all of it."""
    caplog.set_level(logging.DEBUG)
    files = rack.state / "profiles"
    put(files, "default/overlay/etc/pw.j2", "{{ secret('pw') }}\n")
    put(files, "default/overlay.toml", '["etc/key"]\nsecret = "pw"\n')
    shown: list[object] = [rack.head.secret_set("pw", VALUE.encode())]
    machine = rack.approved()
    shown += [rack.head.install(["node01"], preview=True), rack.head.install(["node01"])]
    machine.boot()
    machine.hello()
    plan = machine.plan()
    assert encode(plan).decode().count(VALUE) == 2
    machine.report(phase=Phase.FIT, lines=("file etc/pw", "file etc/key"))
    # What goes wrong with a secret in hand does not repeat it either.
    for bad in ("{{ {'a': 1}[secret('pw')] }}", "{{ secret('pw').nothing }}", "{{ secret('pw') | int + 'a' }}",
                "{{ secret(secret('pw')) }}", "{{ cluster[secret('pw')] }}", "{{ secret('pw') / 2 }}",
                "{{ ('%d' % secret('pw')) }}"):  # fmt: skip
        put(files, "default/overlay/etc/bad.j2", bad)
        with pytest.raises(Wrong) as caught:
            rack.head.install(["node01"]) if rack.head.cancel(["node01"]) and machine.report(failed="x") else None
        shown += [str(caught.value), rack.head.render("node01")]
        (files / "default/overlay/etc/bad.j2").unlink()
        rack.head.install(["node01"])
    shown += [rack.head.render("node01"), rack.head.render_file("node01", "etc/pw")]
    shown += [rack.head.render_file("node01", "etc/key"), rack.head.secrets(), rack.head.profiles()]
    shown += [rack.head.profile_values("default"), rack.head.node("node01"), rack.head.nodes(), rack.head.status()]
    shown += [
        rack.head.log("node01", 0),
        rack.head.events_since(0),
        rack.head.script(machine.mac, machine.address, "efi"),
    ]
    rack.head.roster.save()
    rack.store.flush()
    paths, out = Paths(rack.state), io.BytesIO()
    with scratch_below(rack.state) as scratch:
        made = backup(paths, out, scratch, images=False, progress=lambda *_: None)
    shown += [str(made.listing), str(made.left_out), caplog.text, *capfd.readouterr()]
    tables = [row[0] for row in rack.store.read("SELECT name FROM sqlite_master WHERE type = 'table'")]
    for table in set(tables) - {"secrets"}:
        shown.append(rack.store.read(f"SELECT * FROM {table}"))
    assert VALUE not in json.dumps(shown, default=str)
    for path in Path(rack.state).rglob("*"):
        if path.is_file() and not path.name.startswith("gild.db"):
            assert VALUE.encode() not in path.read_bytes(), path
    assert rack.store.read("SELECT value FROM secrets") == [(VALUE.encode(),)]
    for path in Path(rack.state).glob("gild.db*"):
        assert path.stat().st_mode & 0o077 == 0, path


@pytest.mark.parametrize("value", ["a'b\"c\nd-long-enough", "x" * 5000, "pässwörd-Ω-long", "tab\there\\back", "short"])
def test_a_secret_of_any_shape_is_struck_out_of_what_fails(rack: Rack, value: str) -> None:
    rack.head.secret_set("pw", value.encode())
    rack.approved()
    for bad in ("{{ cluster[secret('pw')] }}", "{{ {}[secret('pw')] }}", "{{ secret(secret('pw')) }}",
                "{{ node[secret('pw') ~ 'x'] }}", "{{ node[secret('pw') | upper | lower] }}"):  # fmt: skip
        put(rack.state / "profiles", "default/overlay/etc/bad.j2", bad)
        with pytest.raises(Wrong) as caught:
            rack.head.install(["node01"])
        parts = [value, repr(value)[1:-1], *(value[at : at + 8] for at in range(max(1, len(value) - 7)))]
        assert not [part for part in parts if part in str(caught.value)], bad
