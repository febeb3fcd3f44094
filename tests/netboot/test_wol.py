from __future__ import annotations

from ipaddress import IPv4Network

from netboot.wol import ETHERTYPE, directed, frame, magic

MAC = "52:54:00:00:77:01"


def test_what_a_card_looks_for() -> None:
    said = magic(MAC)
    assert len(said) == 102 and said[:6] == b"\xff" * 6
    assert said[6:] == bytes.fromhex("525400007701") * 16


def test_a_frame_is_an_ethernet_frame_to_everybody() -> None:
    said = frame(MAC, "02:00:00:00:00:01")
    assert said[:6] == b"\xff" * 6 and said[6:12] == bytes.fromhex("020000000001")
    assert said[12:14] == ETHERTYPE.to_bytes(2, "big") and said[14:] == magic(MAC)


def test_a_directed_broadcast_is_for_networks_behind_a_router() -> None:
    here, there = IPv4Network("10.1.0.0/24"), IPv4Network("10.2.0.0/16")
    assert directed("10.2.3.4", [here, there], [here]) == "10.2.255.255"
    assert directed("10.2.3.4", [IPv4Network("10.0.0.0/8"), there], [here]) == "10.2.255.255"
    assert directed("10.1.0.9", [here, there], [here]) == ""
    assert directed("192.0.2.1", [here, there], [here]) == ""
    assert directed("10.3.0.0", [IPv4Network("10.3.0.0/31")], []) == ""
    assert directed("", [here], []) == ""
