"""A head that serves and looks out for other DHCP servers: before it answers, and for as long as it serves."""

from __future__ import annotations

import socket
import subprocess
from collections.abc import Iterator

import pytest

from appliance.cli.main import run
from netboot import dhcp
from tests.appliance.process import CHECKOUT, Served, clean_environment, rack_of_one, wait_for
from tests.appliance.rival import CARD, needs_dnsmasq, rival
from tests.netboot.lan import HEAD_IP

root = pytest.mark.root


@pytest.fixture(scope="module")
def rack() -> Iterator[Served]:
    with rack_of_one() as served:
        yield served


def offer(server: str, **fields: str) -> bytes:
    options = {dhcp.SERVER_ID: dhcp.ip(server), dhcp.LEASE: dhcp.u32(600)}
    made = dhcp.DhcpReply(dhcp.Kind.OFFER, 9, "52:54:00:00:99:99", flags=0x8000, options=options, **fields)  # type: ignore[arg-type]
    return dhcp.build(made)


def shout(rack: Served, data: bytes) -> None:
    """A broadcast from port 67, as a server that answers some machine."""
    with rack.datagram_socket(67) as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, b"node0\0")
        sock.sendto(data, ("255.255.255.255", 68))


@root
@needs_dnsmasq
def test_it_does_not_become_a_second_authority(rack: Served) -> None:
    with rival(rack.lan):
        said = rack.try_serve("--interface", "head0", "--dhcp-check", "on")
    assert said.returncode == 5
    told = said.stderr.splitlines()[-2:]
    assert told[0].startswith("gild: another DHCP server is on head0: 10.77.0.9") and CARD in told[0]
    assert "--dhcp-check off" in told[1] and "Traceback" not in said.stderr


@root
@needs_dnsmasq
def test_beside_a_proxy_it_serves_and_names_it(rack: Served) -> None:
    try:
        with rival(rack.lan, "--pxe-service=x86-64_EFI,boot,file.efi", ranged="10.77.0.0,proxy"):
            rack.start("--dhcp-check", "on")
            wait_for(lambda: "requests are answered now" in rack.log)
        (row,) = rack.client.get("status")["foreign"]
        assert (row["kind"], row["mac"]) == ("boot", CARD)
        assert rack.stop() == 0 and "Traceback" not in rack.log
    finally:
        rack.kill()


@root
def test_nothing_is_answered_before_it_has_looked_and_who_comes_later_is_named(
    rack: Served, capsys: pytest.CaptureFixture[str]
) -> None:
    try:
        rack.start("--dhcp-check", "on")
        assert rack.client.get("status")["foreign"] == []
        assert "requests are answered now" not in rack.log  # so nobody can have been answered
        assert rack.dhcp()  # udhcpc asks until it is answered
        assert "requests are answered now" in rack.log
        assert rack.process is not None
        children = children_of(rack.process.pid)
        assert len(children) == 1 and "probe-child" in children[0]
        assert "scapy" not in maps_of(rack.process.pid)

        shout(rack, offer(HEAD_IP, yiaddr="10.77.0.66"))  # somebody in our name
        shout(rack, offer("10.77.0.250", yiaddr="10.77.0.66", file="x\x1b[2J.efi"))
        shout(rack, b"\xff" * 400)
        wait_for(lambda: len(rack.client.get("status")["foreign"]) == 2)
        assert rack.log.count("another DHCP server on head0: 10.77.0.250") == 1 and "\x1b" not in rack.log
        assert run(["--state", str(rack.state), "status"]) == 0
        out = capsys.readouterr().out
        assert "10.77.0.250" in out and "gives addresses" in out and CARD in out
        assert rack.process.poll() is None
        assert rack.stop() == 0 and "Traceback" not in rack.log
        wait_for(lambda: not children_of(rack.process.pid) if rack.process else True)
    finally:
        rack.kill()


@root
def test_switched_off_it_sends_and_starts_nothing(rack: Served) -> None:
    try:
        rack.start("--dhcp-check", "off")
        assert rack.process is not None and children_of(rack.process.pid) == []
        assert rack.client.get("status")["foreign"] == [] and rack.dhcp()
    finally:
        rack.kill()


@root
def test_the_probe_ends_with_a_killed_server(rack: Served) -> None:
    rack.start("--dhcp-check", "on")
    assert rack.process is not None
    wait_for(lambda: "requests are answered now" in rack.log)
    (child,) = [line.split()[0] for line in children_of(rack.process.pid)]
    rack.kill()
    wait_for(lambda: subprocess.run(["kill", "-0", child], capture_output=True).returncode != 0)


def test_the_setting_has_two_values() -> None:
    done = subprocess.run(
        ["python3", "-m", "appliance", "serve", "--dhcp-check", "maybe"], cwd=CHECKOUT, env=clean_environment(),
        capture_output=True, text=True, timeout=30,
    )  # fmt: skip
    assert done.returncode == 9 and "on, off" in done.stderr


def children_of(pid: int) -> list[str]:
    """PID and command line of the processes it started."""
    done = subprocess.run(["ps", "--ppid", str(pid), "-o", "pid=,args="], capture_output=True, text=True, timeout=20)
    return [line.strip() for line in done.stdout.splitlines() if "<defunct>" not in line]


def maps_of(pid: int) -> str:
    """Every file mapped or open in a process."""
    done = subprocess.run(["sh", "-c", f"cat /proc/{pid}/maps; ls -l /proc/{pid}/fd"], capture_output=True, text=True)
    return done.stdout
