"""The site's own files on their way into a plan: rendered for one node, refused before anything is erased."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Any

import pytest

from appliance import head_overlay
from appliance.errors import Unknown, Wrong
from appliance.head_hello import Refused
from appliance.overlays import OverlayInvalid
from images.errors import GildError
from netboot.plan import InstallPlan
from netboot.report import FILE, PIECE, FileAsk
from netboot.wire import MAX_MESSAGE, decode, encode
from tests.appliance.rack import Machine, Rack
from tests.appliance.test_overlays import put


@pytest.fixture
def files(rack: Rack) -> Path:
    """The folder of all profiles."""
    return rack.state / "profiles"


def plan_of(rack: Rack, machine: Machine) -> InstallPlan:
    """The plan as it comes out of the wire."""
    rack.head.install(["node01"])
    machine.hello()
    data = encode(machine.plan())
    assert len(data) < MAX_MESSAGE
    return decode(InstallPlan, data)


def files_of(plan: InstallPlan) -> dict[str, dict[str, Any]]:
    assert plan.edits[-1].edit == "files"
    return {file["path"]: file for file in plan.edits[-1].options["files"]}


def test_everything_a_template_can_name(rack: Rack, files: Path) -> None:
    rack.head.profile_set("default", image="compute", cmdline="quiet")
    put(
        files,
        "default/overlay/etc/all.j2",
        """\
{{ node.name }} {{ node.address }} {{ node.mac }} {{ node.profile }} {{ node.groups | join(",") }}
{{ network.prefix }} {{ network.netmask }} {{ network.dns[0] }} {{ network.domain }} {{ head.address }}
{{ facts.cores }} {{ facts.memory }} {{ facts.disks[0].serial }} {{ facts.vendor }}
{{ profile.name }} {{ profile.chain | join }} {{ profile.image }} {{ profile.cmdline }} {{ profile.file }}
{% for one in cluster.nodes %}
NodeName={{ one.name }} NodeAddr={{ one.address }} CPUs={{ one.threads }}
{% endfor %}
{{ cluster.nodes | selectattr("profile", "equalto", "default") | map(attribute="name") | fold }} {{ secret("pw") }}
""",
    )
    first, second = rack.approved(1), rack.approved(2)
    rack.head.set(["node01"], group=["rack1", "fast"])
    rack.head.secret_set("pw", b"s3cret\n")
    for machine in (first, second):
        machine.hello()
    text = files_of(plan_of(rack, first))["etc/all"]["content"]
    assert text.splitlines() == [
        f"node01 {first.address} {first.mac} default fast,rack1",
        "24 255.255.255.0 10.1.0.1 cluster.internal 10.1.0.1",
        f"4 {8 << 30} S1 Vendor",
        "default default compute quiet /etc/all",
        f"NodeName=node01 NodeAddr={first.address} CPUs=8",
        f"NodeName=node02 NodeAddr={second.address} CPUs=8",
        "node[01-02] s3cret",
    ]


def test_rendered_for_each_request_and_kept_nowhere(rack: Rack, files: Path) -> None:
    template = put(files, "default/overlay/etc/hosts.j2", "{{ cluster.nodes | map(attribute='name') | join(' ') }}")
    rack.approved()
    assert rack.head.render_file("node01", "etc/hosts")["text"] == "node01"
    rack.approved(2)
    assert rack.head.render_file("node01", "/etc/hosts")["text"] == "node01 node02"
    rack.head.set(["node02"], name="login")
    assert rack.head.render_file("node01", "etc/hosts")["text"] == "login node01"
    template.write_text("new")
    assert rack.head.render_file("node01", "etc/hosts")["text"] == "new"
    assert sorted(path.name for path in files.rglob("*") if path.is_file()) == ["hosts.j2"]


def test_all_kinds_of_entries_reach_the_node(rack: Rack, files: Path) -> None:
    rack.head.profile_set("base")
    rack.head.profile_set("default", extends="base", script_seconds=30)
    put(files, "base/overlay/etc/motd", "hello\n", 0o640)
    put(files, "base/overlay/bin/tool", b"\x7fELF\x00\xff", 0o755)
    put(files, "default/overlay/etc/big", "x" * 200_000)
    put(files, "default/overlay/etc/long.j2", "y" * 60_000)
    (files / "default/overlay/etc/link").symlink_to("motd")
    (files / "default/overlay/srv").mkdir()
    put(files, "default/overlay.toml", '["etc/key"]\nsecret = "key"\nmode = "0400"\nowner = "munge"\n')
    put(files, "base/pre.d/10-raid", "#!/bin/sh\nexit 0\n", 0o755)
    put(files, "default/post.d/20-join", "#!/bin/bash\nexit 0\n", 0o755)
    rack.head.secret_set("key", b"\x00\xff\n")
    machine = rack.approved()
    plan = plan_of(rack, machine)
    found = files_of(plan)
    own = {"owner": "root", "group": "root"}
    assert found["etc/motd"] == {"path": "etc/motd", "content": "hello\n", "mode": "0640", **own}
    assert found["etc/link"] == {"path": "etc/link", "link": "motd"}
    assert found["srv"] == {"path": "srv", "folder": True, "mode": "0755", **own}
    assert base64.b64decode(found["bin/tool"]["base64"][0]) == b"\x7fELF\x00\xff"
    assert found["etc/key"]["base64"] == ["AP8K"] and found["etc/key"]["owner"] == "munge"
    assert b"".join(map(base64.b64decode, found["etc/long"]["base64"])) == b"y" * 60_000
    assert found["etc/big"]["size"] == 200_000 and "content" not in found["etc/big"]
    assert [(s.name, s.profile, s.seconds) for s in (*plan.pre, *plan.post)] == [
        ("pre.d/10-raid", "base", 30), ("post.d/20-join", "default", 30),
    ]  # fmt: skip


def test_large_files_come_in_pieces_to_the_agent_that_has_the_plan(rack: Rack, files: Path) -> None:
    content = bytes(range(256)) * 20_000
    path = put(files, "default/overlay/opt/model", content)
    machine, other = rack.approved(1), rack.approved(2)
    file = files_of(plan_of(rack, machine))["opt/model"]

    def ask(offset: int, session: str = machine.session, name: str = "opt/model", stamp: str = file["fetch"]) -> bytes:
        return rack.head.file_piece(FileAsk(session, name, stamp, offset))

    assert FILE == "/node/file" and len(content) > 2 * PIECE
    assert ask(0) + ask(PIECE) + ask(2 * PIECE) == content and ask(len(content)) == b""
    other.hello()
    for session, words in ((other.session, "holds no plan"),):
        with pytest.raises(Refused, match=words):
            ask(0, session)
    for name, stamp in (("opt/other", file["fetch"]), ("../../gild.db", file["fetch"]), ("opt/model", "x")):
        with pytest.raises(OverlayInvalid, match="is not what it was when the plan was made"):
            ask(0, name=name, stamp=stamp)
    path.write_bytes(content + b"x")
    with pytest.raises(OverlayInvalid, match="opt/model of profile default is not what it was"):
        ask(0)
    path.write_bytes(content)
    rack.head.cancel(["node01"])
    with pytest.raises(Refused):
        ask(0)
    assert "asks for a file of its profile; refused" in rack.timeline("node01")


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("overlay/etc/x.j2", "a\n{{ nothing }}\n", ("etc/x.j2, line 2: 'nothing' is undefined",)),
        ("overlay/etc/x.j2", "\n\n{{ secret('none') }}", ("etc/x.j2, line 3", "no secret 'none'", "secret set none")),
        ("overlay/etc/x.j2", "{% if %}", ("etc/x.j2, line 1",)),
        ("overlay/etc/x.j2", b"\xff\xfe", ("not text in UTF-8",)),
        ("overlay.toml", '["etc/k"]\nsecret = "none"\n', ("no secret 'none' for it, which /etc/k of profile default",)),
        ("overlay.toml", "x", ("overlay.toml",)),
        ("post.d/10-x", "echo no first line", ("post.d/10-x",)),
    ],
)
def test_what_cannot_be_is_refused_before_anything_is_erased(
    rack: Rack, files: Path, name: str, content: str | bytes, words: tuple[str, ...]
) -> None:
    machine = rack.approved()
    rack.head.install(["node01"])  # an order from before
    put(files, f"default/{name}", content, 0o755)
    for preview in (True, False):
        with pytest.raises(Wrong) as caught:
            rack.head.install(["node01"], preview=preview)
        assert caught.value.message.startswith("node01: ") and all(word in str(caught.value) for word in words)
        assert "\n" not in caught.value.message
    machine.hello()
    with pytest.raises(GildError, match="node01: "):
        machine.plan()
    assert rack.state_of("node01") == "ready" and not rack.head.roster.orders[1].used


def test_nobody_is_ordered_if_one_node_cannot_be(rack: Rack, files: Path) -> None:
    put(files, "default/overlay/etc/x.j2", "{{ {'node01': 1}[node.name] }}")
    rack.approved(1)
    rack.approved(2)
    with pytest.raises(Wrong, match=r"node02: .*etc/x\.j2, line 1"):
        rack.head.install(["node01", "node02"])
    assert not rack.head.node("node01")["ordered"]


def test_an_image_nobody_looks_into_takes_no_files(rack: Rack, files: Path) -> None:
    put(files, "default/overlay/etc/motd")
    rack.approved()
    node = rack.head.roster.find("node01")
    rack.head._overlays.check(node, "compute:3", looked_into=True)
    with pytest.raises(Wrong, match="compute:3 is a whole disk nobody looks into"):
        rack.head._overlays.check(node, "compute:3", looked_into=False)


def test_what_does_not_fit_the_plan(rack: Rack, files: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rack.approved()
    monkeypatch.setattr(head_overlay, "MAX_SAID", 150_000)
    for number in range(3):
        put(files, f"default/overlay/etc/{number}.j2", "x" * 60_000)
    with pytest.raises(Wrong, match="come to more than"):
        rack.head.install(["node01"])


def test_previews_show_everything_but_secrets(rack: Rack, files: Path) -> None:
    rack.approved()
    rack.head.secret_set("pw", b"s3cret")
    put(files, "default/overlay/etc/pw.j2", "password={{ secret('pw') }}\n", 0o600)
    put(files, "default/overlay/etc/bad.j2", "{{ nothing }}")
    put(files, "default/overlay/etc/bin", b"\xff")
    put(files, "default/overlay.toml", '["etc/key"]\nsecret = "pw"\n["etc/none"]\nsecret = "none"\n')
    put(files, "default/post.d/a", "#!/bin/sh\nid\n", 0o755)
    told = rack.head.render("node01")
    rows = {row["path"]: row for row in told["files"]}
    assert rows["etc/pw"]["size"] == len("password=‹secret pw›\n".encode()) and rows["etc/pw"]["mode"] == "0600"
    assert (rows["etc/key"]["kind"], rows["etc/key"]["size"]) == ("secret", 6)
    assert "line 1: 'nothing' is undefined" in rows["etc/bad"]["trouble"] and "no secret" in rows["etc/none"]["trouble"]
    assert told["trouble"].startswith("node01: ") and told["scripts"][0]["name"] == "post.d/a"
    assert rack.head.render_file("node01", "etc/pw") == {"path": "etc/pw", "text": "password=‹secret pw›\n"}
    assert rack.head.render_file("node01", "etc/key")["text"] == "‹secret pw›\n"
    assert rack.head.render_file("node01", "etc/bin")["base64"] == "/w=="
    assert rack.head.render_file("node01", "post.d/a")["text"] == "#!/bin/sh\nid\n"
    with pytest.raises(Unknown, match="node01 gets no file"):
        rack.head.render_file("node01", "etc/passwd")
    with pytest.raises(Unknown):
        rack.head.render("nobody")


def test_a_machine_nobody_has_seen_is_rendered_as_one_without_hardware(rack: Rack, files: Path) -> None:
    put(files, "default/overlay/etc/x.j2", "{{ facts.cores }}/{{ facts.disks | length }}")
    machine = rack.approved()
    assert rack.head.render_file("node01", "etc/x")["text"] == "0/0"
    machine.hello()
    assert rack.head.render_file("node01", "etc/x")["text"] == "4/1"


def test_an_order_before_the_first_boot_leaves_open_what_hardware_decides(rack: Rack, files: Path) -> None:
    template = put(files, "default/overlay/etc/x.j2", "{{ facts.disks[0].serial }}")
    machine = rack.approved()
    rack.head.install(["node01"])
    machine.hello()
    assert files_of(machine.plan())["etc/x"]["content"] == "S1"
    rack.approved(2)
    template.write_text("{{ facts.disks[7].serial }}")
    rack.head.install(["node02"])
    second = Machine(rack, 2, address=rack.head.node("node02")["address"])
    second.hello()
    with pytest.raises(GildError, match=r"node02: .*x\.j2, line 1"):
        second.plan()
    rack.approved(3)
    for text in ("{{ nothing }}", "{% if facts %}"):
        template.write_text(text)
        with pytest.raises(Wrong, match=r"node03: .*x\.j2, line 1"):
            rack.head.install(["node03"])
