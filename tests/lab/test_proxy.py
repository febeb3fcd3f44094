"""Real firmware takes its address from a real dnsmasq and its boot file from the head beside it (proxyDHCP)."""

from __future__ import annotations

import contextlib
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.lab.demo import IMAGE, debian
from tests.lab.lab import Lab
from tests.lab.test_install import SECONDS, all_up, lab_with_image, row

pytestmark = [
    pytest.mark.lab,
    pytest.mark.timeout(1800),
    pytest.mark.skipif(shutil.which("dnsmasq") is None, reason="not installed: dnsmasq"),
]
OTHER = "10.77.0.2"


@contextlib.contextmanager
def other_server(lab: Lab) -> Iterator[None]:
    """dnsmasq on a host of its own, giving addresses and nothing to boot."""
    host = lab.host("o")
    host.address(f"{OTHER}/24")
    server = host.start(
        "dnsmasq", "-k", "-C", "/dev/null", "--pid-file=", "-p", "0", "--no-ping",
        "--dhcp-range=10.77.0.150,10.77.0.160,1h", f"--dhcp-leasefile={lab.folder}/leases",
    )  # fmt: skip
    try:
        yield
    finally:
        server.terminate()
        try:
            server.wait(10)
        except subprocess.TimeoutExpired:
            server.kill()


def test_bios_and_uefi_beside_another_server(pyz: Path) -> None:
    with lab_with_image() as lab, other_server(lab):
        debian(lab)
        lab.head("--dhcp", "proxy")
        bios = lab.machine("bios", "bios", disk_size="4G")
        uefi = lab.machine("uefi", "uefi", disk_size="4G", bus="ahci")
        for machine in (bios, uefi):
            machine.start()

        def seen() -> dict[str, Any]:
            rows = {row["mac"]: row for row in lab.gild("node", "list", "--json")}
            return rows if len(rows) == 2 and all(row["machine"] for row in rows.values()) else {}

        rows = lab.wait(seen, SECONDS, "two machines to show their hardware", every=1.0)
        for machine, kind in ((bios, "bios"), (uefi, "uefi")):
            shown = rows[machine.mac]
            assert (shown["state"], shown["firmware"]) == ("waiting", kind)
            assert shown["address"].startswith("10.77.0.15"), "what the other server gave"
        uefi.stop()

        lab.gild("node", "approve", bios.mac, "--name", "node01")
        lab.gild("node", "install", "node01", "--image", IMAGE, "--finish", "kexec", "--yes")
        lab.wait(lambda: row(lab, "node01")["state"] == "up" or all_up(lab, 1), SECONDS, "the node up", every=2.0)
        node = row(lab, "node01")
        assert node["home"]["hostname"] == "node01" and node["address"] == rows[bios.mac]["address"]
        assert node["address"] in [address.partition("/")[0] for address in node["home"]["address"].split()]
