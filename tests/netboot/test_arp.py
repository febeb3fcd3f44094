from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from netboot.arp import claim, probe

CARD = bytes.fromhex("525400123456")


def test_a_probe_names_no_sender() -> None:
    """RFC 5227 section 2.1.1: the sender's IP address is all zeroes, the target's hardware address too."""
    packet = probe(CARD, "10.0.0.9")
    assert packet.hex() == "0001080006040001" + CARD.hex() + "00000000" + "000000000000" + "0a000009"


def test_an_independent_reader_agrees() -> None:
    import scapy.layers.l2

    found = scapy.layers.l2.ARP(probe(CARD, "10.0.0.9"))
    assert (found.op, found.hwsrc, found.psrc, found.pdst) == (1, "52:54:00:12:34:56", "0.0.0.0", "10.0.0.9")
    answer = bytes(scapy.layers.l2.ARP(op=2, hwsrc="52:54:00:AA:BB:CC", psrc="10.0.0.9", pdst="0.0.0.0"))
    assert claim(answer) == ("10.0.0.9", "52:54:00:aa:bb:cc")
    assert claim(answer + bytes(18)) == ("10.0.0.9", "52:54:00:aa:bb:cc"), "padded to the smallest frame"
    assert claim(bytes(scapy.layers.l2.ARP(op=1, hwsrc="52:54:00:aa:bb:cc", psrc="10.0.0.9", pdst="10.0.0.1"))) is None
    assert claim(bytes(scapy.layers.l2.ARP(op=2, hwsrc="52:54:00:aa:bb:cc", psrc="0.0.0.0", pdst="10.0.0.1"))) is None


@given(st.binary(max_size=64))
def test_anything_else_is_nothing(packet: bytes) -> None:
    found = claim(packet)
    assert found is None or packet[:8] == bytes.fromhex("0001080006040002")
