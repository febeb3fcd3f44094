"""Four-way exchanges: 1000 a second, and 100 a second while 64 HTTP streams run at full speed in the same process."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path

from tests.bench.rig import HEAD, Rig, Row

SECONDS = 10
RANGE = "10.78.16.0-10.78.255.250"


def run(rig: Rig) -> Iterator[Row]:
    """perfdhcp against ours, then the same against dnsmasq with its lease file."""
    state = rig.folder / "state"
    with rig.gild(state, "--range", RANGE):
        ours = exchanges(rig, 1000)
    with dnsmasq(rig):
        peer = exchanges(rig, 1000)
    for name, index, unit in (("lost", 1, "%"), ("exchanges", 0, "/s")):
        a, b = ours[index], peer[index]
        goal = "< 0.1 % lost" if name == "lost" else ""
        yield Row("dhcp", f"1000/s, {name}", a, b, a / b if b else None, unit, goal, not goal or a < 0.1)
    (state / "boot").mkdir(exist_ok=True)
    (state / "boot" / "big").write_bytes(os.urandom(1 << 20) * 64)
    with rig.gild(state, "--range", RANGE):
        wrk = rig.start(
            ["wrk", "-t1", "-c64", f"-d{SECONDS + 4}s", "--timeout", "30s", f"http://{HEAD}/boot/big"],
            where=rig.client_ns,
        )
        busy = exchanges(rig, 100)
        rig.stop(wrk)
    yield Row("dhcp", "100/s beside 64 HTTP streams", busy[0], None, None, "/s", ">= 99", busy[0] >= 99)


def exchanges(rig: Rig, rate: int) -> tuple[float, float]:
    """(exchanges a second, per cent lost) of `rate` offered for SECONDS from as many different machines."""
    out = rig.run(
        ["perfdhcp", "-4", "-r", rate, "-R", rate * SECONDS, "-p", SECONDS, "-W", "2", "-l", "bc", HEAD],
        where=rig.client_ns,
    )
    done = re.search(r"Rate: ([\d.]+) 4-way exchanges/second", out)
    lost = [float(value) for value in re.findall(r"drops ratio: ([\d.]+) ?%", out)]
    if done is None or not lost:
        raise RuntimeError(f"perfdhcp said nothing of use: {out[-800:]}")
    rig.say(f"{rate}/s offered: {done[1]}/s, lost {lost} %")
    return float(done[1]), max(lost)


class dnsmasq:  # reads like the program it starts
    """dnsmasq in the head's namespace, with its lease file on disk."""

    def __init__(self, rig: Rig) -> None:
        self.rig = rig

    def __enter__(self) -> None:
        folder: Path = self.rig.folder
        self.process = self.rig.start(
            [
                "dnsmasq", "--keep-in-foreground", "--conf-file=/dev/null", "--port=0", "--interface=bh",
                "--bind-interfaces",
                "--user=root", "--dhcp-authoritative", "--no-ping", "--dhcp-lease-max=100000",
                f"--dhcp-leasefile={folder}/leases", "--pid-file",
                f"--dhcp-range={RANGE.replace('-', ',')},255.255.0.0,1h",
            ],
            where=self.rig.head_ns,
        )  # fmt: skip
        self.rig.wait_for(folder / "leases", self.process)

    def __exit__(self, *_: object) -> None:
        self.rig.stop(self.process)
