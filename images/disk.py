"""The head's disk: who may write, and what its errors mean."""

from __future__ import annotations

import errno
import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
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
            holder = os.pread(fd, 32, 0).decode("ascii", "replace").strip() or "unknown"
            raise Busy(f"{what} is in use by process {holder}", "wait for it to end") from None
        os.ftruncate(fd, 0)
        os.pwrite(fd, f"{os.getpid()}\n".encode(), 0)
        yield
    finally:
        os.close(fd)
