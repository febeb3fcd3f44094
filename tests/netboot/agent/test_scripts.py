"""Scripts of the site: in the installer, and in the written tree."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest

from netboot.agent import scripts
from netboot.agent.scripts import MAX_LINES, ScriptFailed, after, before, interpreter
from netboot.plan import DiskRule, InstallPlan, Network, Script
from tests.images.shelltree import shell_tree


def plan(*scripts: Script) -> InstallPlan:
    return InstallPlan(
        order="7", node="n17", image="compute:3", manifest="", sources=(), disk=DiskRule(), layout=(),
        network=Network("52:54:00:00:77:01", "10.77.0.17", 24, domain="site"), edits=(), boot=(), profile="login",
        pre=tuple(one for one in scripts if one.name.startswith("pre")),
        post=tuple(one for one in scripts if one.name.startswith("post")),
    )  # fmt: skip


def script(name: str, text: str, seconds: int = 20) -> Script:
    return Script(name, text, "login", seconds)


class Here:
    """Runs scripts that come before, in a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.said = folder, list[str]()

    def run(self, *scripts: Script) -> list[str]:
        before(plan(*scripts), "/dev/vda", str(self.folder / "run"), self.said.append)
        assert not list((self.folder / "run").iterdir())
        return self.said


@pytest.fixture
def here(tmp_path: Path) -> Here:
    return Here(tmp_path)


SHELL = "#!/bin/sh\n"


def test_what_a_script_knows_and_says(here: Here) -> None:
    said = here.run(
        script("pre.d/10-a", SHELL + 'echo "$GILD_NODE $GILD_IMAGE $GILD_PROFILE $GILD_ADDRESS $GILD_MAC"\n'
               'echo "$GILD_DISK $GILD_STAGE $GILD_DOMAIN" >&2; cat\n'),
        script("pre.d/20-b", "#!/usr/bin/env python3\nimport os\nprint('python', os.environ['GILD_ORDER'])\n"),
    )  # fmt: skip
    assert said == [
        "pre.d/10-a of profile login runs", "pre.d/10-a: n17 compute:3 login 10.77.0.17 52:54:00:00:77:01",
        "pre.d/10-a: /dev/vda pre site", "pre.d/20-b of profile login runs", "pre.d/20-b: python 7",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("text", "seconds", "words"),
    [
        (SHELL + "echo one; echo no disk >&2; exit 3", 20, "script pre.d/a of profile login failed (3): no disk"),
        (SHELL + "echo waiting; sleep 60", 1, "script pre.d/a of profile login did not end within 1 s: waiting"),
        ("#!/bin/nonesuch\n", 20, "script pre.d/a of profile login cannot be started: "),
        (SHELL + "kill -9 $$", 20, "script pre.d/a of profile login failed (-9)"),
        ("echo\n", 20, "does not begin with the name of its interpreter"),
    ],
)  # fmt: skip
def test_a_failure_has_the_scripts_name_and_its_last_words(here: Here, text: str, seconds: int, words: str) -> None:
    with pytest.raises(ScriptFailed) as caught:
        before(plan(script("pre.d/a", text, seconds), script("pre.d/b", SHELL)), "", str(here.folder), here.said.append)
    assert words in caught.value.message and not any("pre.d/b" in line for line in here.said)


def test_what_it_says_is_bounded_and_printable(here: Here) -> None:
    loop = (
        "i=0; while [ $i -lt 2000 ]; do echo line $i; i=$((i+1)); done; printf 'a\\033[31mb\\rc%02000d\\n' 1; echo end"
    )
    said = here.run(script("pre.d/a", SHELL + loop))
    assert len(said) == MAX_LINES + 2 and said[-1] == f"pre.d/a says more than {MAX_LINES} lines; the rest is left out"
    here.said.clear()
    said = here.run(
        script("pre.d/a", SHELL + "printf 'a\\033[31mb\\302\\233\\342\\200\\256%02000d\\n' 1; printf '\\n\\n'")
    )
    assert len(said) == 2 and said[1].startswith("pre.d/a: a [31mb") and said[1].isprintable() and len(said[1]) < 320


def test_it_is_heard_of_while_it_says_nothing(here: Here, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scripts, "SIGN_OF_LIFE", 0.02)
    fifo = here.folder / "fifo"
    os.mkfifo(fifo)
    heard = threading.Event()

    def log(line: str) -> None:
        if "has been running for" in line and not heard.is_set():
            heard.set()
            threading.Thread(target=lambda: fifo.write_text("go\n"), daemon=True).start()

    before(plan(script("pre.d/a", SHELL + f"read x < {fifo}; [ $x = go ]")), "", str(here.folder / "run"), log)
    assert heard.is_set()


def test_an_order_that_is_taken_back_ends_it(here: Here) -> None:
    class Stopped(Exception):
        pass

    def log(line: str) -> None:
        if line.endswith("now"):
            raise Stopped

    with pytest.raises(Stopped):
        before(plan(script("pre.d/a", SHELL + "echo now; sleep 60; echo later")), "", str(here.folder), log)


@pytest.mark.parametrize(
    "wrong",
    [script("pre.d/../x", SHELL), script("pre.d/a", SHELL, 0), script("other/a", SHELL), script("pre.d/", SHELL)],
)
def test_a_plan_with_impossible_scripts(here: Here, wrong: Script) -> None:
    from dataclasses import replace

    with pytest.raises(ScriptFailed):
        before(replace(plan(), pre=(wrong,)), "", str(here.folder), here.said.append)
    with pytest.raises(ScriptFailed, match="129 scripts"):
        before(replace(plan(), pre=(script("pre.d/a", SHELL),) * 129), "", str(here.folder), here.said.append)


def test_interpreters() -> None:
    assert interpreter("#!/bin/sh -e\nx") == ["/bin/sh", "-e"] == interpreter("#! /bin/sh  -e ")
    assert interpreter("#!/usr/bin/env perl\n") == ["/usr/bin/env", "perl"]
    assert interpreter("#!/usr/bin/python3\n", "/x/py") == ["/x/py"] == interpreter("#!/usr/bin/env python3.9", "/x/py")
    assert interpreter("#!/usr/bin/python3 -I\n") == ["/usr/bin/python3", "-I"]


# --- in the written tree


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return shell_tree(tmp_path_factory.mktemp("post") / "tree")


@pytest.mark.root
def test_it_runs_in_the_tree_as_its_own_root(tree: Path, tmp_path: Path) -> None:
    said: list[str] = []
    text = (
        'echo "$GILD_NODE $GILD_PROFILE $GILD_STAGE $GILD_DISK $(hostname)"; echo made > /etc/made-by-script\n'
        "[ -e /dev/null ] && [ -d /proc/self ] && [ ! -e /dev/vda ] && echo devices\n"
        "read x; echo input $?; ls / | while read name; do [ $name = tree ] && echo outside; done; exit 0\n"
    )
    after(plan(script("post.d/10-a", SHELL + text)), "/dev/vda", str(tree), str(tmp_path / "run"), said.append)
    assert said[1:] == [
        "post.d/10-a: n17 login post /dev/vda n17", "post.d/10-a: devices", "post.d/10-a: input 1",
    ]  # fmt: skip
    assert (tree / "etc/made-by-script").read_text() == "made\n"
    assert os.listdir(tree / "run") == [] == os.listdir(tree / "proc") and not list((tmp_path / "run").iterdir())


@pytest.mark.root
def test_nothing_outlives_it(tree: Path, tmp_path: Path) -> None:
    said: list[str] = []
    after(plan(script("post.d/a", SHELL + "setsid sleep 4717 & echo away")), "", str(tree), str(tmp_path), said.append)
    assert said[-1] == "post.d/a: away"
    with pytest.raises(ScriptFailed, match="did not end within 1 s: here"):
        slow = script("post.d/a", SHELL + "setsid sleep 4717 & echo here; sleep 4717", 1)
        after(plan(slow), "", str(tree), str(tmp_path), said.append)
    for _ in range(100):
        left = [pid for pid in os.listdir("/proc") if pid.isdigit() and _command(pid) == b"sleep\x004717\0"]
        if not left:
            break
    assert not left and str(tree) not in Path("/proc/self/mounts").read_text()


@pytest.mark.root
@pytest.mark.parametrize(
    ("text", "words"),
    [
        (SHELL + "echo first; echo last words; exit 9", "script post.d/a of profile login failed (9): last words"),
        ("#!/usr/bin/nonesuch\n", "/usr/bin/nonesuch cannot be started in the image: No such file"),
    ],
)
def test_its_failure_is_told_in_its_own_words(tree: Path, tmp_path: Path, text: str, words: str) -> None:
    with pytest.raises(ScriptFailed) as caught:
        after(plan(script("post.d/a", text)), "", str(tree), str(tmp_path), lambda line: None)
    assert words in caught.value.message


def _command(pid: str) -> bytes:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""
