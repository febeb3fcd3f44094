"""From a file an admin edits to the file on a node: the real process on one side, the agent's own code on the other."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from appliance.cli.main import run
from images import working
from images.edits import all as edits
from images.options import Options
from images.store import Store
from netboot.agent import overlay
from netboot.agent.link import HeadRefused, Link
from netboot.plan import InstallPlan
from netboot.report import Disk, Facts, Nic, Report
from tests.appliance.process import MAC, Served, rack_of_one
from tests.appliance.test_overlays import put
from tests.images.tinytree import tiny_tree
from tests.netboot.lan import HEAD_IP

pytestmark = pytest.mark.root
SECRET = "hunter2-Zq81"
FACTS = Facts(
    "uefi", vendor="Acme", product="Box", disks=(Disk("/dev/sda", 500_000_000_000, "Disk", "S1", bus="sata"),),
    nics=(Nic("eth0", MAC, boot=True),), cores=4, memory=8 << 30,
)  # fmt: skip


@pytest.fixture(scope="module")
def head(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with rack_of_one() as served:
        store = Store(served.paths.images)
        with store.lineage_lock("compute"):
            tree = tiny_tree(tmp_path_factory.mktemp("site") / "tree")
            working.publish_tree(store, "compute", tree, Options(tag=True))
        served.start()
        served.source = served.dhcp()
        # The agent speaks from the address it was given.
        lan = served.lan
        lan.ip("-n", lan.node, "route", "replace", "10.77.0.0/24", "dev", "node0", "src", served.source)
        yield served


@pytest.fixture
def say(head: Served, capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str, str]]:
    def call(*arguments: str) -> tuple[int, str, str]:
        capsys.readouterr()
        code = run(["--state", str(head.state), *arguments])
        said = capsys.readouterr()
        return code, said.out, said.err

    return call


class Agent:
    """The agent's link on the machine's end of the cable."""

    def __init__(self, head: Served) -> None:
        self.head = head
        self.link = Link(HEAD_IP, 443, (head.paths.keys / "head.pem").read_text())

    def __call__(self, work: Callable[[Link], Any]) -> Any:
        with self.head.lan.at_node():
            return work(self.link)


def test_from_an_editor_to_a_node(head: Served, say: Callable[..., tuple[int, str, str]], tmp_path: Path) -> None:
    files = head.paths.profiles
    large = bytes(range(256)) * 20_000
    put(files, "base/overlay/etc/motd", "welcome\n", 0o640)
    put(files, "base/overlay/opt/large.bin", large, 0o600)
    put(files, "login/overlay/etc/app.conf.j2", "name={{ node.name }}\npassword={{ secret('pw') }}\n", 0o600)
    (files / "login/overlay/etc/link").symlink_to("motd")
    put(files, "login/overlay.toml", '["etc/key"]\nsecret = "key"\nmode = "0400"\nowner = "12"\n')
    put(files, "login/post.d/10-join", "#!/bin/sh\nexit 0\n", 0o755)
    key, output = tmp_path / "key", list[str]()
    key.write_bytes(SECRET.encode() + b"\xff")

    def did(*arguments: str, code: int = 0) -> str:
        found, out, err = say(*arguments)
        assert found == code, err
        output.extend((out, err))
        return out + err

    for name in ("base", "login"):
        did("profile", "set", name)
    did("profile", "set", "login", "--extends", "base", "--cmdline", "quiet")
    agent = Agent(head)
    agent(lambda link: link.hello(MAC, FACTS))
    did("node", "approve", "1", "--name", "login1", "--profile", "login")
    assert "no secret 'pw'" in did("node", "install", "login1", "--preview", code=1)
    (tmp_path / "pw").write_text(SECRET)
    did("secret", "set", "pw", str(tmp_path / "pw"), "--profile", "base")
    did("secret", "set", "key", str(key), "--node", "login1")
    told = did("profile", "render", "login1")
    shown = ("/etc/app.conf (template)", "/etc/key (secret)", "/etc/link -> motd", "/opt/large.bin", "profile base")
    for words in (*shown, "script post.d/10-join", "12:root", "0640"):
        assert words in told, words
    assert did("profile", "render", "login1", "etc/app.conf") == "name=login1\npassword=‹secret pw›\n"
    assert json.loads(did("profile", "render", "login1", "--json"))["trouble"] == ""
    assert did("profile", "render", "login1", "--diff", "login1") == ""
    did("node", "install", "login1", "--yes")

    answer = agent(lambda link: link.next(10))
    plan: InstallPlan = agent(lambda link: link.plan(answer.token))
    assert (plan.profile, plan.cmdline, [script.name for script in plan.post]) == ("login", "quiet", ["post.d/10-join"])
    plan = agent(lambda link: overlay.gather(plan, link, str(tmp_path / "run"), output.append))
    root = tmp_path / "root"
    root.mkdir()
    assert plan.edits[-1].edit == "files"
    output += edits.apply("files", str(root), plan.edits[-1].options)
    assert (root / "etc/app.conf").read_text() == f"name=login1\npassword={SECRET}\n"
    assert (root / "etc/key").read_bytes() == SECRET.encode() + b"\xff" and (root / "etc/key").stat().st_uid == 12
    assert (root / "opt/large.bin").read_bytes() == large and (root / "etc/motd").stat().st_mode & 0o777 == 0o640
    assert (root / "etc/link").readlink() == Path("motd")

    agent(lambda link: link.report(Report("", lines=tuple(output[-5:]))))
    put(files, "base/overlay/opt/large.bin", large + b"x")
    stamp = "-".join(str(n) for n in (1, 2, 3, 4))
    with pytest.raises(HeadRefused, match="is not what it was when the plan was made"):
        agent(lambda link: link.file("opt/large.bin", stamp, 0))
    for arguments in (("node", "show", "login1"), ("node", "show", "login1", "--json"), ("node", "log", "login1"),
                      ("status",), ("secret", "list"), ("profile", "show", "login"), ("node", "list", "--json"),
                      ("backup", str(tmp_path / "b.tar")), ("profile", "show", "login", "--json"),
                      ("profile", "show", "--node", "login1")):  # fmt: skip
        did(*arguments)
    assert SECRET not in "".join(output) and SECRET not in head.log
