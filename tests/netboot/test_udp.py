"""Sockets and the drain: on loopback, and with real DHCP clients on a cable of their own."""

from __future__ import annotations

import asyncio
import os
import socket
import struct
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest

from netboot import udp
from netboot.dhcp import Kind
from tests.netboot.lan import HEAD_IP, Lan, TinyHead, cable, needs_root


def _pair(loop: asyncio.AbstractEventLoop, handler: udp.Handler, **options: Any) -> tuple[udp.Drain, socket.socket]:
    sock = udp.open_udp(0, address="127.0.0.1")
    drain = udp.Drain(loop, sock, handler, name="test", **options)
    client = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    client.connect(sock.getsockname())
    client.setblocking(False)
    return drain, client


def test_every_good_datagram_is_answered_after_a_bad_one() -> None:
    async def main() -> None:
        lines: list[str] = []

        def handler(data: bytes, source: udp.Address) -> Iterable[tuple[bytes, udp.Address]]:
            if data.startswith(b"bad"):
                raise UnicodeDecodeError("ascii", data, 0, 1, "no")
            return [(data.upper(), source)]

        loop = asyncio.get_running_loop()
        drain, client = _pair(loop, handler, log=lines.append)
        with client:
            for number in range(20):
                client.send(b"bad%d" % number)
                client.send(b"good%d" % number)
                assert await loop.sock_recv(client, 100) == b"GOOD%d" % number
        drain.close()
        assert (drain.received, drain.answered, drain.errors, drain.dropped) == (40, 20, 20, 0)
        # Twenty failures within a second make one line, not twenty.
        assert len(lines) == 1
        assert "127.0.0.1" in lines[0]

    asyncio.run(main())


def test_a_burst_is_read_in_few_turns_and_the_rest_in_the_next() -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        turns = [0]
        seen: list[tuple[int, bytes]] = []
        drain, client = _pair(loop, lambda data, source: seen.append((turns[0], data)), limit=8)
        with client:
            for number in range(20):
                client.send(b"%d" % number)
            while len(seen) < 20:
                await asyncio.sleep(0)
                turns[0] += 1
                assert turns[0] < 1000
        drain.close()
        assert [data for _, data in seen] == [b"%d" % number for number in range(20)]
        per_turn = [sum(1 for turn, _ in seen if turn == wanted) for wanted in {turn for turn, _ in seen}]
        assert max(per_turn) == 8

    asyncio.run(main())


def test_oversize_datagrams_are_dropped_unread() -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        seen: list[bytes] = []
        drain, client = _pair(loop, lambda data, source: seen.append(data), max_size=100)
        with client:
            for size in (101, 100, 5000, 1):
                client.send(b"x" * size)
            while drain.received < 4:
                await asyncio.sleep(0)
        drain.close()
        assert [len(data) for data in seen] == [100, 1]
        assert drain.dropped == 2

    asyncio.run(main())


def test_a_deep_backlog_loses_what_is_stale_and_keeps_what_is_fresh(monkeypatch: pytest.MonkeyPatch) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        seen: list[bytes] = []
        drain, client = _pair(loop, lambda data, source: seen.append(data))
        with client:
            for number in range(40):
                client.send(b"%d" % number)
            late = time.time() + 5
            monkeypatch.setattr(time, "time", lambda: late)
            while drain.received < 40:
                await asyncio.sleep(0)
            monkeypatch.undo()
            assert len(seen) == udp.DEEP  # the first of a turn are never judged: that is no backlog yet
            assert drain.dropped == 40 - udp.DEEP
            seen.clear()
            for number in range(40):
                client.send(b"%d" % number)
            while drain.received < 80:
                await asyncio.sleep(0)
            assert len(seen) == 40
        drain.close()

    asyncio.run(main())


def test_a_backlog_of_several_turns_is_judged_from_its_second_turn_on(monkeypatch: pytest.MonkeyPatch) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        seen: list[bytes] = []
        drain, client = _pair(loop, lambda data, source: seen.append(data), limit=10)
        with client:
            for number in range(30):
                client.send(b"%d" % number)
            late = time.time() + 5
            monkeypatch.setattr(time, "time", lambda: late)
            while drain.received < 30:
                await asyncio.sleep(0)
            assert len(seen) == 10
            now = loop.time() + 2
            monkeypatch.setattr(loop, "time", lambda: now)  # a backlog of two seconds ago is over
            client.send(b"alone")
            while drain.received < 31:
                await asyncio.sleep(0)
        drain.close()
        assert seen[-1] == b"alone"

    asyncio.run(main())


def test_a_clock_that_was_set_drops_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    stamp = [(socket.SOL_SOCKET, 29, struct.pack("@ll", 1_000_000, 0))]
    for now, age in ((1_000_000.5, 0.5), (1_000_002, 2.0), (1_000_000 + 400 * 86400, 0.0), (1_000_000 - 86400, 0.0)):
        monkeypatch.setattr(time, "time", lambda now=now: now)
        assert udp._age(stamp) == pytest.approx(age)
    assert udp._age([]) == 0.0
    assert udp._age([(socket.SOL_SOCKET, 29, b"short")]) == 0.0


def test_an_answer_the_network_refuses_is_counted_and_reading_goes_on() -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        lines: list[str] = []
        # Port 0 is no destination: the kernel says EINVAL.
        answers: list[udp.Address | None] = [("127.0.0.1", 0), None]
        drain, client = _pair(loop, lambda data, source: [(b"x", answers.pop(0) or source)], log=lines.append)
        with client:
            client.send(b"1")
            client.send(b"2")
            assert await loop.sock_recv(client, 10) == b"x"
        assert (drain.answered, drain.dropped) == (1, 1)
        drain.close()
        drain.close()
        assert not drain.send(b"x", ("127.0.0.1", 9))
        assert "cannot send" in lines[0]

    asyncio.run(main())


def test_a_port_in_use_names_the_process() -> None:
    first = udp.open_udp(0, address="127.0.0.1")
    port = first.getsockname()[1]
    with first, pytest.raises(udp.UdpError) as caught:
        udp.open_udp(port, address="127.0.0.1")
    assert f"UDP port {port}" in caught.value.message
    assert "in use by" in caught.value.message
    assert f"(PID {os.getpid()})" in caught.value.message
    assert caught.value.hint.startswith("stop ")


def test_no_such_interface_names_those_there_are() -> None:
    for act in (lambda: udp.open_udp(0, interface="nope0"), lambda: udp.interface_address("nope0")):
        with pytest.raises(udp.UdpError, match="nope0") as caught:
            act()
        assert "this machine has" in caught.value.hint


def test_an_address_that_is_not_ours() -> None:
    with pytest.raises(udp.UdpError, match=r"192\.0\.2\.77"):
        udp.open_udp(0, address="192.0.2.77")


def test_interfaces_of_this_machine() -> None:
    lo = next(interface for interface in udp.interfaces() if interface.name == "lo")
    assert lo.loopback
    assert not lo.up or str(lo.address) == "127.0.0.1/8"
    if lo.up:
        assert str(udp.interface_address("lo")) == "127.0.0.1/8"


class TestCable:
    pytestmark = needs_root

    def test_addresses_and_the_missing_one(self) -> None:
        with cable() as lan:
            with lan.at_head():
                assert str(udp.interface_address("head0")) == f"{HEAD_IP}/24"
                for _ in range(100):  # the carrier comes a moment after the cable
                    head0 = next(i for i in udp.interfaces() if i.name == "head0")
                    if head0.link:
                        break
                    time.sleep(0.02)
                assert head0.up and head0.link and not head0.loopback
            with lan.at_node(), pytest.raises(udp.UdpError, match="node0 has no IPv4 address"):
                udp.interface_address("node0")

    @pytest.mark.parametrize("client", ["udhcpc", "dhclient"])
    def test_a_real_client_gets_its_address(self, client: str, tmp_path: Path) -> None:
        script, out = tmp_path / "script", tmp_path / "out"
        # dhclient can release only with an address on the device: it does that through an ordinary socket.
        script.write_text(
            f'#!/bin/sh\n(echo "event=$1$reason"; env) >> {out}\n'
            '[ "$reason" = BOUND ] && ip address add $new_ip_address/24 dev $interface\nexit 0\n'
        )
        script.chmod(0o755)
        leases, pid = tmp_path / "leases", tmp_path / "pid"
        extra = ["-O", "ntpsrv", "-O", "mtu", "-O", "broadcast", "-V", "PXEClient:Arch:00007:UNDI:003016"]
        commands = {
            "udhcpc": [
                "udhcpc",
                "-i",
                "node0",
                "-f",
                "-n",
                "-q",
                "-t",
                "5",
                "-T",
                "1",
                "-s",
                str(script),
                *extra,
            ],
            "dhclient": ["dhclient", "-1", "-v", "-sf", str(script), "-lf", str(leases), "-pf", str(pid), "node0"],
        }

        async def main(lan: Lan) -> TinyHead:
            loop = asyncio.get_running_loop()
            head = TinyHead()
            with lan.at_head():
                sock = udp.open_udp(67, interface="head0", broadcast=True)
            drain = udp.Drain(loop, sock, head.handle, name="DHCP")
            code, text = await lan.run(*commands[client])
            assert code == 0, text
            if client == "dhclient":
                code, text = await lan.run(
                    "dhclient", "-r", "-sf", str(script), "-lf", str(leases), "-pf", str(pid), "node0"
                )
                assert code == 0, text
                while Kind.RELEASE not in head.kinds:
                    await asyncio.sleep(0.02)
            drain.close()
            assert drain.errors == 0
            return head

        with cable() as lan:
            head = asyncio.run(main(lan))
        got = out.read_text()
        assert head.kinds[:2] == [Kind.DISCOVER, Kind.REQUEST]
        if client == "udhcpc":
            assert "ip=10.77.0.100\n" in got
            assert f"router={HEAD_IP}\n" in got
            assert f"dns={HEAD_IP}\n" in got
            assert "domain=cluster.internal\n" in got
            assert "hostname=n1\n" in got
            assert "lease=600\n" in got
            assert "mtu=1400\n" in got
            assert "broadcast=10.77.0.255\n" in got
            assert "boot_file=snponly.efi\n" in got
            assert f"siaddr={HEAD_IP}\n" in got
            assert head.pool.known("52:54:00:00:77:01")
        else:
            assert "new_ip_address=10.77.0.100\n" in got
            assert "new_subnet_mask=255.255.255.0\n" in got
            assert "new_host_name=n1\n" in got
            assert "new_domain_name=cluster.internal\n" in got
            assert head.kinds[-1] is Kind.RELEASE
