"""images.edits.all: every edit by its name, on trees as they are and on hostile ones."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from images.edits import all as edits
from images.errors import GildError
from tests.images import systems

UUID = "95fd9a78-4a9f-561d-aead-869354627bb8"
KEYS = {"ssh_host_ed25519_key": "-----BEGIN OPENSSH PRIVATE KEY-----\n", "ssh_host_ed25519_key.pub": "ssh-ed25519 A\n"}
ALL: tuple[tuple[str, dict[str, Any]], ...] = (
    ("hostname", {"name": "n01", "domain": "cluster.internal"}),
    ("network", {"mac": "52:54:00:00:00:01", "address": "10.7.0.11", "prefix": 24, "gateway": "10.7.0.1"}),
    ("hosts", {"name": "n01", "domain": "cluster.internal", "address": "10.7.0.11", "entries": {"10.7.0.1": "head"}}),
    ("resolv", {"dns": ["10.7.0.1"], "domain": "cluster.internal"}),
    ("machine_id", {"id": "ab" * 16}),
    ("host_keys", {"keys": KEYS}),
    ("origin", {"image": "compute:3", "manifest": "d" * 64, "profile": "default"}),
    ("fstab", {"mounts": [{"mount": "/", "fs": "ext4", "uuid": UUID}]}),
    (
        "files",
        {"files": [{"path": "/etc/motd", "content": "n01\n"}, {"path": "opt/site/x", "content": "x", "mode": "0600"}]},
    ),
)


def test_every_edit_changes_a_debian_tree_and_the_second_time_nothing(tmp_path: Path) -> None:
    root = systems.debian(tmp_path)
    (root / "etc/ssh").mkdir()
    for name, options in ALL:
        assert edits.apply(name, str(root), options), name
    before = systems.picture(root)
    for name, options in ALL:
        edits.apply(name, str(root), options)
    assert systems.picture(root) == before
    assert not [name for name in before if "gild-part" in name]


@pytest.mark.parametrize("path", ["etc", "etc/hostname", "etc/hosts", "etc/fstab", "etc/machine-id", "etc/ssh",
                                  "etc/systemd", "etc/systemd/network", "etc/udev", "var/lib/dbus"])  # fmt: skip
@pytest.mark.parametrize("absolute", [False, True])
def test_no_edit_of_a_hostile_tree_touches_anything_outside(tmp_path: Path, path: str, absolute: bool) -> None:
    outside, root = tmp_path / "outside", tmp_path / "root"
    for name in ("hostname", "hosts", "fstab", "ssh/ssh_host_rsa_key", "systemd/network/10-gild-lan0.link"):
        systems.put(outside, name, "theirs\n")
    before = systems.picture(outside)
    root.mkdir()
    target = f"{outside}/{path.rpartition('/')[2]}" if absolute else "/".join([".."] * 6) + str(outside)
    systems.link(root, path, target)
    if path != "etc":
        systems.networkd(root)
        systems.put(root, "usr/lib/systemd/systemd", "")
    for name, options in ALL:
        try:
            edits.apply(name, str(root), options)
        except GildError as error:
            assert error.message
    assert systems.picture(outside) == before


def test_what_is_not_known_is_named(tmp_path: Path) -> None:
    with pytest.raises(GildError, match="no edit 'rm'"):
        edits.apply("rm", str(tmp_path), {})
    with pytest.raises(GildError, match="hostname has no option 'nmae'"):
        edits.apply("hostname", str(tmp_path), {"nmae": "x"})


@pytest.mark.parametrize("name, options", [
    ("hostname", {"name": "a b"}), ("hostname", {"name": "-a"}), ("hostname", {}), ("hostname", {"name": "a\n"}),
    ("network", {"mac": "x", "address": "10.0.0.1", "prefix": 24}),
    ("network", {"mac": "52:54:00:00:00:01", "address": "10.0.0.256", "prefix": 24}),
    ("network", {"mac": "52:54:00:00:00:01", "address": "10.0.0.1", "prefix": True}),
    ("network", {"mac": "52:54:00:00:00:01", "address": "10.0.0.1", "prefix": 33}),
    ("network", {"mac": "52:54:00:00:00:01", "address": "10.0.0.1", "prefix": 24, "name": "eth0"}),
    ("network", {"mac": "52:54:00:00:00:01", "address": "10.0.0.1", "prefix": 24, "name": 'x"; reboot'}),
    ("network", {"mac": "52:54:00:00:00:01", "address": "10.0.0.1", "prefix": 24, "dns": ["x"]}),
    ("hosts", {"name": "n", "address": "10.0.0.1", "entries": {"10.0.0.2": "a\n1.2.3.4 b"}}),
    ("hosts", {"name": "n", "address": "10.0.0.1", "entries": {"10.0.0.2": "a;b"}}),
    ("files", {"files": [{"path": "a/../../x", "content": ""}]}), ("files", {"files": [{"path": "/", "content": ""}]}),
    ("files", {"files": [{"path": "proc/x", "content": ""}]}), ("files", {"files": [{"path": "x", "content": 1}]}),
    ("files", {"files": [{"path": "x", "content": "", "mode": "47"}]}),
    ("files", {"files": [{"path": "x", "b": ""}]}),
    ("files", {"files": {}}), ("machine_id", {"id": "0" * 32}), ("machine_id", {"id": "ab" * 15}),
    ("host_keys", {"keys": {"../x": "-----BEGIN "}}), ("host_keys", {"keys": {"ssh_host_rsa_key": "hello"}}),
    ("fstab", {"mounts": [{"mount": "/ x", "fs": "ext4", "uuid": UUID}]}), ("fstab", {"mounts": [{"mount": "/"}]}),
    ("call_home", {"url": "http://10.0.0.1/up/1'; reboot", "secret": "ab" * 32}),
    ("call_home", {"url": "http://10.0.0.1/up/1", "secret": "$(id)"}),
    ("origin", {"image": "compute", "manifest": "d" * 64, "profile": "p"}),
    ("origin", {"image": "compute:3", "manifest": "d", "profile": "p"}),
    ("origin", {"image": "compute:3", "manifest": "d" * 64, "profile": "a b"}),
])  # fmt: skip
def test_options_that_cannot_be_right_are_refused_before_anything_is_written(
    tmp_path: Path, name: str, options: dict[str, Any]
) -> None:
    root = systems.debian(tmp_path)
    (root / "etc/ssh").mkdir()
    before = systems.picture(root)
    with pytest.raises(GildError, match=f"edit {name}"):
        edits.apply(name, str(root), options)
    assert systems.picture(root) == before


def test_the_head_and_the_edits_agree_on_names_and_options() -> None:
    """The plan is made by appliance.head_plan; this is what its edits are called there."""
    import ast

    source = Path(__file__).parents[3] / "appliance" / "head_plan.py"
    calls = [
        node for node in ast.walk(ast.parse(source.read_text()))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "Edit"
    ]  # fmt: skip
    # "files" is for plans of a site's own making.
    assert {call.args[0].value for call in calls if isinstance(call.args[0], ast.Constant)} >= set(edits.EDITS) - {
        "files"
    }
    for call in calls:
        name, options = call.args
        if not isinstance(name, ast.Constant):  # an edit of a profile, which appliance.head_plan.check_edit has seen
            continue
        assert isinstance(options, ast.Dict)
        known = edits.EDITS[str(name.value)][0]
        assert {key.value for key in options.keys if isinstance(key, ast.Constant)} <= set(known)
