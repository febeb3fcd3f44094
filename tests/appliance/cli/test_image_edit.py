"""gild image edit, from the command line: by command, by copies, by hand on a terminal, on a mounted copy."""

from __future__ import annotations

import os
import pty
import select
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from appliance.cli.main import run
from images.store import Store
from tests.images.shelltree import shell_tree

Say = Callable[..., tuple[int, str, str]]
ROOT = Path(__file__).parents[3]
pytestmark = [pytest.mark.root, pytest.mark.skipif(os.geteuid() != 0, reason="needs root")]


@pytest.fixture
def say(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> Say:
    """Run a verb on a store with one image, x: exit code, output, error output."""

    def call(*arguments: str) -> tuple[int, str, str]:
        capfd.readouterr()
        code = run(["--state", str(tmp_path / "state"), "image", *arguments])
        said = capfd.readouterr()
        return code, said.out, said.err

    assert call("import", str(shell_tree(tmp_path / "tree")), "--name", "x")[0] == 0
    return call


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "state/store")


def test_a_command_makes_a_version(say: Say, store: Store) -> None:
    code, out, _ = say("edit", "x", "--", "sh", "-c", "echo hello; touch /etc/made")
    assert code == 0 and out.startswith("hello\n0 changed, 1 added, 0 removed\n  + /etc/made\nx:2 is published (")
    manifest = store.load("x:2")[0]
    assert manifest.message == "sh -c 'echo hello; touch /etc/made'" and store.tag("x") == 1
    assert manifest.source["command"] == ["sh", "-c", "echo hello; touch /etc/made"]
    assert say("edit", "x", "--tag", "-m", "gone [again]", "--", "rm", "/etc/made")[0] == 0
    assert (store.tag("x"), store.load("x:3")[0].message, store.load("x:3")[0].parent) == (3, "gone [again]", 2)


def test_a_command_that_fails_keeps_nothing_unless_told(say: Say, store: Store) -> None:
    failing = ("--", "sh", "-c", "touch /etc/half; exit 3")
    code, _, err = say("edit", "x", *failing)
    assert code == 1 and "ended with exit code 3: nothing was kept" in err and "--keep" in err
    assert store.versions("x") == [1]
    assert say("edit", "x", "--keep", *failing)[0] == 0
    assert store.versions("x") == [1, 2]


def test_a_command_that_changes_nothing_makes_no_version(say: Say, store: Store) -> None:
    code, out, _ = say("edit", "x", "--", "ls", "/etc/fstab")
    assert code == 0 and "nothing was changed in x:1: there is no new version" in out and store.versions("x") == [1]


def test_files_are_copied(say: Say, store: Store, tmp_path: Path) -> None:
    (tmp_path / "a:b").write_text("text")
    (tmp_path / "dir").mkdir()
    (tmp_path / "dir/inside").write_text("text")
    code, out, _ = say("edit", "x", "--copy", f"{tmp_path}/a:b:/etc/motd", "--copy", f"{tmp_path}/dir:/opt/dir")
    assert code == 0 and "+ /etc/motd" in out and "+ /opt/dir/inside" in out
    assert store.load("x:2")[0].message == "copied a:b to /etc/motd; copied dir to /opt/dir"
    code, out, _ = say("edit", "x", "--copy", f"{tmp_path}/dir:/opt", "--", "cat", "/opt/inside")
    assert code == 0 and out.startswith("text")


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (("none",), 1, "needs a terminal"),
        (("none", "--yes"), 3, "no image 'none'"),
        (("x:9", "--", "ls"), 3, "no version 9"),
        (("x", "--", "nonsense"), 1, "nonsense cannot be started in the image"),
        (("x", "--copy", "motd:/etc/motd"), 1, "no motd to copy"),
        (("x", "--copy", "/etc/fstab:etc"), 1, "not SRC:DST"),
        (("x", "--copy", "/etc/fstab"), 1, "not SRC:DST"),
        (("x", "--publish", "--discard"), 1, "--publish goes with no other way"),
        (("x", "--mount", "/mnt", "--", "ls"), 1, "--mount goes with no other way"),
        (("x", "--publish"), 3, "no version of x is mounted"),
        (("x", "--discard"), 3, "no version of x is mounted"),
        (("x", "--mount", "/nonexistent"), 1, "no empty directory"),
    ],
)
def test_an_error_is_a_line_and_a_hint(say: Say, arguments: tuple[str, ...], code: int, words: str) -> None:
    found, _, err = say("edit", *arguments)
    lines = [line for line in err.splitlines() if not line.startswith("edit: ")]
    assert found == code and words in err and lines[0].startswith("gild: ") and len(lines) <= 2, err


def test_a_copy_is_mounted_for_other_tools(say: Say, store: Store, tmp_path: Path) -> None:
    at = tmp_path / "at"
    at.mkdir()
    code, out, _ = say("edit", "x", "--mount", str(at))
    assert code == 0 and "x:1 is mounted on" in out and "--publish -m MESSAGE" in out
    (at / "etc/motd").write_text("new")
    code, _, err = say("edit", "x", "--", "ls")
    assert code == 7 and "x:1 is open for editing" in err and str(at) in err
    code, out, _ = say("edit", "x", "--publish", "-m", "motd")
    assert code == 0 and "+ /etc/motd" in out and "x:2 is published" in out
    assert say("edit", "x:1", "--mount", str(at))[0] == 0
    code, _, err = say("edit", "x", "--discard")
    assert code == 1 and "--yes" in err
    assert say("edit", "x", "--discard", "--yes")[:2] == (0, "thrown away; no version was changed\n")
    assert list(at.iterdir()) == [] and store.versions("x") == [1, 2]


class Terminal:
    """A person at a terminal: the real process behind a pty, waited for word by word."""

    def __init__(self, state: Path, *arguments: str) -> None:
        self.seen = ""
        child, self.fd = pty.fork()
        if child == 0:
            os.chdir(ROOT)
            argv = [sys.executable, "-m", "appliance", "--state", str(state), "image", *arguments]
            os.execve(sys.executable, argv, {**os.environ, "TERM": "dumb", "ENV": ""})
        self.process = child

    def until(self, word: str) -> None:
        """Read until the word was seen; what came with it is forgotten."""
        while word not in self.seen:
            ready, _, _ = select.select([self.fd], [], [], 30)
            assert ready, f"{word!r} did not come after {self.seen!r}"
            try:
                piece = os.read(self.fd, 4096)
            except OSError:
                piece = b""
            assert piece, f"{word!r} did not come before the end: {self.seen!r}"
            self.seen += piece.decode()
        self.seen = self.seen.partition(word)[2]

    def type(self, text: str) -> None:
        """Press keys."""
        os.write(self.fd, text.encode())

    def end(self) -> int:
        """Wait for the end; its exit code."""
        try:
            while os.read(self.fd, 4096):
                pass
        except OSError:
            pass
        os.close(self.fd)
        return os.waitstatus_to_exitcode(os.waitpid(self.process, 0)[1])


def test_by_hand_one_goes_back_and_forth_and_publishes(say: Say, store: Store, tmp_path: Path) -> None:
    at = Terminal(tmp_path / "state", "edit", "x")
    at.until("This is x:1")
    at.until("(x:1) # ")
    at.type("touch /etc/one\n")
    at.until("(x:1) # ")
    at.type("sh -c 'echo now; exec sleep 500'\n")
    at.until("\nnow")
    at.type("\x03")  # Ctrl-C is for what runs in the shell
    at.until("(x:1) # ")
    at.type("\x04")
    at.until("+ /etc/one")
    at.until("[b]ack to the shell? ")
    at.type("\x04")  # pressed once too often
    at.until("[b]ack to the shell? ")
    at.type("b\n")
    at.until("(x:1) # ")
    at.type("touch /etc/two; exit 5\n")
    at.until("0 changed, 2 added, 0 removed")
    at.until("[b]ack to the shell? ")
    at.type("p\n")
    at.until("What is new in it? ")
    at.type("two files\n")
    at.until("x:2 is published")
    assert at.end() == 0
    assert store.load("x:2")[0].message == "two files" and store.load("x:2")[0].source["kind"] == "edit"


def test_by_hand_one_throws_away(say: Say, store: Store, tmp_path: Path) -> None:
    at = Terminal(tmp_path / "state", "edit", "x")
    at.until("(x:1) # ")
    at.type("touch /etc/one; exit\n")
    at.until("[b]ack to the shell? ")
    at.type("t\n")
    at.until("thrown away")
    assert at.end() == 0 and store.versions("x") == [1]


def test_a_closed_terminal_leaves_nothing_behind(say: Say, store: Store, tmp_path: Path) -> None:
    at = Terminal(tmp_path / "state", "edit", "x")
    at.until("(x:1) # ")
    at.type(f"touch /etc/one; (trap '' HUP; setsid sleep 4713{os.getpid()}) &\n")
    at.until("(x:1) # ")
    os.close(at.fd)
    os.waitpid(at.process, 0)
    for _ in range(100):
        if not any(
            _command(path) == f"sleep\0004713{os.getpid()}\0".encode() for path in Path("/proc").glob("[0-9]*/cmdline")
        ):
            break
        time.sleep(0.05)
    else:
        pytest.fail("what was started inside is still running")
    assert say("edit", "x", "--", "sh", "-c", "test ! -e /etc/one && touch /etc/two")[0] == 0
    assert store.versions("x") == [1, 2]


def test_a_script_on_the_input_is_a_shell_too(say: Say, store: Store, tmp_path: Path) -> None:
    argv = [sys.executable, "-m", "appliance", "--state", str(tmp_path / "state"), "image", "edit", "x", "--yes"]
    done = subprocess.run([*argv, "-m", "by script"], input=b"touch /etc/scripted\n", cwd=ROOT, capture_output=True)
    assert done.returncode == 0 and b"+ /etc/scripted" in done.stdout, done
    assert store.load("x:2")[0].message == "by script"


def _command(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:  # ended while we looked
        return b""
