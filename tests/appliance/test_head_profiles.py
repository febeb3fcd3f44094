from __future__ import annotations

from typing import Any

import pytest

from appliance.errors import Unknown, Wrong
from images.edits.option import OptionInvalid
from images.errors import GildError
from netboot.profile import ProfileInvalid
from tests.appliance.rack import Rack


def values(rack: Rack, name: str) -> dict[str, tuple[str, str]]:
    return {key: (value, origin) for key, value, origin in rack.head.profile_values(name)["values"]}


def test_every_value_says_where_it_comes_from(rack: Rack) -> None:
    rack.head.profile_set("base", cmdline="quiet", finish="reboot")
    rack.head.profile_set("login", extends="base", image="compute", names="login{n}")
    found = values(rack, "login")
    assert found["image"] == ("compute", "from profile login") and found["cmdline"] == ("quiet", "from profile base")
    assert found["finish"] == ("reboot", "from profile base") and found["verify"] == ("sample", "from settings")
    assert found["names"] == ("login{n}", "from profile login") and found["disk"] == ("the only one", "from default")
    assert rack.head.profile_values("login")["chain"] == ["base", "login"]
    assert rack.head.profile("login")["cmdline"] == ""  # its own: what `profile set` takes back
    (row,) = [row for row in rack.head.profiles() if row["name"] == "login"]
    assert (row["cmdline"], row["nodes"]) == ("quiet", 0)


def test_what_a_profile_inherits_gets_to_the_plan_and_a_nodes_own_counts_more(rack: Rack) -> None:
    rack.head.profile_set("base", cmdline="quiet", finish="reboot", verify="full")
    rack.head.profile_set("login", extends="base", edits=[{"edit": "resolv", "options": {"dns": ["10.9.9.9"]}}])
    machine = rack.approved()
    rack.head.set(["node01"], profile="login", own={"cmdline": "mitigations=off", "verify": "none"})
    rack.head.install(["node01"])
    machine.hello()
    plan = machine.plan()
    assert (plan.cmdline, plan.finish, plan.verify, plan.profile) == ("mitigations=off", "reboot", "none", "login")
    edits = {edit.edit: edit.options for edit in plan.edits}
    assert edits["resolv"] == {"dns": ["10.9.9.9"], "domain": "cluster.internal"}
    assert rack.head.node("node01")["own"] == {"cmdline": "mitigations=off", "verify": "none"}
    told = {key: (value, origin) for key, value, origin in rack.head.node_values("node01")["values"]}
    assert told["cmdline"] == ("mitigations=off", "from node") and told["finish"] == ("reboot", "from profile base")
    assert "cmdline mitigations=off, verify none" in rack.timeline("node01")
    rack.stop()
    rack.start()
    assert rack.head.node("node01")["own"]["verify"] == "none"
    rack.head.set(["node01"], own={"verify": ""})
    assert rack.head.node("node01")["own"] == {"cmdline": "mitigations=off"}


def test_a_circle_is_refused_wherever_it_closes(rack: Rack) -> None:
    rack.head.profile_set("a")
    rack.head.profile_set("b", extends="a")
    for parent in ("b", "a"):
        with pytest.raises(ProfileInvalid, match="in a circle"):
            rack.head.profile_set("a", extends=parent)
    with pytest.raises(ProfileInvalid, match="no profile 'none'"):
        rack.head.profile_set("c", extends="none")
    assert rack.head.profile("a")["extends"] == "" and {row["name"] for row in rack.head.profiles()} == {
        "a", "b", "default",
    }  # fmt: skip


def test_names_come_from_the_profile(rack: Rack) -> None:
    rack.head.profile_set("base", names="gpu{n:03}")
    rack.head.profile_set("gpu", extends="base")
    for number in (1, 2, 3):
        rack.machine(number).boot()
    assert [row["name"] for row in rack.head.approve(["1", "2"], profile="gpu")] == ["gpu001", "gpu002"]
    assert [row["name"] for row in rack.head.approve(["3"])] == ["node01"]


def test_one_that_is_in_use_stays(rack: Rack) -> None:
    rack.head.profile_set("a")
    rack.head.profile_set("b", extends="a")
    rack.approved()
    rack.head.set(["node01"], profile="b")
    for name, words in (("b", "node01 has the profile b"), ("a", "b extends a"), ("default", "stays")):
        with pytest.raises(Wrong, match=words):
            rack.head.profile_remove(name)
    with pytest.raises(Unknown):
        rack.head.profile_remove("none")
    rack.head.set(["node01"], profile="default")
    rack.head.secret_set("key", b"x", profile="b")
    rack.head.profile_remove("b")
    rack.head.profile_remove("a")
    rack.stop()
    rack.start()
    assert [row["name"] for row in rack.head.profiles()] == ["default"] and rack.head.secrets() == []


@pytest.mark.parametrize(
    ("given", "kind"),
    [
        ({"edits": [{"edit": "hostname", "options": {"name": "x"}}]}, Wrong),
        ({"edits": [{"edit": "machine_id"}]}, Wrong),
        ({"edits": [{"edit": "call_home", "options": {"url": "http://evil/"}}]}, Wrong),
        ({"edits": [{"edit": "none"}]}, Wrong),
        ({"edits": [{"edit": "hosts", "options": {"address": "10.0.0.1"}}]}, Wrong),
        ({"edits": [{"edit": "hosts", "options": {"entries": {"nowhere": "nas"}}}]}, OptionInvalid),
        ({"edits": [{"edit": "resolv", "options": {"dns": ["x"]}}]}, OptionInvalid),
        ({"edits": [{"edit": "resolv"}, {"edit": "resolv"}]}, Wrong),
        ({"edits": [{"edit": "files", "options": {"files": [{"path": "../x", "content": ""}]}}]}, OptionInvalid),
        ({"edits": [{"edit": "network", "options": {"name": "eth0"}}]}, OptionInvalid),
        ({"edits": [{"edit": "resolv", "more": 1}]}, Wrong), ({"edits": "x"}, GildError), ({"edits": [1]}, GildError),
        ({"names": "same"}, ProfileInvalid), ({"script_seconds": -1}, ProfileInvalid), ({"script_seconds": "x"}, Wrong),
        ({"extends": 5}, Wrong), ({"colour": "red"}, Wrong), ({"extends": "../x"}, ProfileInvalid),
    ],
)  # fmt: skip
def test_what_no_profile_can_say(rack: Rack, given: dict[str, Any], kind: type[GildError]) -> None:
    with pytest.raises(kind) as caught:
        rack.head.profile_set("x", **given)
    assert "\n" not in caught.value.message and [row["name"] for row in rack.head.profiles()] == ["default"]


def test_edits_that_a_profile_may_have(rack: Rack) -> None:
    edits = [
        {"edit": "hosts", "options": {"entries": {"10.5.5.5": "nas nas.site"}}},
        {"edit": "network", "options": {"gateway": "10.1.0.254", "dns": ["10.1.0.9"], "name": "fast0"}},
        {"edit": "files", "options": {"files": [{"path": "etc/motd", "content": "hello\n"}]}},
    ]
    rack.head.profile_set("default", edits=edits)
    assert rack.head.profile("default")["edits"] == edits
    machine = rack.approved()
    rack.head.install(["node01"])
    machine.hello()
    plan = machine.plan()
    found = {edit.edit: edit.options for edit in plan.edits}
    assert found["hosts"]["entries"] == {"10.1.0.1": "head.cluster.internal head", "10.5.5.5": "nas nas.site"}
    assert found["network"]["gateway"] == "10.1.0.254" and found["network"]["mac"] == machine.mac
    assert found["files"]["files"][0]["path"] == "etc/motd" and plan.edits[-1].edit == "files"
