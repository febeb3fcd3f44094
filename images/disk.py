"""The head's disk: who may write, and what its errors mean."""

from __future__ import annotations

import errno
import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from images.errors import Busy, ImageError, NoSpace


@contextmanager
def disk_errors(act: str) -> Iterator[None]:
    """Turn an OSError in the block into one line: NoSpace where the disk is full, ImageError otherwise."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise NoSpace(f"{act}: the disk is full", "free some space, or gild image gc") from None
        raise ImageError(f"{act}: {error.strerror or error}", "") from error


@contextmanager
def hold(path: Path, *, exclusive: bool, what: str) -> Iterator[None]:
    """Hold the lock file `path` (made if missing, never removed) while the block runs, alone or with others. Does not
    wait: raises Busy, naming the process that has `what`."""
    with disk_errors(f"locking {what}"):
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        try:
            fcntl.flock(fd, (fcntl.LOCK_EX if exclusive else fcntl.LOCK_SH) | fcntl.LOCK_NB)
        except BlockingIOError:
            raise Busy(f"{what} is in use by {_holder(fd)}", "wait for it to end") from None
        # On a full disk there is no room for it, and that is when garbage must be collected.
        with suppress(OSError):
            os.ftruncate(fd, 0)
            os.pwrite(fd, f"{os.getpid()}\n".encode(), 0)
        yield
    finally:
        os.close(fd)


def _holder(fd: int) -> str:
    """Who wrote itself into a lock file, what it runs, and since when."""
    process = os.pread(fd, 32, 0).decode("ascii", "replace").strip()
    if not process.isdecimal():
        return "an unknown process"
    since = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(os.fstat(fd).st_mtime))
    try:
        with open(f"/proc/{process}/cmdline", "rb") as file:
            words = file.read(400).decode("utf-8", "replace").rstrip("\0").replace("\0", " ")
    except OSError:  # it ends just now
        words = ""
    command = "".join(c if c.isprintable() else "?" for c in words)[:120]
    return f"process {process} since {since}" + (f": {command}" if command else "")
