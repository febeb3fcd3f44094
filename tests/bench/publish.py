"""Publishing a tree beside `zstd -3 -T0` of the same used bytes: MB/s and size."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from collections.abc import Iterator

from images.publish import Part, publish
from images.store import Store
from tests.bench.rig import Rig, Row, against, paired
from tests.bench.trees import make_ext4, real_tree

USED = 800 << 20
RUNS = 5


def run(rig: Rig) -> Iterator[Row]:
    """The tree is an ext4 image file; both read it from the page cache and write to the same disk."""
    tree, image, solid = rig.folder / "tree", rig.folder / "image", rig.folder / "used"
    real_tree(tree, USED)
    make_ext4(tree, image, 2 * USED)
    shutil.rmtree(tree)
    stored: list[int] = []

    def ours() -> float:
        folder = rig.folder / "store"
        shutil.rmtree(folder, ignore_errors=True)
        store = Store(folder)
        begun = time.monotonic()
        with store.lineage_lock("bench"):
            publish(store, "bench", [Part("root", image)])
        os.sync()
        seconds = time.monotonic() - begun
        stored[:] = [sum(file.stat().st_size for file in (folder / "packs").iterdir() if file.suffix == ".pack")]
        return seconds

    ours()  # the first publish punches the image's free blocks out, so that both see the same used bytes
    with image.open("rb") as whole, solid.open("wb") as out:
        for offset, length in _data(whole.fileno()):
            os.sendfile(out.fileno(), whole.fileno(), offset, length)
    used = solid.stat().st_size

    def peer() -> float:
        begun = time.monotonic()
        subprocess.run(["zstd", "-q", "-f", "-3", "-T0", solid, "-o", rig.folder / "solid.zst"], check=True)
        os.sync()
        return time.monotonic() - begun

    mine, theirs = paired(ours, peer, RUNS)
    yield against("publish", "speed", used / 1e6 / mine, used / 1e6 / theirs, "MB/s", ">= 0.8")
    size = (rig.folder / "solid.zst").stat().st_size
    yield against("publish", "size", stored[0] / 1e6, size / 1e6, "MB", "<= 1.04")


def _data(fd: int) -> Iterator[tuple[int, int]]:
    """Extents (offset, length) of a sparse file, in steps that one sendfile takes."""
    end, at = os.fstat(fd).st_size, 0
    while at < end:
        try:
            at = os.lseek(fd, at, os.SEEK_DATA)
        except OSError:
            return
        stop = os.lseek(fd, at, os.SEEK_HOLE)
        while at < stop:
            step = min(stop - at, 1 << 30)
            yield at, step
            at += step
