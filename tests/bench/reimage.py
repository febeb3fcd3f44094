"""A used node back to its image: bytes and seconds, beside `casync extract --seed` and beside a full restore.

The node was used: logs, two packages, host keys, a machine-id, a host name. Both peers read the disk as it stands and
fetch what differs over HTTP. The bytes are counted where they are served.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from images import working
from images.fetch import HttpSource
from images.namespace import in_private_namespace, mounted
from images.publish import Part, publish
from images.store import Store
from images.target import restore
from tests.bench.counting import CountingServer
from tests.bench.rig import Rig, Row, against, paired
from tests.bench.trees import make_ext4, real_tree

SIZE, USED = 4 << 30, 800 << 20
LOGS = 28 << 20
RUNS = 5


def run(rig: Rig) -> Iterator[Row]:
    """Server and client share the loopback device; all disks lie in memory, as those of the other benches do."""
    memory = rig.folder / "memory"
    memory.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=8g", "gild-bench", memory], check=True)
    try:
        yield from _rows(rig, memory)
    finally:
        subprocess.run(["umount", memory], check=True)


def _rows(rig: Rig, memory: Path) -> Iterator[Row]:
    store, image, disk = Store(memory / "store"), memory / "image", memory / "disk"
    real_tree(memory / "tree", USED)
    make_ext4(memory / "tree", image, SIZE)
    shutil.rmtree(memory / "tree")
    with store.lineage_lock("bench"):
        manifest = publish(store, "bench", [Part("root", image)])
    golden, node = memory / "golden", memory / "node"
    working.restore(store, manifest, 0, golden)
    image.unlink()
    working.copy_sparse(golden, node)
    in_private_namespace(lambda: _use(node, rig))
    index = memory / "bench.caibx"
    subprocess.run(["casync", "make", f"--store={memory / 'bench.castr'}", index, golden], check=True)
    came: dict[str, int] = {}
    # What a node fetches besides, whatever it holds.
    overhead = sum(path("bench", 1).stat().st_size for path in (store.manifest_path, store.runs_path))

    with CountingServer(memory) as server:

        def fetched(case: str, held: bool) -> float:
            """Seconds of one restore onto `disk` as it stands."""
            before, begun = server.sent, time.monotonic()
            part, source = manifest.partitions[0], HttpSource([f"{server.url}/store"])
            restore(
                str(disk), part.role, store.runs(manifest, 0), part.size, manifest.chunk_size, manifest.packs, source,
                held=held,
            )  # fmt: skip
            came[case] = server.sent - before + overhead
            return time.monotonic() - begun

        def full() -> float:
            with disk.open("wb") as file:
                file.truncate(SIZE)
            return fetched("full", False)

        def back(start: Path) -> Callable[[], float]:
            def measure() -> float:
                working.copy_sparse(start, disk)
                return fetched(start.name, True)

            return measure

        used, whole = paired(back(node), full, RUNS)
        same, whole_again = paired(back(golden), full, RUNS)
        casync = _casync(server, node, golden, memory / "out")
    yield against("reimage", "used node, bytes", came["node"] / 1e6, casync / 1e6, "MB", "<= 1.10")
    yield against("reimage", "used node, time beside full", used, whole, "s", "")
    yield against("reimage", "unchanged, bytes beside full", came["golden"] / 1e6, came["full"] / 1e6, "MB", "<= 0.005")
    yield against("reimage", "unchanged, time beside full", same, whole_again, "s", "<= 0.40")


def _use(disk: Path, rig: Rig) -> None:
    """What a node does to its disk between two installations."""
    at = rig.folder / "at"
    at.mkdir()
    with mounted(disk, at, trim=False) as root:
        (root / "var/log").mkdir(parents=True, exist_ok=True)
        with (root / "var/log/syslog").open("wb") as log:
            line = 0
            while log.tell() < LOGS:
                log.write(b"Nov 23 04:00:%02d node17 daemon[%d]: request %d served\n" % (line % 60, line % 977, line))
                line += 1
        for package in ("nginx-light", "tcpdump"):
            shutil.copytree(rig.peer(package), root, dirs_exist_ok=True, symlinks=True)
        (root / "etc/ssh").mkdir(parents=True, exist_ok=True)
        for kind in ("rsa", "ecdsa", "ed25519"):
            (root / f"etc/ssh/ssh_host_{kind}_key").write_bytes(os.urandom(2600))
        (root / "etc/machine-id").write_text(os.urandom(16).hex() + "\n")
        (root / "etc/hostname").write_text("node17\n")


def _casync(server: CountingServer, node: Path, golden: Path, out: Path) -> int:
    """Bytes casync is served for the same job."""
    before = server.sent
    argv = ["casync", "extract", f"--store={server.url}/bench.castr", f"--seed={node}", f"{server.url}/bench.caibx"]
    subprocess.run([*argv, out], check=True)
    if subprocess.run(["cmp", golden, out]).returncode:
        raise RuntimeError("what casync wrote is not the image")
    return server.sent - before
