"""Trees to publish: real files of this system, or random bytes."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

FROM = ("/usr/lib", "/usr/share", "/usr/bin")


def real_tree(into: Path, size: int) -> None:
    """Copies of this system's own files, in name order, until there are `size` bytes."""
    into.mkdir()
    left = size
    for top in FROM:
        for base, folders, files in os.walk(top):
            folders.sort()
            for name in sorted(files):
                source = Path(base, name)
                if source.is_symlink() or not source.is_file():
                    continue
                left -= source.stat().st_size
                if left < 0:
                    return
                target = into / source.relative_to("/")
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(source, target)


def random_tree(into: Path, size: int) -> None:
    """One file nobody can compress."""
    into.mkdir()
    with (into / "random").open("wb") as file:
        for _ in range(size >> 20):
            file.write(os.urandom(1 << 20))


def make_ext4(tree: Path, image: Path, size: int) -> None:
    """An ext4 of `size` bytes that holds `tree`."""
    with image.open("wb") as file:
        file.truncate(size)
    subprocess.run(["mke2fs", "-q", "-t", "ext4", "-m", "0", "-d", tree, image], check=True)
