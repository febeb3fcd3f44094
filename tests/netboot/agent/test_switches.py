"""LLDP on a real wire: frames sent on one end of a cable, heard at the other."""

from __future__ import annotations

import socket
import time

from netboot import lldp
from netboot.agent.switches import MAX_SEATS, Switches
from netboot.report import Nic, Seat
from tests.netboot.lan import cable, needs_root
from tests.netboot.test_lldp import NAME, frame


def test_news_only() -> None:
    said: list[str] = []
    heard = Switches(said.append)
    for _ in range(3):
        heard.heard(frame(NAME), "eth0")
    heard.heard(frame(NAME), "eth1", kind=4)  # our own
    heard.heard(b"nonsense", "eth1")
    assert heard.seats() == (Seat("eth0", "sw1.example", "Gi1/0/7"),)
    assert said == ["eth0 is on port Gi1/0/7 of the switch sw1.example"]
    for number in range(2 * MAX_SEATS):
        heard.heard(frame(NAME), f"x{number}")
    assert len(heard.seats()) == MAX_SEATS


@needs_root[0]
@needs_root[1]
def test_on_a_cable() -> None:
    with cable() as lan:
        said: list[str] = []
        heard = Switches(said.append)
        with lan._inside(lan.node):
            heard.listen([Nic("node0", "52:54:00:00:00:01"), Nic("gone0", "52:54:00:00:00:02")])
        with lan._inside(lan.head):
            switch = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, 0)
        with switch:
            end = time.monotonic() + 30
            while not heard.seats() and time.monotonic() < end:
                switch.sendto(frame(NAME), ("head0", lldp.PROTOCOL, 0, 1, lldp.GROUP))
                time.sleep(0.05)
        assert heard.seats() == (Seat("node0", "sw1.example", "Gi1/0/7"),), said
