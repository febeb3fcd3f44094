"""A golden client captured over TLS, beside `partclone | zstd -3` of the same partition.

As in life the client and the head do not share a processor: the client, ours or the peer, has one core, the head the
other. Measured is what the client is away for, from the start of its program until it may restart.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from tests.appliance.tlshead import TlsHead
from tests.bench.rig import ROOT, Rig, Row, against, at_most, paired
from tests.bench.trees import make_ext4, real_tree

SIZE, USED = 4 << 30, 800 << 20
RUNS = 3
CLIENT, HEAD = "1", "0"
ETC = Path("/etc")


def run(rig: Rig) -> Iterator[Row]:
    """The disk lies in memory, behind a loop device; the head keeps its store on the scratch disk."""
    memory = rig.folder / "memory"
    memory.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=6g", "gild-bench", memory], check=True)
    loop = ""
    try:
        real_tree(memory / "tree", USED)
        _system(memory / "tree")
        make_ext4(memory / "tree", memory / "disk", SIZE)
        shutil.rmtree(memory / "tree")
        argv = ["losetup", "--find", "--show", str(memory / "disk")]
        loop = subprocess.run(argv, check=True, capture_output=True, text=True).stdout.strip()
        yield from _rows(rig, loop)
    finally:
        if loop:
            subprocess.run(["losetup", "-d", loop], check=True)
        subprocess.run(["umount", memory], check=True)


def _rows(rig: Rig, loop: str) -> Iterator[Row]:
    count = [0]

    def fresh() -> TlsHead:
        count[0] += 1
        folder = rig.folder / f"head{count[0]}"
        folder.mkdir()
        return TlsHead(folder)

    def ours() -> float:
        head = fresh()
        try:
            return _captured(head, loop)
        finally:
            head.close()
            shutil.rmtree(head.folder)

    def peer() -> float:
        pipe = f"partclone.ext4 -q -c -s {loop} -o - -L {rig.folder}/log | zstd -q -f -3 -T1 -o {rig.folder}/peer.zst"
        begun = time.monotonic()
        subprocess.run(["taskset", "-c", CLIENT, "bash", "-o", "pipefail", "-c", pipe], check=True)
        return time.monotonic() - begun

    os.sched_setaffinity(0, {int(HEAD)})
    try:
        mine, theirs = paired(ours, peer, RUNS)
        yield against("capture", "first", mine, theirs, "s", "<= 1.2")
        head = fresh()
        try:
            _captured(head, loop)
            first = head.posts["/node/capture/chunks"]
            head.posts.clear()
            _captured(head, loop)
            again = head.posts.get("/node/capture/chunks", 0)
            yield at_most("capture", "again, bytes of the first", again / first, 0.02, "share")
        finally:
            head.close()
    finally:
        os.sched_setaffinity(0, set(range(os.cpu_count() or 1)))


def _captured(head: TlsHead, loop: str) -> float:
    """Seconds of one client, from its start to its leave."""
    folder = head.client_folder("client")
    head.order()
    begun = time.monotonic()
    argv = [sys.executable, "-m", "tests.bench.capture_client", folder, loop, head.machine.mac]
    subprocess.run(["taskset", "-c", CLIENT, *map(str, argv)], check=True, cwd=ROOT)
    seconds = time.monotonic() - begun
    if head.settled() != "ready" or "captured as gold" not in head.timeline():
        raise RuntimeError(head.timeline()[-1000:])
    return seconds


def _system(tree: Path) -> None:
    """What makes a tree the root of a system."""
    (tree / "etc").mkdir(exist_ok=True)
    for name in ("os-release", "passwd", "group"):
        shutil.copy2(ETC / name, tree / "etc" / name)
    for name in ("dev", "proc", "sys", "run", "tmp", "boot"):
        (tree / name).mkdir(exist_ok=True)
    (tree / "usr/bin").mkdir(exist_ok=True)
    shutil.copy2("/usr/bin/env", tree / "usr/bin/env")
