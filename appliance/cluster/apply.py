"""Looks at this machine, and carries a change out: files by rename, then commands; or everything as it was."""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from appliance.cluster.change import FILE, Change, Command, File
from appliance.errors import Environment, Wrong
from images.disk import disk_errors
from images.errors import CommandFailed, GildError
from images.run import run, tail

MAX_FILE = 16 << 20  # bytes of a file that is looked into
ASK_SECONDS = 30.0  # for a question to a service
COMMAND_SECONDS = 120.0  # for one command: what systemd gives a service to start, and some more
RUNS = "/run/systemd/system"  # there while systemd is init: sd_booted(3)


@dataclass(frozen=True)
class Here:
    """This machine, or the tree below `root` that is one day to be a machine: no commands are run for that."""

    root: Path = Path("/")

    @property
    def live(self) -> bool:
        """Whether it is this machine itself."""
        return self.root == Path("/")

    def path(self, path: str) -> Path:
        """Where an absolute path lies."""
        return self.root / path.lstrip("/")

    def read(self, path: str) -> str | None:
        """The text of a file, None if there is none. Raises Environment, Wrong."""
        place = self.path(path)
        try:
            with place.open("rb") as file:
                data = file.read(MAX_FILE + 1)
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            raise Environment(f"{place}: {error.strerror}", "run this as root") from None
        if len(data) > MAX_FILE:
            raise Wrong(f"{place} has more than {MAX_FILE >> 20} MiB: not a file of this kind")
        try:
            return data.decode()
        except UnicodeDecodeError as error:
            raise Wrong(f"{place} is not UTF-8 at byte {error.start}: not changed") from None

    def ask(self, argv: Sequence[str], env: Mapping[str, str] | None = None) -> str | None:
        """What a program says, None if it fails. Raises ToolMissing, CommandFailed if it does not end."""
        done = run(argv, env=env, timeout=ASK_SECONDS, check=False, act=f"asking {argv[0]}")
        return done.stdout.decode("utf-8", "replace") if done.returncode == 0 else None

    def need(self, argv: Sequence[str]) -> str:
        """What a program says. Raises ToolMissing, CommandFailed."""
        done = run(argv, timeout=ASK_SECONDS, act=f"asking {argv[0]}")
        return done.stdout.decode("utf-8", "replace")

    @property
    def systemd(self) -> bool:
        """Whether systemd is init here."""
        return self.live and Path(RUNS).is_dir()


def apply(change: Change, here: Here, take: bool = False) -> None:
    """Carry `change` out. With `take`, a block somebody has edited is overwritten. A failure puts the old files back
    and runs the change's undo; the error says so. Raises Wrong, Environment, CommandFailed, ToolMissing, NoSpace."""
    edited = [file for file in change.files if file.changed and file.edited]
    if edited and not take:
        raise Wrong(
            f"{here.path(edited[0].path)}: somebody has changed gild's lines by hand",
            f"gild.pyz cluster {change.name} --dry-run shows the difference; --take overwrites them",
        )
    done: list[File] = []
    with _put_back(change, here, done):
        for file in change.files:
            if file.changed:
                _write(file, here)
                done.append(file)
        for command in change.commands if here.live else ():
            _follow(command, change)


@contextlib.contextmanager
def _put_back(change: Change, here: Here, done: list[File]) -> Iterator[None]:
    try:
        yield
    except GildError as error:
        if not done:
            raise
        for file in reversed(done):
            if file.before is None:
                here.path(file.path).unlink(missing_ok=True)
            else:
                _replace(here.path(file.path), file.before, file.mode)
        told = "the old file is back" if len(done) == 1 else "the old files are back"
        try:
            for command in change.undo if here.live else ():
                _follow(command, change)
        except GildError as second:
            told += f", and {second.message}"
        raise type(error)(f"{error.message}; {told}", error.hint) from None


def _write(file: File, here: Here) -> None:
    """Raises Wrong if it is not what the change was made for."""
    if here.read(file.path) != file.before:
        raise Wrong(f"{here.path(file.path)} was changed in this moment by somebody else", "try again")
    _replace(here.path(file.path), file.after, file.mode)


def _replace(path: Path, text: str, mode: int) -> None:
    """Write by rename: nobody ever reads half a file. Its mode, owner and label stay, and a link leads where it did."""
    with disk_errors(f"writing {path}"):
        real = Path(os.path.realpath(path))
        real.parent.mkdir(parents=True, exist_ok=True)
        fresh = real.with_name(f".{real.name}.gild{os.getpid()}")
        try:
            with open(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600), "wb") as out:
                out.write(text.encode())
                if real.exists():
                    status = real.stat()
                    os.fchown(out.fileno(), status.st_uid, status.st_gid)
                    shutil.copystat(real, fresh)  # mode and extended attributes
                    os.utime(fresh)
                else:
                    os.fchmod(out.fileno(), mode)
                out.flush()
                os.fsync(out.fileno())
            try:
                fresh.rename(real)
            except OSError as error:
                if error.errno != errno.EBUSY:
                    raise
                real.write_text(text)  # a mount point, as /etc/hosts is in a container: it can only be written into
        finally:
            fresh.unlink(missing_ok=True)


def _follow(command: Command, change: Change) -> None:
    """Run one command; with `until`, again and again until it says that word. Raises CommandFailed, ToolMissing."""
    if not command.input:
        _run(command, command.argv, change)
        return
    with tempfile.NamedTemporaryFile("w", prefix="gild-") as file:
        file.write(command.input)
        file.flush()
        _run(command, [file.name if word == FILE else word for word in command.argv], change)


def _run(command: Command, argv: Sequence[str], change: Change) -> None:
    name, end = change.name, time.monotonic() + command.seconds
    while True:
        done = run(argv, env=change.env, timeout=COMMAND_SECONDS, check=False, act=name)
        said = done.stdout + done.stderr
        if command.until and command.until not in said.decode("utf-8", "replace"):
            if time.monotonic() < end:
                time.sleep(0.1)
                continue
            raise CommandFailed(f"{name}: {command.text} does not say {command.until}: {tail(said)}")
        if done.returncode and not command.optional:
            raise CommandFailed(f"{name}: {command.text} failed ({done.returncode}): {tail(said)}")
        return
