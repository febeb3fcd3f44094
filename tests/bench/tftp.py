"""10 MB by TFTP at several window sizes, beside tftpd-hpa and atftpd, with one client for all of them."""

from __future__ import annotations

import hashlib
import os
import sys
from collections.abc import Iterator

from tests.bench.rig import HEAD, Rig, Row, against, median

SIZE = 10_000_000
WINDOWS = (1, 16, 64)
RUNS = 5
PEER_PORT = {"tftpd-hpa": 6900, "atftpd": 6901}


def run(rig: Rig) -> Iterator[Row]:
    """MB/s, the client's clock, blksize 1468, window 1, 16, 64; servers on core 0, client on core 1."""
    state = rig.folder / "state"
    for folder in (state / "boot", rig.folder / "tftp"):
        folder.mkdir(parents=True)
    content = os.urandom(SIZE)
    for file in (state / "boot" / "big", rig.folder / "tftp" / "big"):
        file.write_bytes(content)
    (rig.folder / "tftp").chmod(0o755)
    digest = hashlib.sha256(content).hexdigest()
    speeds: dict[tuple[str, int], float] = {}
    with rig.gild(state, core=0):
        hpa = rig.peer("tftpd-hpa") / "usr/sbin/in.tftpd"
        atftpd = rig.peer("atftpd") / "usr/sbin/atftpd"
        root = str(rig.folder / "tftp")
        rig.start(
            [hpa, "-L", "-u", "root", "--address", f"{HEAD}:{PEER_PORT['tftpd-hpa']}", "-s", root],
            where=rig.head_ns,
            core=0,
        )
        rig.start(
            [atftpd, "--daemon", "--no-fork", "--user", "root.root", "--bind-address", HEAD, "--port",
             PEER_PORT["atftpd"], "--logfile", rig.folder / "atftpd.log", root],
            where=rig.head_ns,
            core=0,
        )  # fmt: skip
        for window in WINDOWS:
            for server, port in (("gild", 69), *PEER_PORT.items()):
                speeds[server, window] = median(lambda p=port, w=window: fetch(rig, p, w, digest), RUNS)  # type: ignore[misc]
                rig.say(f"{server}, window {window}: {speeds[server, window]:.0f} MB/s")
    best = max(speeds["tftpd-hpa", window] for window in WINDOWS)
    for window in WINDOWS:
        yield against(
            "tftp", f"window {window}, beside tftpd-hpa's best", speeds["gild", window], best, "MB/s",
            ">= 1.0" if window == 16 else "",
        )  # fmt: skip
        yield against(
            "tftp", f"window {window}, beside atftpd", speeds["gild", window], speeds["atftpd", window], "MB/s", ""
        )


def fetch(rig: Rig, port: int, window: int, digest: str) -> float:
    """MB/s of one transfer; the bytes are checked."""
    out = rig.run(
        [sys.executable, "-m", "tests.bench.tftp_client", HEAD, port, "big", 1468, window], where=rig.client_ns, core=1
    )
    words = out.split()
    if len(words) != 2 or words[0] != digest:
        raise RuntimeError(f"TFTP from port {port}, window {window}: {out[-300:]}")
    return SIZE / 1e6 / float(words[1])
