"""Networks beside the main one, with the real process: a second interface, and a real relay (dhcrelay) with a real
client behind it."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from appliance.errors import Environment
from tests.appliance.process import CHECKOUT, Served, clean_environment, rack_of_one, wait_for

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(shutil.which("dhcrelay") is None, reason="not installed: dhcrelay (isc-dhcp-relay)"),
]


@pytest.fixture(scope="module")
def served() -> Iterator[Served]:
    """The cable of every test, and a second one from the head (head1, 10.78.0.1) to the machine's end (node1)."""
    with rack_of_one() as made:
        ip = made.lan.ip
        ip("-n", made.lan.head, "link", "add", "head1", "type", "veth", "peer", "name", "node1", "netns", made.lan.node)
        ip("-n", made.lan.head, "address", "add", "10.78.0.1/24", "dev", "head1")
        ip("-n", made.lan.head, "link", "set", "head1", "up")
        ip("-n", made.lan.node, "link", "set", "node1", "address", "52:54:00:00:78:01", "up")
        made.start()
        yield made


def gild(served: Served, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        served.command(*words), cwd=CHECKOUT, env=clean_environment(), capture_output=True, text=True, timeout=30
    )


def address(served: Served, namespace: str, card: str) -> str:
    """What udhcpc gets on a card, which then has it and its router."""
    script = served.state / "udhcpc.sh"
    script.write_text(
        '#!/bin/sh\n[ "$1" = bound ] || exit 0\nip address replace $ip/24 dev $interface\n'
        '[ -z "$router" ] || ip route replace default via $router\necho got $ip $serverid mtu=$mtu\n'
    )
    script.chmod(0o755)
    said = subprocess.run(
        ["ip", "netns", "exec", namespace, "busybox", "udhcpc", "-i", card, "-n", "-q", "-f", "-t", "5", "-T", "1",
         "-O", "mtu", "-s", str(script)],
        capture_output=True, text=True, timeout=30,
    )  # fmt: skip
    assert said.returncode == 0, said.stdout + said.stderr
    return next(line[4:] for line in said.stdout.splitlines() if line.startswith("got "))


def curl(namespace: str, *words: str) -> bytes:
    return subprocess.run(
        ["ip", "netns", "exec", namespace, "curl", "-sSf", "--max-time", "10", *words], capture_output=True, timeout=30,
        check=True,
    ).stdout  # fmt: skip


def test_a_second_interface_is_served_from_the_moment_it_is_added(served: Served) -> None:
    said = gild(served, "network", "add", "second", "--interface", "head1", "--range", "10.78.0.50-10.78.0.60")
    assert said.stdout == "second: 10.78.0.0/24, nodes get 10.78.0.50-10.78.0.60; head1, 10.78.0.1\n", said.stderr
    assert address(served, served.lan.node, "node1").startswith("10.78.0.50 10.78.0.1 ")
    script = curl(served.lan.node, "http://10.78.0.1/boot.ipxe?mac=52:54:00:00:78:01").decode()
    assert "10.78.0.1" in script and "10.77.0.1" not in script
    segment = curl(served.lan.node, "http://10.78.0.1/boot/head.cpio")
    assert b'"head": "10.78.0.1"' in segment and b'"head": "10.77.0.1"' in served.http("GET", "/boot/head.cpio").body
    assert b'"head": "10.78.0.1"' in curl(served.lan.node, "tftp://10.78.0.1/head.cpio")
    asked = served.at_node("dig", "+short", "@10.78.0.1", "head.cluster.internal")
    assert asked.stdout == "10.78.0.1\n"
    listed = gild(served, "network", "list").stdout
    assert "second" in listed and "head1, 10.78.0.1" in listed and "head0, 10.77.0.1" in listed


def test_it_is_there_again_after_a_restart_and_gone_when_removed(served: Served) -> None:
    assert served.stop() == 0
    served.lan.ip("-n", served.lan.head, "address", "del", "10.78.0.1/24", "dev", "head1")
    served.start()
    wait_for(lambda: "head1" in gild(served, "network", "list").stdout)
    assert "second is not served: network interface head1 has no IPv4 address" in gild(served, "network", "list").stdout
    assert served.stop() == 0
    served.lan.ip("-n", served.lan.head, "address", "add", "10.78.0.1/24", "dev", "head1")
    served.start()
    wait_for(lambda: "the network second" in served.log)
    assert address(served, served.lan.node, "node1").startswith("10.78.0.50 ")
    assert gild(served, "network", "rm", "second").returncode == 0
    with pytest.raises(subprocess.CalledProcessError):
        curl(served.lan.node, "http://10.78.0.1/")
    again = gild(served, "network", "add", "second", "--interface", "head1")
    assert again.returncode == 0, again.stderr


def test_a_port_that_is_taken_leaves_nothing_behind(served: Served) -> None:
    gild(served, "network", "rm", "second")
    taken = subprocess.Popen(
        ["ip", "netns", "exec", served.lan.head, "dnsmasq", "-k", "-C", "/dev/null", "--pid-file=", "-i", "head1",
         "-I", "lo", "--bind-interfaces", "-p", "53"],
        stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        wait_for(lambda: served.at_node("dig", "+short", "+time=1", "+tries=1", "@10.78.0.1", "x").returncode == 0)
        said = gild(served, "network", "add", "second", "--interface", "head1")
        assert said.returncode and "port 53" in said.stderr and "dnsmasq" in said.stderr
    finally:
        taken.terminate()
        taken.wait(10)
    assert [row["name"] for row in served.client.get("networks")] == ["main"]
    assert gild(served, "network", "add", "second", "--interface", "head1").returncode == 0
    gild(served, "network", "rm", "second")


def test_an_interface_that_is_not_there_is_named(served: Served) -> None:
    said = gild(served, "network", "add", "third", "--interface", "head9")
    assert said.returncode and "no network interface 'head9'" in said.stderr
    with pytest.raises(Environment):
        served.client.post("networks", "third", "add", interface="head9")


@contextmanager
def relayed(served: Served) -> Iterator[str]:
    """The machine's end of the cable is a router with a relay (10.88.0.1) for a third namespace, which is given."""
    ip, router, client = served.lan.ip, served.lan.node, served.lan.node[:-1] + "c"
    ip("netns", "add", client)
    try:
        ip("-n", router, "link", "add", "relay1", "type", "veth", "peer", "name", "client0", "netns", client)
        ip("-n", router, "address", "add", "10.88.0.1/24", "dev", "relay1")
        ip("-n", router, "link", "set", "relay1", "up")
        ip("-n", client, "link", "set", "client0", "address", "52:54:00:00:88:01", "up")
        ip("netns", "exec", router, "sysctl", "-qw", "net.ipv4.ip_forward=1")
        ip("-n", served.lan.head, "route", "add", "10.88.0.0/24", "via", served.source)
        relay = subprocess.Popen(
            ["ip", "netns", "exec", router, "dhcrelay", "-4", "-d", "--no-pid", "-a", "-iu", "node0", "-id", "relay1",
             "10.77.0.1"], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        try:
            yield client
        finally:
            relay.terminate()
            relay.wait(10)
    finally:
        subprocess.run(["ip", "netns", "delete", client], check=False, capture_output=True)


def test_behind_a_real_relay(served: Served) -> None:
    words = ("--network", "10.88.0.0/24", "--router", "10.88.0.1", "--mtu", "1400", "--range", "10.88.0.20-10.88.0.29")
    said = gild(served, "network", "add", "far", *words)
    assert "behind a relay, router 10.88.0.1" in said.stdout, said.stderr
    with relayed(served) as client:
        # dhcrelay takes a moment to listen; udhcpc asks five times, a second apart.
        assert address(served, client, "client0") == "10.88.0.20 10.77.0.1 mtu=1400"
        assert "10.77.0.1" in curl(client, "http://10.77.0.1/boot.ipxe?mac=52:54:00:00:88:01").decode()
        row = next(row for row in served.client.get("networks") if row["name"] == "far")
        assert (row["leases"], row["free"]) == (1, 9)
        # A renewal goes straight to the head and is granted in the same network.
        assert address(served, client, "client0").startswith("10.88.0.20 ")
    shown = gild(served, "network", "show", "far").stdout
    assert "10.88.0.20-10.88.0.29: 1 in use, 9 free" in shown and "1400" in shown


def test_a_head_that_is_given_another_address_goes_on() -> None:
    with rack_of_one() as served:
        served.start()
        ip, head = served.lan.ip, served.lan.head
        assert served.dhcp().startswith("10.77.0.")
        ip("-n", head, "address", "add", "10.50.0.1/24", "dev", "head0")
        ip("-n", head, "address", "del", "10.77.0.1/24", "dev", "head0")
        wait_for(lambda: "going on with 10.50.0.1" in served.log and served.log.count("serving on head0") == 2)
        assert address(served, served.lan.node, "node0").startswith("10.50.0.")
        assert served.client.get("status")["address"] == "10.50.0.1"
        assert served.stop() == 0
