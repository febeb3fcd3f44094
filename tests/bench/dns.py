"""A zone of 500 nodes, names and addresses asked for in turn by dnsperf, beside dnsmasq with the same names.

dnsperf tells no percentiles, so the slowest of a hundred is taken from questions of our own that are asked at the same
time as those of dnsperf.
"""

from __future__ import annotations

import re
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from appliance import rows
from appliance.paths import Paths
from appliance.store import Store
from netboot.node import Node, State
from tests.bench.rig import HEAD, ROOT, Rig, Row

SECONDS = 10
NODES = 500
DOMAIN = "cluster.internal"
PROBES = 2000  # questions of our own in that time


def run(rig: Rig) -> Iterator[Row]:
    """dnsperf at full speed against ours, then against dnsmasq."""
    names = {f"node{n:03}": f"10.78.{1 + n // 200}.{1 + n % 200}" for n in range(NODES)}
    questions = rig.folder / "questions"
    lines = []
    for name, address in names.items():
        lines += [f"{name}.{DOMAIN} A", f"{'.'.join(reversed(address.split('.')))}.in-addr.arpa PTR"]
    questions.write_text("\n".join(lines) + "\n")
    state = rig.folder / "state"
    with rig.gild(state):
        pass  # makes the database
    paths = Paths(state)
    store = Store(paths.database, paths.lock)
    store.write([
        rows.node_row(Node(n, State.UP, name=name, address=address, macs=(f"02:00:00:00:{n >> 8:02x}:{n & 255:02x}",)))
        for n, (name, address) in enumerate(names.items(), 1)
    ])  # fmt: skip
    store.close()
    with rig.gild(state):
        rate, lost, slow = asked(rig, questions)
    hosts = rig.folder / "hosts"
    hosts.write_text("".join(f"{address} {name}.{DOMAIN} {name}\n" for name, address in names.items()))
    peer_rate, _, peer_slow = beside(rig, hosts, questions)
    yield Row("dns", "answers", rate, peer_rate, rate / peer_rate, "/s", ">= 10,000/s", rate >= 10_000)
    yield Row("dns", "lost", lost, None, None, "%", "0", lost == 0)
    yield Row("dns", "99 of 100 within", slow, peer_slow, slow / peer_slow, "ms", "< 20 ms", slow < 20)


def beside(rig: Rig, hosts: Path, questions: Path) -> tuple[float, float, float]:
    """The same of dnsmasq."""
    peer = rig.start(
        ["dnsmasq", "--keep-in-foreground", "--conf-file=/dev/null", "--user=root", "--no-resolv", "--no-hosts",
         f"--addn-hosts={hosts}", f"--listen-address={HEAD}", "--bind-interfaces", "--cache-size=2000", "--pid-file",
         f"--local=/{DOMAIN}/"],
        where=rig.head_ns,
    )  # fmt: skip
    try:
        time.sleep(1)
        return asked(rig, questions)
    finally:
        rig.stop(peer)


def asked(rig: Rig, questions: Path) -> tuple[float, float, float]:
    """(answers a second, per cent lost, milliseconds within which 99 of 100 answers came)."""
    probe = rig.start(
        [sys.executable, "-m", "tests.bench.dns", HEAD], where=rig.client_ns, stdout=subprocess.PIPE, cwd=ROOT
    )
    out = rig.run(
        ["dnsperf", "-s", HEAD, "-d", questions, "-l", SECONDS, "-c", 8, "-T", 1, "-q", 64], where=rig.client_ns
    )
    spans = sorted(float(word) for word in probe.communicate(timeout=60)[0].split())
    rate = re.search(r"Queries per second:\s+([\d.]+)", out)
    lost = re.search(r"Queries lost:\s+\d+ \(([\d.]+)%\)", out)
    failed = re.search(r"Response codes:\s+NOERROR \d+ \(100.00%\)", out)
    if rate is None or lost is None or failed is None or not spans:
        raise RuntimeError(f"dnsperf said nothing of use: {out[-800:]}")
    slow = spans[len(spans) * 99 // 100] * 1000
    rig.say(f"{rate[1]}/s, lost {lost[1]} %, 99 of 100 within {slow:.2f} ms, {len(spans)} probes")
    return float(rate[1]), float(lost[1]), slow


def probe(head: str) -> None:
    """Ask for a name PROBES times, evenly over SECONDS less one; print the seconds each answer took, 5 where none
    came."""
    question = b"\x00\x00\x01\x00\x00\x01\x00\x00\x00\x00\x00\x00\x07node123\x07cluster\x08internal\x00\x00\x01\x00\x01"
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.settimeout(5)
        sock.connect((head, 53))
        time.sleep(0.5)
        for number in range(PROBES):
            begun = time.perf_counter()
            sock.send(number.to_bytes(2, "big") + question[2:])
            try:
                while sock.recv(512)[:2] != number.to_bytes(2, "big"):
                    pass
                took = time.perf_counter() - begun
            except TimeoutError:
                took = 5.0
            print(took)
            time.sleep(max(0.0, (SECONDS - 1) / PROBES - took))


if __name__ == "__main__":
    probe(sys.argv[1])
