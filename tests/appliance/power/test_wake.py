from __future__ import annotations

import socket
from ipaddress import IPv4Network

from appliance.power.wake import COPIES, wake
from netboot.wol import ETHERTYPE, PORT, magic
from tests.netboot.lan import cable, needs_root

pytestmark = needs_root
MAC = "52:54:00:00:77:01"
THERE = IPv4Network("10.99.0.0/24")


def test_both_forms_reach_the_wire_and_a_router_gets_the_third() -> None:
    with cable() as lan:
        lan.ip("-n", lan.node, "address", "add", "10.77.0.9/24", "dev", "node0")
        lan.ip("-n", lan.head, "route", "add", str(THERE), "via", "10.77.0.9")
        with lan.at_node():
            raw = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(0x0003))
        raw.bind(("node0", 0x0003))
        raw.settimeout(5)
        with lan.at_head():
            sent = wake([MAC], "10.99.0.4", [THERE, IPv4Network("10.77.0.0/24")], ["10.77.0.255"])
        assert sent == ["head0", "10.99.0.255", "10.77.0.255"]
        frames, datagrams, places = 0, 0, set()
        with raw:
            while frames < COPIES or datagrams < 3 * COPIES:
                packet = raw.recv(2048)
                if int.from_bytes(packet[12:14], "big") == ETHERTYPE and packet[14:] == magic(MAC):
                    assert packet[:6] == b"\xff" * 6
                    frames += 1
                if packet[12:14] == b"\x08\x00" and packet[36:38] == PORT.to_bytes(2, "big"):
                    assert packet.endswith(magic(MAC))
                    datagrams += 1
                    places.add(socket.inet_ntoa(packet[30:34]))
        assert places == {"255.255.255.255", "10.99.0.255", "10.77.0.255"}


def test_nothing_to_send_on_is_said_and_no_crash() -> None:
    with cable() as lan:
        lan.ip("-n", lan.head, "link", "set", "head0", "down")
        with lan.at_head():
            assert wake([MAC], "10.99.0.4", [THERE], ["10.77.0.255"]) == []
