"""Commands: what a missing, failing, hanging or talkative program turns into."""

from __future__ import annotations

import os
import signal
import stat
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from images.errors import CommandFailed, ToolMissing
from images.run import LAST_LINES, attached, beside, leave, pipe, run, stream, tail

ROOT = Path(__file__).resolve().parents[2]


def test_output_comes_back_whole() -> None:
    done = run(["sh", "-c", "printf 'out\\0put'; printf err >&2"])
    assert (done.returncode, done.stdout, done.stderr) == (0, b"out\0put", b"err")


def test_input_and_environment_reach_the_program(tmp_path: Path) -> None:
    done = run(
        ["sh", "-c", 'cat; echo "$COLOUR $LC_ALL $PWD"'], input=b"in\n", env={"COLOUR": "red"}, cwd=str(tmp_path)
    )
    assert done.stdout.decode() == f"in\nred C.UTF-8 {tmp_path}\n"


def test_a_program_that_asks_gets_no_answer_instead_of_hanging() -> None:
    assert run(["sh", "-c", "read answer || echo none"], timeout=10).stdout == b"none\n"


@pytest.mark.parametrize("start", [run, lambda argv, act="": stream(argv, print, act=act)], ids=["run", "stream"])
def test_a_missing_tool_names_its_package(monkeypatch: pytest.MonkeyPatch, start: object) -> None:
    assert callable(start)
    monkeypatch.setattr("shutil.which", lambda name, path=None: None)
    with pytest.raises(ToolMissing, match="making a filesystem: mke2fs is not installed") as caught:
        start(["mke2fs", "x"], act="making a filesystem")
    assert caught.value.hint == "apt install e2fsprogs"
    with pytest.raises(ToolMissing, match="running a command: no-such-tool is not installed") as caught:
        start(["no-such-tool"])
    assert caught.value.hint == ""


def test_tools_of_the_system_are_found_with_a_users_path(tmp_path: Path) -> None:
    assert run(["losetup", "--version"], env={"PATH": "/usr/bin:/bin"}).stdout.startswith(b"losetup")
    mine = tmp_path / "mine"
    mine.write_text("#!/bin/sh\necho mine\n")
    mine.chmod(mine.stat().st_mode | stat.S_IXUSR)
    assert run(["mine"], env={"PATH": os.fspath(tmp_path)}).stdout == b"mine\n"


def test_a_failing_tool_shows_the_end_of_what_it_said() -> None:
    script = "echo one >&2; echo two >&2; echo >&2; echo three >&2; printf 'four\\033[0m\\n' >&2; exit 3"
    with pytest.raises(CommandFailed) as caught:
        run(["sh", "-c", script], act="checking the disk")
    assert caught.value.message == "checking the disk: sh failed (3): two | three | four?[0m"
    assert run(["sh", "-c", "exit 3"], check=False).returncode == 3
    with pytest.raises(CommandFailed, match=r"sh: sh failed \(4\): on stdout"):
        run(["sh", "-c", "echo on stdout; exit 4"])


def test_what_takes_too_long_is_ended() -> None:
    with pytest.raises(CommandFailed, match="waiting: sleep did not end within 0 s"):
        run(["sleep", "60"], timeout=0.05, act="waiting")


def test_what_cannot_be_started_is_one_line(tmp_path: Path) -> None:
    script = tmp_path / "script"
    script.write_text("#!/no/such/interpreter\n")
    script.chmod(0o755)
    with pytest.raises(CommandFailed, match="cannot be started: No such file"):
        run([os.fspath(script)])
    with pytest.raises(CommandFailed, match="cannot be started: No such file"):
        stream([os.fspath(script)], print)
    with pytest.raises(CommandFailed, match="true cannot be started: No such file"):
        run(["true"], cwd=os.fspath(tmp_path / "gone"))


def test_lines_are_heard_as_they_come() -> None:
    # The program goes on only after its first line was heard.
    read, write = os.pipe()
    heard: list[str] = []

    def hear(line: str) -> None:
        heard.append(line)
        if line == "first":
            os.write(write, b"go\n")

    try:
        script = f"echo first; read x < /proc/{os.getpid()}/fd/{read}; echo then $x >&2; printf '\\377 last  '"
        stream(["sh", "-c", script], hear, timeout=20)
    finally:
        os.close(read)
        os.close(write)
    assert heard == ["first", "then go", "\ufffd last"]


def test_a_failing_stream_shows_its_last_lines() -> None:
    with pytest.raises(CommandFailed, match=r"building: sh failed \(2\): 98 \| 99 \| 100$"):
        stream(["sh", "-c", "seq 100; exit 2"], lambda line: None, act="building")
    assert LAST_LINES < 100


def test_a_silent_stream_is_ended_with_all_it_started() -> None:
    # The child's child holds the pipe; killing the child alone would leave the reader waiting for it.
    heard: list[str] = []
    with pytest.raises(CommandFailed, match="building: sh did not end within 0 s"):
        stream(["sh", "-c", "sleep 60 & echo $!; wait"], heard.append, timeout=0.3, act="building")
    assert ended(int(heard[0]))


def test_a_listener_that_fails_ends_the_program() -> None:
    heard: list[str] = []

    def hear(line: str) -> None:
        heard.append(line)
        raise ValueError("enough")

    with pytest.raises(ValueError, match="enough"):
        stream(["sh", "-c", "echo $$; exec sleep 60"], hear)
    assert ended(int(heard[0]))


def test_a_program_that_will_not_end_is_killed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("images.run.GRACE", 0.1)
    heard: list[str] = []
    with pytest.raises(CommandFailed, match="did not end within"):
        stream(["sh", "-c", "trap '' TERM; echo $$; while :; do sleep 1; done"], heard.append, timeout=0.3)
    assert ended(int(heard[0]))


def test_a_program_may_clean_up(tmp_path: Path) -> None:
    mark = tmp_path / "cleaned"
    with pytest.raises(CommandFailed, match="did not end within"):
        stream(["sh", "-c", f"trap 'touch {mark}; exit 1' TERM; sleep 60 & wait"], lambda line: None, timeout=0.3)
    assert mark.exists()


def ended(pid: int) -> bool:
    """Gone, or a zombie nobody has collected; a killed process closes its files a moment before it is that."""
    for _ in range(100):
        try:
            with open(f"/proc/{pid}/stat", encoding="ascii", errors="replace") as file:
                if file.read().rpartition(")")[2].split()[0] in "ZX":
                    return True
        except (FileNotFoundError, ProcessLookupError):
            return True
        time.sleep(0.02)
    return False


@pytest.mark.parametrize(
    ("output", "said"),
    [
        (b"", "no output"),
        (b"\n \n", "no output"),
        (b"a\nb\nc\nd\n", "b | c | d"),
        (b"bell\x07 \xff", "bell? \ufffd"),
        (b"x" * 5000, "x" * 400),
    ],
)
def test_the_tail_is_one_printable_line(output: bytes, said: str) -> None:
    assert tail(output) == said


# --- pipe


def test_a_pipe_gives_output_as_it_comes_and_takes_any_input() -> None:
    given = bytes(range(256)) * 10_000
    with pipe(["cat"], input=given) as out:
        assert out.read(5) == given[:5] and out.read() == given[5:]
    with pipe(["sh", "-s"], input=b"echo $COLOUR; echo noise >&2", env={"COLOUR": "red"}) as out:
        assert out.read() == b"red\n"


def test_what_a_failed_program_says_counts_more_than_what_was_made_of_its_output() -> None:
    with (
        pytest.raises(CommandFailed, match=r"reading gold: sh failed \(3\): no such disk"),
        pipe(["sh", "-c", "echo half; echo no such disk >&2; exit 3"], act="reading gold") as out,
    ):
        assert out.read() == b"half\n"
        raise ValueError("half is not whole")
    with pytest.raises(CommandFailed, match="failed"), pipe(["false"]):
        pass


def test_an_error_in_the_block_ends_the_program(tmp_path: Path) -> None:
    told = tmp_path / "ended"
    script = f"trap 'echo ended > {told}; exit 1' TERM; echo begun; while :; do sleep 0.01; done"
    with pytest.raises(ValueError, match="enough"), pipe(["sh", "-c", script]) as out:
        assert out.readline() == b"begun\n"
        raise ValueError("enough")
    assert told.read_text() == "ended\n"


def test_a_piped_program_that_takes_too_long_is_ended() -> None:
    with pytest.raises(CommandFailed, match="did not end within"), pipe(["sleep", "60"], timeout=0.05) as out:
        assert out.read() == b""


def test_only_the_last_of_a_long_complaint_is_kept() -> None:
    with pytest.raises(CommandFailed) as caught, pipe(["sh", "-c", "yes bad | head -n 100000 >&2; exit 1"]):
        pass
    assert len(str(caught.value)) < 500


def test_attached_shares_input_output_and_open_files(capfd: pytest.CaptureFixture[str]) -> None:
    read, write = os.pipe()
    try:
        assert attached(["sh", "-c", f"echo out; echo open > /dev/fd/{write}; exit 7"], fds=[write]) == 7
        assert os.read(read, 10) == b"open\n" and capfd.readouterr().out == "out\n"
    finally:
        os.close(read)
        os.close(write)
    assert attached(["sh", "-c", "kill -9 $$"]) == 128 + signal.SIGKILL


def test_attached_does_not_leave_a_program_that_takes_ctrl_c_itself() -> None:
    """Ctrl-C on a terminal goes to both: we wait on."""
    assert (
        attached(
            ["sh", "-c", f"trap 'exit 9' INT; sleep 0.1; kill -INT {os.getpid()}; sleep 0.1; kill -INT $$; sleep 1"]
        )
        == 9
    )


def test_attached_names_what_cannot_be_started(tmp_path: Path) -> None:
    with pytest.raises(ToolMissing, match="opening a shell: no-such-tool is not installed"):
        attached(["no-such-tool"], act="opening a shell")
    (tmp_path / "tool").write_text("#!/nonexistent\n")
    (tmp_path / "tool").chmod(0o755)
    with pytest.raises(CommandFailed, match="cannot be started"):
        attached([str(tmp_path / "tool")])


# --- a program that runs beside this one


def test_lines_come_while_it_runs_and_it_ends_with_the_block() -> None:
    lines: list[str] = []
    with beside(["sh", "-c", "echo $$; echo oops >&2; sleep 600"], lines.append) as wait:
        assert wait(0.05) is None
        wait_until(lambda: len(lines) == 2)
    assert lines[1] == "oops"
    with pytest.raises(ProcessLookupError):
        os.kill(int(lines[0]), 0)


def test_its_end_and_all_it_said_are_known_together() -> None:
    lines: list[str] = []
    with beside(["sh", "-c", "seq 1000; exit 3"], lines.append) as wait:
        assert wait(20) == 3 and len(lines) == 1000
        assert wait(0) == 3


def test_what_it_leaves_running_ends_with_it() -> None:
    lines: list[str] = []
    with beside(["sh", "-c", "sleep 600 & echo $!"], lines.append) as wait:
        assert wait(20) == 0
        wait_until(lambda: _gone(int(lines[0])))


def _gone(pid: int) -> bool:
    """Ended, whether or not somebody has waited for it yet."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] in "ZX"
    except (FileNotFoundError, ProcessLookupError):
        return True


def test_a_bare_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GILD_TEST", "secret")
    lines: list[str] = []
    with beside(["env"], lines.append, env={"A": "b"}, bare=True) as wait:
        assert wait(20) == 0
    assert {line.partition("=")[0] for line in lines} == {"A", "LC_ALL", "PATH"}
    with beside(["env"], lines.append) as wait:
        assert wait(20) == 0
    assert "GILD_TEST=secret" in lines


def test_its_input_ends_with_this_process(tmp_path: Path) -> None:
    """The one in the middle is killed, so that it cannot end anything; the one below it learns it by its input."""
    gone = tmp_path / "gone"
    middle = (
        "import os\nfrom images.run import beside\n"
        "def end(line):\n    os.kill(os.getpid(), 9)\n"
        f"with beside(['sh', '-c', 'echo up; cat; echo gone > {gone}'], end) as wait:\n"
        "    wait(30)\n"
    )
    done = run([sys.executable, "-c", middle], cwd=str(ROOT), check=False, timeout=60)
    assert done.returncode == -signal.SIGKILL
    wait_until(gone.exists)


def wait_until(happened: Callable[[], bool]) -> None:
    end = time.monotonic() + 30
    while not happened():
        assert time.monotonic() < end, "it has not happened"
        time.sleep(0.02)


def test_what_is_left_behind_goes_on_by_itself(tmp_path: Path) -> None:
    log = tmp_path / "log"
    script = "import os, sys; print(os.getsid(0) == os.getpid(), sys.stdin.read() == '', flush=True)"
    for code in (0, 3):
        ended = leave([sys.executable, "-c", f"{script}; sys.exit({code})"], log)
        while ended() is None:
            time.sleep(0.01)
        assert ended() == code
    # Its own session, no input, and the log is added to and private.
    assert log.read_text() == "True True\n" * 2 and stat.S_IMODE(log.stat().st_mode) == 0o600
    with pytest.raises(CommandFailed, match="nowhere"):
        leave([sys.executable, "-c", ""], tmp_path / "nowhere" / "log", act="starting nowhere")
