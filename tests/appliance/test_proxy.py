"""Beside a real dnsmasq that gives the addresses: the head says what to boot, and nothing else."""

from __future__ import annotations

import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import pytest

from netboot import dhcp
from netboot.dhcp import DhcpRequest, Kind
from tests.appliance.process import CHECKOUT, PATIENCE, Served, clean_environment, rack_of_one, wait_for
from tests.netboot.packets import packet

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(shutil.which("dnsmasq") is None, reason="not installed: dnsmasq"),
]
HEAD, OTHER = "10.77.0.1", "10.77.0.2"


@dataclass
class Wire:
    """A switch in the machine's namespace, with the head, another DHCP server and two machines on it."""

    served: Served
    other: str
    first: str
    second: str

    def run(self, namespace: str, *words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ["ip", "netns", "exec", namespace, *words], capture_output=True, text=True, timeout=PATIENCE
        )

    def ask(self, data: bytes, seconds: float = 4.0, port: int = 67, to: str = "255.255.255.255") -> list[DhcpRequest]:
        """The answers to a datagram of the first machine, until one of each server is there or time is over."""
        sock = self._socket()
        with sock:
            sock.sendto(data, (to, port))
            found: dict[str, DhcpRequest] = {}
            end = time.monotonic() + seconds
            while len(found) < (2 if port == 67 else 1) and (left := end - time.monotonic()) > 0:
                sock.settimeout(left)
                try:
                    answer = dhcp.parse(sock.recv(2048))
                except TimeoutError:
                    break
                found[answer.server_id or ""] = answer
            return list(found.values())

    def _socket(self) -> socket.socket:
        lan = self.served.lan
        with lan._inside(self.first):
            sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, b"c0\0")
        sock.bind(("", 68))
        return sock

    def lease(self, namespace: str) -> str:
        """What udhcpc gets there, which the card then has."""
        script = self.served.state / "udhcpc.sh"
        script.write_text(
            '#!/bin/sh\n[ "$1" = bound ] || exit 0\nip address replace $ip/24 dev c0\necho got $ip $serverid\n'
        )
        script.chmod(0o755)
        said = self.run(
            namespace, "busybox", "udhcpc", "-i", "c0", "-n", "-q", "-f", "-t", "5", "-T", "1", "-s", str(script)
        )
        got = next((line for line in said.stdout.splitlines() if line.startswith("got ")), said.stderr)
        assert got.endswith(OTHER), got
        return got.split()[1]

    def script(self, namespace: str, mac: str) -> str:
        return self.run(namespace, "curl", "-sSf", "--max-time", "10", f"http://{HEAD}/boot.ipxe?mac={mac}").stdout


@contextmanager
def other_server(made: Wire) -> Iterator[None]:
    """The other server, while the block lasts."""
    server = subprocess.Popen(
        ["ip", "netns", "exec", made.other, "dnsmasq", "-k", "-C", "/dev/null", "--pid-file=", "-p", "0", "--no-ping",
         "--dhcp-range=10.77.0.150,10.77.0.160,1h", f"--dhcp-leasefile={made.served.state}/others"],
        stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        yield
    finally:
        server.terminate()
        server.wait(10)


@contextmanager
def wire() -> Iterator[Wire]:
    with rack_of_one() as served:
        ip, switch = served.lan.ip, served.lan.node
        others = [switch[:-1] + letter for letter in "opq"]
        made = Wire(served, *others)
        try:
            ip("-n", switch, "address", "flush", "dev", "node0")
            ip("-n", switch, "link", "add", "br0", "type", "bridge")
            ip("-n", switch, "link", "set", "br0", "up")
            ip("-n", switch, "link", "set", "node0", "master", "br0")
            for number, name in enumerate(others):
                ip("netns", "add", name)
                ip("-n", name, "link", "add", "c0", "type", "veth", "peer", "name", f"p{number}", "netns", switch)
                ip("-n", name, "link", "set", "c0", "address", f"52:54:00:12:34:{number:02x}", "up")
                ip("-n", switch, "link", "set", f"p{number}", "master", "br0", "up")
            ip("-n", made.other, "address", "add", f"{OTHER}/24", "dev", "c0")
            yield made
        finally:
            for name in others:
                subprocess.run(["ip", "netns", "delete", name], check=False, capture_output=True)


@pytest.fixture(scope="module")
def lan() -> Iterator[Wire]:
    with wire() as made, other_server(made):
        made.served.start("--dhcp", "proxy")
        yield made


def gild(lan: Wire, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        lan.served.command(*words), cwd=CHECKOUT, env=clean_environment(), capture_output=True, text=True, timeout=30
    )


@pytest.mark.parametrize("name", ["ovmf-pxe-discover", "ipxe-bios-discover"])
def test_a_rom_gets_its_address_there_and_its_file_here(lan: Wire, name: str) -> None:
    data = bytearray(packet(name))
    data[10] |= 0x80  # broadcast, please: nothing here takes a packet for an address it does not have yet
    answers = {answer.server_id: answer for answer in lan.ask(bytes(data))}
    assert set(answers) == {HEAD, OTHER}, "both have answered"
    theirs, ours = answers[OTHER], answers[HEAD]
    assert theirs.yiaddr.startswith("10.77.0.15") and ours.yiaddr == "0.0.0.0"
    assert ours.kind is Kind.OFFER and ours.vendor_class == "PXEClient" and ours.siaddr == HEAD
    assert ours.options[dhcp.BOOT_FILE] and not {dhcp.LEASE, dhcp.MASK, dhcp.ROUTER} & set(ours.options)


def test_http_boot_is_told_the_url(lan: Wire) -> None:
    data = bytearray(packet("ovmf-http-discover"))
    data[10] |= 0x80
    ours = next(answer for answer in lan.ask(bytes(data)) if answer.server_id == HEAD)
    assert ours.yiaddr == "0.0.0.0" and ours.vendor_class == "HTTPClient"
    assert ours.options[dhcp.BOOT_FILE].startswith(f"http://{HEAD}/boot/".encode())


def test_its_late_question_is_answered_where_it_came_from(lan: Wire) -> None:
    address = lan.lease(lan.first)
    data = bytearray(packet("ovmf-pxe-discover"))
    at = data.index(b"\x35\x01\x01")
    data[at + 2] = Kind.REQUEST
    data[12:16] = dhcp.ip(address)
    (answer,) = lan.ask(bytes(data), port=4011, to=HEAD)
    assert answer.kind is Kind.ACK and answer.yiaddr == "0.0.0.0" and answer.options[dhcp.BOOT_FILE]


def test_a_machine_that_boots_nothing_hears_nothing_of_us(lan: Wire) -> None:
    before = lan.served.client.get("status")["dhcp"].get("OFFER", 0)
    lan.lease(lan.second)
    assert lan.served.client.get("status")["dhcp"].get("OFFER", 0) == before


def test_who_has_which_address_is_learnt_and_not_believed(lan: Wire) -> None:
    mac = "52:54:00:12:34:01"
    data = bytearray(packet("ovmf-pxe-discover"))
    data[28:34] = bytes.fromhex(mac.replace(":", ""))
    uuid = data.index(b"\x61\x11\x00") + 3
    data[uuid : uuid + 16] = bytes(range(16))
    lan.ask(bytes(data))
    address = lan.lease(lan.first)
    lan.lease(lan.second)
    assert "10.77.0.1" in lan.script(lan.first, mac)
    (row,) = [row for row in lan.served.client.get("nodes") if row["mac"] == mac]
    assert (row["state"], row["address"]) == ("waiting", address)
    said = gild(lan, "node", "approve", mac)
    assert said.returncode == 0 and address in said.stdout, said.stderr
    assert "waits for an order" in lan.script(lan.first, mac)
    # The other machine says that it is the first.
    assert "who it is, is in doubt: no order is handed out" in lan.script(lan.second, mac)
    log = "\n".join(event["text"] for event in lan.served.client.get("nodes", row["name"] or str(row["id"]), "log"))
    assert "asked for from" in log and "not its address" in log
    assert "waits for an order" in lan.script(lan.first, mac), "and the first is still the first"


def test_another_address_of_the_other_server_is_followed(lan: Wire) -> None:
    lan.run(lan.first, "ip", "address", "flush", "dev", "c0")
    lan.run(lan.first, "ip", "address", "add", "10.77.0.170/24", "dev", "c0")
    assert "waits for an order" in lan.script(lan.first, "52:54:00:12:34:01")
    node = lan.served.client.get("nodes", "node01")
    assert node["address"] == "10.77.0.170"
    assert lan.run(lan.second, "dig", "+short", f"@{HEAD}", "node01.cluster.internal").stdout == "10.77.0.170\n"


def test_what_only_the_other_server_can_do(lan: Wire) -> None:
    assert "given by another DHCP server" in gild(lan, "status").stdout
    said = gild(lan, "node", "set", "node01", "--address", "10.77.0.9")
    assert said.returncode and "reserve this one there" in said.stderr
    said = gild(lan, "network", "add", "far", "--network", "10.88.0.0/24", "--router", "10.88.0.1")
    assert said.returncode and "help proxy" in said.stderr


def test_as_an_authority_it_does_not_start_and_names_the_way_out() -> None:
    with wire() as made, other_server(made):
        wait_for(lambda: (made.served.state / "others").exists())
        said = made.served.try_serve("--interface", "head0", environ={"GILD_DHCP_CHECK": "on"})
        assert said.returncode and f"another DHCP server is on head0: {OTHER}" in said.stderr
        assert "--dhcp proxy" in said.stderr


def test_one_that_comes_later_is_noticed_within_a_minute() -> None:
    with wire() as made:
        made.served.start("--dhcp-check", "on")
        wait_for(lambda: "requests are answered now" in made.served.log)
        with other_server(made):
            wait_for(lambda: made.served.client.get("status")["foreign"], 60)
            (row,) = made.served.client.get("status")["foreign"]
            assert (row["server_id"], row["mac"], row["kind"]) == (OTHER, "52:54:00:12:34:00", "addresses")
            assert f"another DHCP server on head0: {OTHER}" in made.served.log
            assert made.served.process is not None and made.served.process.poll() is None, "its nodes need it"
