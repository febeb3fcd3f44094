"""The key of munge, which proves to Slurm who asks: the same on the head and on every node."""

from __future__ import annotations

import contextlib
import os
import pwd
import secrets
from pathlib import Path

from images.disk import disk_errors

PATH = "etc/munge/munge.key"
BYTES = 1024  # the most mungekey(8) makes


def key(root: Path = Path("/")) -> tuple[Path, bool]:
    """Where the key is, and whether it was made now: random, read by munge alone. One that is there is left alone.
    Raises ImageError, NoSpace."""
    path = root / PATH
    with disk_errors(f"making {path}"):
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        try:
            fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o400)
        except FileExistsError:
            return path, False
        with open(fd, "wb") as file:
            file.write(secrets.token_bytes(BYTES))
            file.flush()
            os.fsync(file.fileno())
            with contextlib.suppress(KeyError):
                owner = pwd.getpwnam("munge")
                os.fchown(file.fileno(), owner.pw_uid, owner.pw_gid)
        return path, True
