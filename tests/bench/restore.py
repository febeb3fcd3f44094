"""From the network to the disk: an image 30 % used, and one full of random bytes, beside `curl | zstd -d | dd`.

The peer is what people do with a disk image: the whole partition as one zstd stream, written in order and unchecked.
Ours fetches what is used, in parallel, checks every chunk and reads a sample back. One server (gild) for both, a loop
device over memory as the disk of both.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from images.publish import Part, publish
from images.store import Store
from tests.bench.rig import HEAD, Rig, Row, against, paired
from tests.bench.trees import make_ext4, random_tree, real_tree

RUNS = 5


def run(rig: Rig) -> Iterator[Row]:
    """Seconds of the whole command, Python's start included."""
    state, memory = rig.folder / "state", rig.folder / "memory"
    memory.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=6g", "gild-bench", memory], check=True)
    try:
        for case, size, tree, goal in (
            ("30 % used", 2 << 30, lambda into: real_tree(into, 600 << 20), "<= 0.50"),
            ("random bytes", 1 << 30, lambda into: random_tree(into, 900 << 20), "<= 1.05"),
        ):
            yield from _case(rig, state, memory, case, size, tree, goal)
    finally:
        subprocess.run(["umount", memory], check=True)


def _case(rig: Rig, state: Path, memory: Path, case: str, size: int, tree: object, goal: str) -> Iterator[Row]:
    folder, image, disk = memory / "tree", memory / "image", memory / "disk"
    assert callable(tree)
    tree(folder)
    make_ext4(folder, image, size)
    shutil.rmtree(folder)
    name = "bench" + str(size >> 30)
    store = Store(state / "store")
    with store.lineage_lock(name):
        manifest = publish(store, name, [Part("root", image)])
    (state / "boot").mkdir(exist_ok=True)
    subprocess.run(["zstd", "-q", "-f", "-3", "-T0", image, "-o", state / "boot" / "disk.zst"], check=True)
    image.unlink()
    with disk.open("wb") as file:
        for _ in range(size >> 20):
            file.write(b"\xa5" * (1 << 20))  # an old disk's content: the target is not sparse
    loop = subprocess.run(
        ["losetup", "--find", "--show", disk], check=True, capture_output=True, text=True
    ).stdout.strip()
    try:
        with rig.gild(state):
            # The agent's own way to start Python: nothing of the site, no packages.
            python = [sys.executable, "-S", "-E", "-s", "-m", "tests.bench.restore_client"]
            files = store.manifest_path(name, manifest.version), store.runs_path(name, manifest.version)
            client = [*python, f"http://{HEAD}", *files, loop]
            pipe = (
                f"curl -sf http://{HEAD}/boot/disk.zst | zstd -q -d | dd of={loop} bs=1M oflag=direct iflag=fullblock"
            )

            def ours() -> float:
                return _timed(rig, client)

            def peer() -> float:
                return _timed(rig, ["bash", "-o", "pipefail", "-c", f"{pipe} iflag=fullblock conv=fsync status=none"])

            mine, theirs = paired(ours, peer, RUNS)
        yield against("restore", case, mine, theirs, "s", goal)
    finally:
        subprocess.run(["losetup", "-d", loop], check=True)
        os.unlink(disk)


def _timed(rig: Rig, argv: list[object]) -> float:
    line = " ".join(f"'{word}'" for word in argv)
    out = rig.run(["bash", "-c", f"TIMEFORMAT=%R; time {line} || echo failed"], where=rig.client_ns)
    if "failed" in out:
        raise RuntimeError(f"restoring failed: {out[-600:]}")
    return float(out.split()[-1])
