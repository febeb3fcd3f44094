"""The boot NIC: command lines of every loader, patience with switches, and a real udhcpc."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from netboot.agent import facts, network
from netboot.agent.network import Address, Network, NetworkFailed, boot_mac, candidates, given_address, parse_lease
from netboot.report import Nic
from netboot.udp import Drain, open_udp
from tests.netboot.lan import Lan, TinyHead, cable, needs_root

MAC = "52:54:00:00:77:01"


@pytest.mark.parametrize(
    ("text", "mac"),
    [
        ("01-52-54-00-00-77-01", MAC),
        ("01:52:54:00:00:77:01", MAC),
        ("52:54:00:00:77:01", MAC),
        ("01-52-54-00-00-77-0G", ""),
        ("01", ""),
        ("", ""),
    ],
)
def test_bootif(text: str, mac: str) -> None:
    assert boot_mac({"BOOTIF": text}) == mac


def test_a_given_address() -> None:
    assert given_address({}) is None
    words = {"gild.ip": "10.1.2.3/23", "gild.gateway": "10.1.2.1"}
    assert given_address(words) == Address("10.1.2.3", 23, "10.1.2.1")
    for wrong in ({"gild.ip": "10.1.2.3/33"}, {"gild.ip": "host"}, {"gild.ip": "10.0.0.1/8", "gild.gateway": "x"}):
        with pytest.raises(NetworkFailed):
            given_address(wrong)


@given(st.text(max_size=60) | st.from_regex(r"ip=[0-9.]{0,15}\nmask=[0-9]{0,3}\nrouter=[0-9. ]{0,20}", fullmatch=True))
def test_a_lease_is_a_usable_address_or_none(text: str) -> None:
    found = parse_lease(text)
    assert found is None or (1 <= found.prefix <= 32 and found.lease >= 0)


def test_leases() -> None:
    text = "ip=10.77.0.100\nmask=24\nrouter=10.77.0.1 10.77.0.2\nlease=600\n"
    assert parse_lease(text) == Address("10.77.0.100", 24, "10.77.0.1", 600)
    assert parse_lease("ip=127.0.0.1\nmask=8\n") is None
    assert parse_lease("") is None


def test_only_the_boot_card_is_tried_if_it_is_known() -> None:
    cards = [Nic("eth0", "52:54:00:00:77:09"), Nic("eth1", MAC), Nic("eth2", "52:54:00:00:77:08", link=True)]
    assert [nic.name for nic in candidates(cards, MAC)] == ["eth1"]
    assert [nic.name for nic in candidates(cards, "")] == ["eth2", "eth0", "eth1"]
    assert candidates(cards, "52:54:00:00:00:00") == []


class Patient:
    """A machine whose cards and clock are told by the test; `ip` and DHCP are only counted."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, folder: Path, cards: Sequence[Nic]) -> None:
        self.cards, self.now = list(cards), 0.0
        self.lines: list[str] = []
        self.answer_at = 1e9
        self.asked = 0
        monkeypatch.setattr(Network, "_ip", lambda self, *words: None)
        monkeypatch.setattr(Network, "_dhcp", lambda net, name, want="": self.dhcp())
        self.network = Network(
            lambda: self.cards, self.lines.append, folder=str(folder), clock=lambda: self.now, sleep=self.sleep
        )

    def sleep(self, seconds: float) -> None:
        self.now += seconds

    def dhcp(self) -> Address | None:
        self.asked += 1
        self.now += 8
        return Address("10.77.0.100", 24, lease=600) if self.now >= self.answer_at else None


def test_a_deaf_switch_port_is_outwaited_and_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    machine = Patient(monkeypatch, tmp_path, [Nic("eth0", MAC, link=True)])
    machine.answer_at = 118
    nic, address = machine.network.up(MAC, None)
    assert (nic.name, address.ip) == ("eth0", "10.77.0.100")
    assert len(machine.lines) == 2  # after half a minute, then once a minute
    assert "spanning tree" in machine.lines[0]


def test_a_missing_cable_is_named_and_dhcp_not_even_tried(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    machine = Patient(monkeypatch, tmp_path, [Nic("eth0", MAC)])
    with pytest.raises(NetworkFailed, match=r"no network after 9\d\d s: eth0: no link: is the cable in"):
        machine.network.up(MAC, None)
    assert machine.asked == 0
    assert machine.now >= network.PATIENCE


def test_a_card_without_driver_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    machine = Patient(monkeypatch, tmp_path, [Nic("eth0", "52:54:00:00:77:09", link=True)])
    with pytest.raises(NetworkFailed, match=f"does not see the card {MAC}"):
        machine.network.up(MAC, None)


def test_a_given_address_needs_a_link_and_no_dhcp(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    machine = Patient(monkeypatch, tmp_path, [Nic("eth0", MAC, link=True)])
    assert machine.network.up(MAC, Address("10.1.2.3", 24))[1].ip == "10.1.2.3"
    assert machine.asked == 0


class RealDhcp:
    """The tests' small DHCP server in a thread of the head's namespace."""

    def __init__(self, lan: Lan) -> None:
        self.head = TinyHead()
        self.ready, self.over = threading.Event(), threading.Event()
        self.thread = threading.Thread(target=self._run, args=(lan,))

    def __enter__(self) -> RealDhcp:
        self.thread.start()
        assert self.ready.wait(10)
        return self

    def __exit__(self, *_: object) -> None:
        self.over.set()
        self.thread.join(10)

    def _run(self, lan: Lan) -> None:
        async def serve() -> None:
            with lan.at_head():
                sock = open_udp(67, interface="head0", broadcast=True)
            drain = Drain(asyncio.get_running_loop(), sock, self.head.handle, name="dhcp")
            self.ready.set()
            while not self.over.is_set():
                await asyncio.sleep(0.02)
            drain.close()

        asyncio.run(serve())


@pytest.mark.root
@needs_root[1]
def test_a_real_client_gets_the_card_up(tmp_path: Path) -> None:
    lines: list[str] = []
    with cable() as lan, RealDhcp(lan), lan.at_node():
        lan.ip("-n", lan.node, "link", "set", "node0", "down")
        real = Network(
            lambda: [nic for nic in facts.read_nics("/sys", MAC) if nic.mac == MAC] or [Nic("node0", MAC, link=True)],
            lines.append,
            folder=str(tmp_path / "run"),
        )
        nic, address = real.up(MAC, None)
        assert nic.name == "node0"
        assert (address.ip.rpartition(".")[0], address.prefix, address.gateway) == ("10.77.0", 24, "10.77.0.1")
        assert address.lease == 600
        assert real._dhcp("node0", address.ip) == address  # as the renewal does
    assert lines == []
