"""Locks between processes, and what a full disk is called."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest

from images.disk import disk_errors, hold
from images.errors import Busy, ImageError, NoSpace


def test_a_full_disk_and_a_broken_one_have_different_names() -> None:
    for code in (errno.ENOSPC, errno.EDQUOT):
        with pytest.raises(NoSpace, match="doing it: the disk is full"), disk_errors("doing it"):
            raise OSError(code, "x")
    with pytest.raises(ImageError, match="doing it: Input/output error"), disk_errors("doing it"):
        raise OSError(errno.EIO, os.strerror(errno.EIO))


def test_another_process_is_named_and_its_death_frees_the_lock(tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from images.disk import hold\n"
        f"with hold(Path({str(tmp_path / 'lock')!r}), exclusive=True, what='x'):\n"
        "    print('held', flush=True); sys.stdin.read()"
    )
    holder = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    try:
        assert holder.stdout is not None and holder.stdout.readline() == b"held\n"
        for exclusive in (True, False):
            with (
                pytest.raises(Busy, match=rf"in use by process {holder.pid} since 2\d{{3}}-.*: .*python.* -c "),
                hold(tmp_path / "lock", exclusive=exclusive, what="image x"),
            ):
                pass
    finally:
        holder.kill()
        holder.communicate()
    with hold(tmp_path / "lock", exclusive=False, what="x"), hold(tmp_path / "lock", exclusive=False, what="x"):
        pass
