"""The real process asks a real dnsmasq for what it does not know; dig is the client."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator

import pytest

from tests.appliance.process import NODE_IP, Served, rack_of_one, wait_for
from tests.netboot.lan import HEAD_IP, needs_root

TOOLS = ("dnsmasq", "dig")
MISSING = [tool for tool in TOOLS if shutil.which(tool) is None]
pytestmark = [*needs_root, pytest.mark.skipif(bool(MISSING), reason=f"not installed: {', '.join(MISSING)}")]

DNSMASQ = [
    "dnsmasq", "--keep-in-foreground", "--conf-file=/dev/null", "--user=root", "--no-resolv", "--no-hosts",
    "--pid-file", f"--listen-address={NODE_IP}", "--bind-interfaces", "--edns-packet-max=1232",
    "--log-queries", "--log-facility=-",
    "--host-record=www.example.com,192.0.2.7,2001:db8::7", "--cname=alias.example.com,www.example.com",
    "--local=/example.com/", "--local-ttl=60", "--address=/private.local/192.0.2.66",
    *(f"--txt-record=big.example.com,{chr(97 + n) * 200}" for n in range(12)),
]  # fmt: skip


@pytest.fixture(scope="module")
def served() -> Iterator[Served]:
    with rack_of_one() as made:
        log = made.state / "dnsmasq.log"
        with log.open("wb") as out:
            other = subprocess.Popen(
                ["ip", "netns", "exec", made.lan.node, *DNSMASQ], stdin=subprocess.DEVNULL, stdout=out, stderr=out
            )
        try:
            wait_for(lambda: "started" in log.read_text() or other.poll() is not None)
            assert other.poll() is None, log.read_text()
            made.start("--forward", NODE_IP, "--aliases", "www=head,printer=10.77.0.5")
            yield made
            assert made.stop() == 0
        finally:
            other.terminate()
            other.wait(20)


def dig(served: Served, *words: str) -> str:
    done = served.at_node("dig", f"@{HEAD_IP}", "+tries=1", "+time=5", *words)
    assert done.returncode == 0, done.stdout
    return done.stdout


def heard(served: Served) -> str:
    return (served.state / "dnsmasq.log").read_text().lower()


def test_names_of_others_are_found_and_remembered(served: Served) -> None:
    for _ in range(3):
        told = dig(served, "www.example.com")
        assert "192.0.2.7" in told and "NOERROR" in told and "flags: qr rd ra;" in told
    assert heard(served).count("query[a] www.example.com from") == 1
    assert "2001:db8::7" in dig(served, "www.example.com", "AAAA")
    assert "192.0.2.7" in dig(served, "alias.example.com") and "CNAME" in dig(served, "alias.example.com")
    assert "NXDOMAIN" in dig(served, "nobody.example.com")


def test_long_answers_come_over_tcp(served: Served) -> None:
    assert dig(served, "big.example.com", "TXT").count("TXT\t") == 12  # dig asks again by itself
    assert dig(served, "+tcp", "big.example.com", "TXT").count("TXT\t") == 12
    cut = dig(served, "+ignore", "big.example.com", "TXT")
    assert "flags: qr tc rd ra;" in cut and cut.count("TXT\t") == 0
    assert dig(served, "+noedns", "www.example.com").count("OPT PSEUDOSECTION") == 0


def test_what_is_ours_or_private_is_asked_of_nobody(served: Served) -> None:
    assert HEAD_IP in dig(served, "www.cluster.internal") and HEAD_IP in dig(served, "head.cluster.internal")
    assert "10.77.0.5" in dig(served, "printer.cluster.internal")
    assert "head.cluster.internal" in dig(served, "-x", HEAD_IP)
    for words in (["gone.cluster.internal"], ["-x", "10.77.0.250"], ["-x", "10.9.9.9"], ["-x", "192.168.7.7"],
                  ["node01"], ["x.private.local"], ["_slurmctld._tcp", "SRV"]):  # fmt: skip
        assert "NXDOMAIN" in dig(served, *words), words
    assert "flags: qr aa rd ra;" in dig(served, "head.cluster.internal")
    asked = heard(served)
    for name in ("cluster.internal", "250.0.77", "9.9.9.10", "7.7.168", "node01", "private.local", "_slurmctld"):
        assert name not in asked


def test_only_what_one_may_ask(served: Served) -> None:
    for words in (["+norecurse", "other.example.com"], ["www.example.com", "ANY"], ["-c", "CH", "version.bind", "TXT"]):
        assert "REFUSED" in dig(served, *words)
    served.at_node("ip", "address", "add", "192.0.2.200/32", "dev", "node0")
    subprocess.run(["ip", "-n", served.lan.head, "route", "add", "192.0.2.200/32", "dev", "head0"], check=True)
    assert "REFUSED" in dig(served, "-b", "192.0.2.200", "www.example.com")
