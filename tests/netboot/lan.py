"""A head and a machine on one cable, in two namespaces of their own, for tests with real sockets and real clients."""

from __future__ import annotations

import asyncio
import ctypes
import itertools
import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from netboot import dhcp, firmware, replies
from netboot.lease import Pool

HEAD_IP = "10.77.0.1"
NETWORK = replies.NetworkOptions(
    HEAD_IP, "255.255.255.0", HEAD_IP, (HEAD_IP,), "cluster.internal", 600, (HEAD_IP,), 1400
)
_CLONE_NEWNET = 0x40000000
_counter = itertools.count()
_libc = ctypes.CDLL(None, use_errno=True)

needs_root = [pytest.mark.root, pytest.mark.skipif(os.geteuid() != 0, reason="needs root for network namespaces")]


class Lan:
    """Two namespaces joined by a veth pair: `head0` (10.77.0.1/24) in one, `node0` without address in the other."""

    def __init__(self) -> None:
        name = f"gild-{os.getpid()}-{next(_counter)}"
        self.head, self.node = name + "h", name + "n"

    def ip(self, *arguments: str) -> None:
        subprocess.run(["ip", *arguments], check=True, capture_output=True)

    def up(self) -> None:
        for namespace in (self.head, self.node):
            self.ip("netns", "add", namespace)
            self.ip("-n", namespace, "link", "set", "lo", "up")
        self.ip("-n", self.head, "link", "add", "head0", "type", "veth", "peer", "name", "node0", "netns", self.node)
        self.ip("-n", self.head, "address", "add", f"{HEAD_IP}/24", "dev", "head0")
        self.ip("-n", self.head, "link", "set", "head0", "up")
        self.ip("-n", self.node, "link", "set", "node0", "address", "52:54:00:00:77:01", "up")

    def down(self) -> None:
        for namespace in (self.head, self.node):
            subprocess.run(["ip", "netns", "delete", namespace], check=False, capture_output=True)

    @contextmanager
    def at_head(self) -> Iterator[None]:
        """Sockets that this thread opens inside the block belong to the head's namespace, and stay there."""
        with self._inside(self.head):
            yield

    @contextmanager
    def at_node(self) -> Iterator[None]:
        """The same for the machine's namespace."""
        with self._inside(self.node):
            yield

    @contextmanager
    def _inside(self, namespace: str) -> Iterator[None]:
        with Path("/proc/thread-self/ns/net").open() as home, Path(f"/run/netns/{namespace}").open() as other:
            _setns(other.fileno())
            try:
                yield
            finally:
                _setns(home.fileno())

    async def run(self, *command: str, timeout: float = 20) -> tuple[int, str]:
        """A command in the machine's namespace: exit code and all it printed."""
        process = await asyncio.create_subprocess_exec(
            "ip",
            "netns",
            "exec",
            self.node,
            *command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        try:
            out, _ = await asyncio.wait_for(process.communicate(), timeout)
        except TimeoutError:
            process.kill()
            await process.wait()
            raise
        return process.returncode or 0, out.decode(errors="replace")


def _setns(fd: int) -> None:
    if _libc.setns(fd, _CLONE_NEWNET) != 0:
        raise OSError(ctypes.get_errno(), "setns")


@contextmanager
def cable() -> Iterator[Lan]:
    """A Lan for the length of a test."""
    lan = Lan()
    try:
        lan.up()
        yield lan
    finally:
        lan.down()


class TinyHead:
    """The least that makes a DHCP server of the modules under test: one pool, one handler for a Drain."""

    def __init__(self) -> None:
        self.pool = Pool("10.77.0.0/24", "10.77.0.100", "10.77.0.109", [HEAD_IP])
        self.kinds: list[dhcp.Kind] = []
        self.raw: list[bytes] = []
        self.now = 0.0

    def handle(self, data: bytes, source: tuple[str, int]) -> list[tuple[bytes, tuple[str, int]]]:
        request = dhcp.parse(data)
        self.kinds.append(request.kind)
        self.raw.append(data)
        boot = firmware.boot_file(request, HEAD_IP, secure=False)
        if request.kind is dhcp.Kind.DISCOVER:
            address = self.pool.offer(request.mac, request.requested_ip, self.now)
            if address is None:
                return []
            reply = replies.offer(request, address, NETWORK, boot, "n1")
        elif request.kind is dhcp.Kind.REQUEST:
            if request.server_id not in (None, HEAD_IP):
                return []
            address = request.requested_ip or request.ciaddr
            if self.pool.commit(request.mac, address, self.now, NETWORK.lease_seconds):
                reply = replies.ack(request, address, NETWORK, boot, "n1")
            else:
                reply = replies.nak(request, HEAD_IP, "not your address")
        elif request.kind is dhcp.Kind.RELEASE:
            self.pool.release(request.mac, request.ciaddr, self.now)
            return []
        else:
            return []
        return [(dhcp.build(reply), replies.destination(request, reply))]
