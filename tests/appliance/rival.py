"""A DHCP server that is not gild: dnsmasq at the machine's end of the cable, or anywhere else."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from tests.netboot.lan import Lan

ADDRESS = "10.77.0.200"
CARD = "52:54:00:00:77:01"  # of the machine's end
needs_dnsmasq = pytest.mark.skipif(shutil.which("dnsmasq") is None, reason="dnsmasq-base is not installed")


@contextmanager
def rival(lan: Lan, *options: str, ranged: str = "10.77.0.210,10.77.0.219,1h") -> Iterator[None]:
    """dnsmasq answers DHCP at the machine's end for the length of the block, once it has said that it does."""
    lan.ip("-n", lan.node, "address", "replace", f"{ADDRESS}/24", "dev", "node0")
    process = subprocess.Popen(
        ["ip", "netns", "exec", lan.node, "dnsmasq", "--no-daemon", "--conf-file=/dev/null", "--port=0", "--no-ping",
         "--interface=node0", "--bind-interfaces", "--leasefile-ro", "--pid-file=", f"--dhcp-range={ranged}", *options],
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip
    try:
        assert process.stdout is not None
        for line in process.stdout:
            if "sockets bound" in line or "DHCP," in line:
                break
        yield
    finally:
        process.kill()
        process.communicate()
        lan.ip("-n", lan.node, "address", "del", f"{ADDRESS}/24", "dev", "node0")
