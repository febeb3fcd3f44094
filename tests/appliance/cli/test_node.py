"""Node verbs against the real process, as somebody at the keyboard types them."""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from appliance.cli.main import run
from images import working
from images.options import Options
from images.store import Store
from netboot.report import HELLO, Disk, Facts, Hello, Nic
from netboot.wire import encode
from tests.appliance.process import MAC, Served, rack_of_one
from tests.images.tinytree import tiny_tree

Say = Callable[..., tuple[int, str, str]]
pytestmark = pytest.mark.root
OTHER = "52:54:00:00:77:02"


@pytest.fixture(scope="module")
def head(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with rack_of_one() as served:
        store = Store(served.paths.images)
        with store.lineage_lock("compute"):
            working.publish_tree(
                store, "compute", tiny_tree(tmp_path_factory.mktemp("node") / "tree"), Options(tag=True)
            )
        served.start()
        served.source = served.dhcp()
        yield served


@pytest.fixture
def say(head: Served, capsys: pytest.CaptureFixture[str]) -> Say:
    """Run a verb: exit code, output, error output."""

    def call(*arguments: str) -> tuple[int, str, str]:
        capsys.readouterr()
        code = run(["--state", str(head.state), *arguments])
        said = capsys.readouterr()
        return code, said.out, said.err

    return call


def as_json(said: tuple[int, str, str]) -> Any:
    assert said[0] == 0, said[2]
    return json.loads(said[1])


def appear(head: Served, mac: str, vendor: str = "Acme") -> None:
    disk = Disk("/dev/sda", 500_000_000_000, "Disk", "S1", bus="sata", content="ext4 'old [red]'")
    facts = Facts("uefi", vendor=vendor, product="Box", disks=(disk,), nics=(Nic("eth0", mac, boot=True),), cores=4)
    assert head.tls(HELLO, encode(Hello(mac, facts))).status == 200


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_nobody_has_come_yet(say: Say) -> None:
    code, out, _ = say("node", "list")
    assert code == 0 and "network boot first" in out
    assert as_json(say("node", "list", "--json")) == []
    assert say("node", "list", "-q") == (0, "", "")
    assert "nobody is in the waiting room" in say("node", "approve", "--all")[1]
    assert "no machine" in say("watch", "--once")[1]


def test_from_the_waiting_room_to_an_order(head: Served, say: Say, monkeypatch: pytest.MonkeyPatch) -> None:
    appear(head, MAC)
    assert say("node", "list", "-q")[1] == f"{MAC}\n"
    table = say("node", "list")[1]
    assert "#1" in table and "waiting" in table and "Acme Box" in table
    assert "not approved" in say("node", "show", "1")[1]
    (row,) = as_json(say("node", "approve", "1", "--name", "login", "--json"))
    assert row["name"] == "login"
    page = say("node", "show", "login")[1]
    assert "ext4 'old [red]'" in page and "500 GB" in page and "Acme Box" in page and "4 cores" in page

    code, out, err = say("node", "install", "login", "--preview")
    assert code == 0 and "compute:1" in out and "500 GB" in out and "old [red]" in out and not err
    assert as_json(say("node", "install", "login", "--preview", "--json"))[0]["node"] == "login"
    code, out, err = say("node", "install", "login")
    assert code == 1 and "500 GB" in out and "--yes" in err
    monkeypatch.setattr("sys.stdin", Terminal("n\n"))
    code, out, err = say("node", "install", "login")
    assert code == 8 and "Erase the disk" in out and "nothing was done" in err
    assert not as_json(say("node", "show", "login", "--json"))["ordered"]
    monkeypatch.setattr("sys.stdin", Terminal("yes\n"))
    assert say("node", "install", "login")[0] == 0
    assert as_json(say("node", "show", "login", "--json"))["ordered"]
    assert say("node", "cancel", "login")[1] == "1 cancelled\n"
    assert as_json(say("node", "install", "--all", "--yes", "--json"))[0]["image"] == "compute:1"
    assert say("node", "cancel", "--all")[1] == "1 cancelled\n"

    assert say("node", "set", "login", "--name", "first")[1] == "first is set\n"
    assert "name first" in say("node", "log", "first")[1]
    events = as_json(say("node", "log", "first", "--json"))
    assert [event["id"] for event in events] == sorted(event["id"] for event in events)
    assert as_json(say("node", "log", "first", "--json", "--after", str(events[-1]["id"]))) == []
    appear(head, OTHER, vendor="Bad\x1b[31mActor")
    assert "\x1b" not in say("node", "list")[1] + say("node", "show", "2")[1] + say("watch", "--once")[1]
    monkeypatch.setattr("sys.stdin", io.StringIO())
    assert say("node", "rm", "first")[0] == 1
    assert say("node", "rm", "first", "2", "--yes")[1] == "2 forgotten\n"
    assert as_json(say("node", "list", "--json")) == []


@pytest.mark.parametrize(
    ("arguments", "code", "word"),
    [
        (("show", "nobody"), 3, "nobody"),
        (("log", "nobody"), 3, "nobody"),
        (("approve",), 1, "--all"),
        (("approve", "x", "--all"), 1, "--all"),
        (("approve", "nobody"), 3, "nobody"),
        (("approve", "--all", "--profile", "none"), 3, "profiles: default"),
        (("install", "nobody", "--yes"), 3, "nobody"),
        (("install", "--all", "--finish", "explode"), 2, "kexec"),
        (("set", "nobody"), 1, "node set --help"),
        (("set", "nobody", "--name", "x"), 3, "nobody"),
        (("set", "nobody", "--loader", "x"), 2, "secure"),
        (("cancel",), 1, "--all"),
        (("rm",), 2, "NODES"),
        (("rm", "nobody", "--yes"), 3, "nobody"),
        (("log", "x", "--after", "y"), 2, "--after"),
    ],
)
def test_an_error_names_what_and_the_way_out(say: Say, arguments: tuple[str, ...], code: int, word: str) -> None:
    found, _, err = say("node", *arguments)
    assert found == code and word in err and len(err.splitlines()) <= 4, err


def test_an_image_that_a_profile_asks_for_stays(say: Say) -> None:
    assert say("profile", "set", "held", "--image", "compute")[0] == 0
    for words in (("compute", "--all"), ("compute:1",)):
        code, _, err = say("image", "rm", *words, "--yes")
        assert code == 1 and "profile held is for compute" in err and "profile set held" in err


def test_rules_are_added_listed_and_removed(say: Say) -> None:
    code, out, _ = say("rule", "add", "vendor=Nobody*", "memory=64GiB+", "--names", "big{n}", "--group", "rack1")
    assert code == 0 and out == "rule 1: vendor=Nobody* memory=64GiB+\n"
    assert as_json(say("rule", "add", "--wait", "--before", "1", "--json"))["act"] == "wait"
    assert [rule["id"] for rule in as_json(say("rule", "list", "--json"))] == [2, 1]
    assert "every machine" in say("rule", "list")[1]
    code, _, err = say("rule", "add", "colour=red")
    assert code != 0 and "'colour=red' is not a condition" in err and "vendor, serial" in err
    for number in ("1", "2"):
        assert say("rule", "rm", number)[0] == 0
    assert say("rule", "rm", "1")[0] == 3 and as_json(say("rule", "list", "--json")) == []
