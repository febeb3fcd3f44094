"""The only subprocess door: a command goes in, its output or one readable error comes out."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO

from images.errors import CommandFailed, ToolMissing

Done = subprocess.CompletedProcess[bytes]

# The package that brings a tool, for the hint when it is missing (Debian 12 names).
PACKAGE_OF = {
    "mke2fs": "e2fsprogs",
    "e2fsck": "e2fsprogs",
    "resize2fs": "e2fsprogs",
    "debugfs": "e2fsprogs",
    "sfdisk": "fdisk",
    "fstrim": "util-linux",
    "losetup": "mount",
    "mount": "mount",
    "umount": "mount",
    "mkfs.vfat": "dosfstools",
    "mmdebstrap": "mmdebstrap",
    "dpkg-deb": "dpkg",
    "btrfs": "btrfs-progs",
    "xfs_growfs": "xfsprogs",
    "efibootmgr": "efibootmgr",
    "ip": "iproute2",
    "ipmitool": "ipmitool",
    "tar": "tar",
    "ssh": "openssh-client",
    "qemu-img": "qemu-utils",
}
LAST_LINES = 20  # of a streamed program's output, kept for the error message
LAST_LINE = 4096  # bytes of one such line
LONG_LINE = 1 << 16  # bytes of a line that is worked on; what is longer comes in pieces
PIPE_SIZE = 1 << 20  # bytes; fs.pipe-max-size, the most a process without privileges may ask for
GRACE = 5.0  # seconds between asking a program to end and killing it
STOP_LOOK = 0.2  # seconds between two looks whether somebody has had enough
LOOK = 0.02  # seconds between two looks whether a program has ended
FAILED_WAIT = 0.5  # seconds a program gets to say why its output made no sense


def run(
    argv: Sequence[str],
    *,
    input: bytes | None = None,  # noqa: A002  # the name subprocess uses
    env: Mapping[str, str] | None = None,
    cwd: str | None = None,
    timeout: float | None = 600,
    check: bool = True,
    act: str = "",
) -> Done:
    """Run `argv` to its end and return it with its output captured (bytes).

    `env` is added to this process's environment. Without `input` the program reads nothing: one that asks a question
    must not wait for an answer. `timeout` is in seconds; None waits for ever and is only for work whose length the
    user chose. `act` names what the command was for, for the error message.
    Raises ToolMissing if the program is not installed, CommandFailed if it cannot be started, fails (`check`) or takes
    too long.
    """
    full = _environment(argv, env, act)
    try:
        done = subprocess.run(
            argv, input=input or b"", capture_output=True, env=full, cwd=cwd, timeout=timeout, check=False
        )
    except subprocess.TimeoutExpired:
        raise CommandFailed(f"{act or argv[0]}: {argv[0]} did not end within {timeout:.0f} s") from None
    except OSError as error:
        raise _unstartable(argv, act, error) from None
    if check and done.returncode:
        raise CommandFailed(
            f"{act or argv[0]}: {argv[0]} failed ({done.returncode}): {tail(done.stderr or done.stdout)}"
        )
    return done


def stream(
    argv: Sequence[str],
    on_line: Callable[[str], None],
    *,
    env: Mapping[str, str] | None = None,
    timeout: float = 3600,
    act: str = "",
    stopped: Callable[[], bool] = lambda: False,
) -> None:
    """Run `argv` and hand each line of its merged output to `on_line` as it comes, for progress.

    Raises as `run` does. `timeout` is in seconds, for the whole of it; the program and whatever it started are then
    ended, and so they are if `on_line` raises, and soon after `stopped()`, however silent they are.
    """
    last: list[bytes] = []
    late, over = threading.Event(), threading.Event()
    proc = _started(argv, subprocess.DEVNULL, env, act)
    until = time.monotonic() + timeout

    def look() -> None:
        while not over.wait(STOP_LOOK):
            if time.monotonic() > until:
                late.set()
            if late.is_set() or stopped():
                _end_group(proc)
                return

    watch = threading.Thread(target=look, name="watch", daemon=True)
    with proc:
        assert proc.stdout is not None
        watch.start()
        try:
            for line in proc.stdout:
                last = [*last[1 - LAST_LINES :], line]
                on_line(line.decode("utf-8", "replace").rstrip())
            code = proc.wait()
        except BaseException:
            _end_group(proc)
            raise
        finally:
            over.set()
            watch.join()
    if late.is_set():
        raise CommandFailed(f"{act or argv[0]}: {argv[0]} did not end within {timeout:.0f} s")
    if code:
        raise CommandFailed(f"{act or argv[0]}: {argv[0]} failed ({code}): {tail(b''.join(last))}")


def _started(
    argv: Sequence[str], stdin: int, env: Mapping[str, str] | None, act: str, bare: bool = False
) -> subprocess.Popen[bytes]:
    """A program with its merged output in a pipe. Its group is its own: what it started holds the pipe open too, and
    would be waited for."""
    full = _environment(argv, env, act, bare)
    try:
        return subprocess.Popen(
            argv, stdin=stdin, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env=full, process_group=0
        )
    except OSError as error:
        raise _unstartable(argv, act, error) from None


def attached(argv: Sequence[str], *, fds: Sequence[int] = (), act: str = "") -> int:
    """Run `argv` on this process's own input, output and terminal, wait as long as it takes, and give its exit code, as
    the shell counts it (128 and the signal's number). `fds` are open files that it inherits beside them.
    Raises ToolMissing, CommandFailed if it cannot be started."""
    full = _environment(argv, None, act)
    try:
        proc = subprocess.Popen(argv, env=full, pass_fds=fds)
    except OSError as error:
        raise _unstartable(argv, act, error) from None
    while True:
        try:
            code = proc.wait()
        except KeyboardInterrupt:  # typed for the program, which has heard of it too
            continue
        return code if code >= 0 else 128 - code


def leave(
    argv: Sequence[str], log: Path, *, env: Mapping[str, str] | None = None, act: str = ""
) -> Callable[[], int | None]:
    """Start a program that goes on when this one has ended: in a session of its own, without input, its output added to
    the file `log` (mode 600). Gives a function that tells its exit code once it has ended, or None.
    Raises ToolMissing, CommandFailed if it cannot be started or the log cannot be written."""
    full = _environment(argv, env, act)
    try:
        with open(os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600), "wb") as out:
            proc = subprocess.Popen(
                argv, stdin=subprocess.DEVNULL, stdout=out, stderr=out, env=full, start_new_session=True, cwd="/"
            )
    except OSError as error:
        raise _unstartable(argv, act, error) from None
    return proc.poll


@contextlib.contextmanager
def beside(
    argv: Sequence[str],
    on_line: Callable[[str], None],
    *,
    input: bytes | None = None,  # noqa: A002  # the name subprocess uses
    env: Mapping[str, str] | None = None,
    bare: bool = False,
    act: str = "",
) -> Iterator[Callable[[float], int | None]]:
    """Run `argv` beside this process for as long as the block lasts; then it is ended with all it started.

    A thread hands each line of its merged output to `on_line`, which must not raise. Without `input` the program has an
    empty one, which ends when this process ends, however that happens: one that watches its input never outlives it.
    `bare` gives it `env` alone, nothing of this process's environment. Yields wait(seconds), which gives the exit code
    once it has ended within that time, or None; what it started and left running has ended then too.
    Raises ToolMissing, CommandFailed if it cannot be started.
    """
    with _given(input or b"") as given:
        proc = _started(argv, subprocess.PIPE if input is None else given.fileno(), env, act, bare)
    assert proc.stdout is not None
    output = proc.stdout

    def read() -> None:
        while line := output.readline(LONG_LINE):
            on_line(line.decode("utf-8", "replace").rstrip())

    def wait(seconds: float) -> int | None:
        end = time.monotonic() + seconds
        while proc.returncode is None and not _has_ended(proc):
            if time.monotonic() >= end:
                return None
            time.sleep(LOOK)
        if proc.returncode is None:
            _kill_group(proc)  # as long as it was not waited for, its number is nobody else's
        code = proc.wait()
        reader.join(GRACE)
        return code

    reader = threading.Thread(target=read, name="beside", daemon=True)
    with proc:
        reader.start()
        try:
            yield wait
        finally:
            _end_group(proc)
            reader.join(GRACE)


@contextlib.contextmanager
def pipe(
    argv: Sequence[str],
    *,
    input: bytes = b"",  # noqa: A002  # the name subprocess uses
    env: Mapping[str, str] | None = None,
    timeout: float = 86400,
    act: str = "",
) -> Iterator[IO[bytes]]:
    """Run `argv` with `input` to read, and yield what it prints as an open stream of bytes, for as much as there is.

    Raises as `run` does, on leaving the block too; what a program that failed has said counts more than what the block
    made of half its output. `timeout` is in seconds, for the whole of it. A program that still runs a while after the
    block was left, by an error or with bytes unread, is ended with all it started, and that is an error as well.
    """
    full = _environment(argv, env, act)
    last: list[bytes] = []
    late = threading.Event()
    with _given(input) as given:
        try:
            proc = subprocess.Popen(
                argv,
                stdin=given,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                env=full,
                process_group=0,
                pipesize=PIPE_SIZE,
            )
        except OSError as error:
            raise _unstartable(argv, act, error) from None
    assert proc.stdout is not None and proc.stderr is not None
    errors = proc.stderr

    def listen() -> None:
        while line := errors.readline(LAST_LINE):
            last[:] = [*last[1 - LAST_LINES :], line]

    def end() -> None:
        late.set()
        _end_group(proc)

    listener = threading.Thread(target=listen, name="errors", daemon=True)
    watch = threading.Timer(timeout, end)
    watch.daemon = True
    with proc:
        listener.start()
        watch.start()
        failure: Exception | None = None
        try:
            yield proc.stdout
        except Exception as error:
            failure = error
        finally:
            watch.cancel()
            watch.join()
            # A program whose output was read to its end ends by itself; one in the middle of it never does.
            with contextlib.suppress(subprocess.TimeoutExpired):
                proc.wait(GRACE if failure is None else FAILED_WAIT)
            ended = proc.returncode
            _end_group(proc)
            listener.join(GRACE)
    if late.is_set():
        raise CommandFailed(f"{act or argv[0]}: {argv[0]} did not end within {timeout:.0f} s")
    if ended:
        raise CommandFailed(f"{act or argv[0]}: {argv[0]} failed ({ended}): {tail(b''.join(last))}")
    if failure is not None:
        raise failure
    if ended is None:
        raise CommandFailed(f"{act or argv[0]}: {argv[0]} did not end with its output")


@contextlib.contextmanager
def _given(data: bytes) -> Iterator[IO[bytes]]:
    """A file in memory to read from: a pipe would have to be fed while the output is read."""
    with os.fdopen(os.memfd_create("input"), "w+b") as given:
        given.write(data)
        given.seek(0)
        yield given


def _environment(argv: Sequence[str], env: Mapping[str, str] | None, act: str, bare: bool = False) -> dict[str, str]:
    """What the program sees; raises ToolMissing if it is not to be found there."""
    full = {**({} if bare else os.environ), "LC_ALL": "C.UTF-8", **(env or {})}
    # `su` without a dash leaves root with a user's PATH, where Debian keeps neither mke2fs nor losetup.
    full["PATH"] = ":".join(part for part in (full.get("PATH", os.defpath), "/usr/sbin", "/sbin") if part)
    if shutil.which(argv[0], path=full["PATH"]) is None:
        package = PACKAGE_OF.get(os.path.basename(argv[0]), "")
        raise ToolMissing(
            f"{act or 'running a command'}: {argv[0]} is not installed", f"apt install {package}" if package else ""
        )
    return full


def _unstartable(argv: Sequence[str], act: str, error: OSError) -> CommandFailed:
    """A script whose interpreter is missing, a folder that is gone, a program for another machine."""
    return CommandFailed(f"{act or argv[0]}: {argv[0]} cannot be started: {error.strerror or error}")


def _end_group(proc: subprocess.Popen[bytes]) -> None:
    """Ask the program and what it started to end (it may have mounts to undo), then make them."""
    if proc.returncode is not None:
        return  # waited for: the number may belong to somebody else by now
    with contextlib.suppress(ProcessLookupError):
        os.killpg(proc.pid, signal.SIGTERM)
        for _ in range(int(GRACE / LOOK)):
            if _has_ended(proc):
                break
            time.sleep(LOOK)
    _kill_group(proc)


def _kill_group(proc: subprocess.Popen[bytes]) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(proc.pid, signal.SIGKILL)


def _has_ended(proc: subprocess.Popen[bytes]) -> bool:
    """Whether the program has ended, without waiting for it: its number stays its own."""
    try:
        return os.waitid(os.P_PID, proc.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None
    except ChildProcessError:
        return True


def tail(output: bytes, lines: int = 3, width: int = 400) -> str:
    """The last `lines` non-empty lines of a program's output on one line, at most `width` characters, printable."""
    kept = [line for line in output.decode("utf-8", "replace").splitlines() if line.strip()][-lines:]
    text = " | ".join(line.strip() for line in kept)[-width:]
    return "".join(c if c.isprintable() else "?" for c in text) or "no output"
