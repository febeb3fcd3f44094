"""A disk to try things on: a sparse file behind a loop device, gone after the test."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from netboot.agent import facts, wipe
from netboot.report import Disk

needs_root = [pytest.mark.root, pytest.mark.skipif(os.geteuid() != 0, reason="needs root for loop devices")]


@contextmanager
def loop_disk(folder: Path, size: int, sector: int = 512) -> Iterator[Disk]:
    """A loop device of `size` bytes over a new file in `folder`, as the agent would see a disk."""
    file = folder / f"disk-{size}-{sector}"
    with file.open("wb") as made:
        made.truncate(size)
    command = ["losetup", "--find", "--show", "--sector-size", str(sector), str(file)]
    path = subprocess.run(command, check=True, capture_output=True).stdout.decode().strip()
    try:
        yield facts.read_disk(os.path.basename(path))
    finally:
        wipe.release(path, lambda line: None)
        subprocess.run(["partx", "--delete", path], check=False, capture_output=True)
        subprocess.run(["losetup", "--detach", path], check=True, capture_output=True)
        file.unlink()
