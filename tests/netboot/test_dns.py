"""DNS answers: the own zone, its reverse, and everything that is not ours to answer."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import IPv4Network
from typing import Any

import pytest
from dnslib import CLASS, EDNS0, QTYPE, DNSBuffer, DNSHeader, DNSQuestion, DNSRecord
from hypothesis import given
from hypothesis import strategies as st

from netboot.dns import Zone, answer

NODE = "10.77.0.50"
ZONE = Zone(
    "Cluster.Internal",
    "head",
    "10.77.0.1",
    {"n1": "10.77.0.100", "N2": "10.77.0.101", "a.rack1": "10.77.0.102"},
    (IPv4Network("10.77.0.0/24"), IPv4Network("10.80.0.0/20"), IPv4Network("192.168.7.64/26")),
    serial=42,
    services={"_slurmctld._tcp": 6817},
)


def query(name: str, kind: str = "A", *, cls: str = "IN", **edns: int) -> bytes:
    record = DNSRecord(DNSHeader(id=0x1234, rd=1), q=DNSQuestion(name, getattr(QTYPE, kind), getattr(CLASS, cls)))
    if edns:
        record.add_ar(EDNS0(**edns))
    return bytes(record.pack())


def ask(name: str, kind: str = "A", *, source: str = NODE, zone: Zone = ZONE, **more: Any) -> Any:
    reply = answer(query(name, kind, **more), zone, source, False)
    assert reply is not None
    parsed = DNSRecord.parse(reply)
    assert (parsed.header.id, parsed.header.qr, parsed.header.ra) == (0x1234, 1, 0)
    return parsed


def found(reply: Any) -> list[str]:
    return [f"{QTYPE[record.rtype]} {record.rdata}" for record in reply.rr]


@pytest.mark.parametrize(
    ("name", "kind", "records"),
    [
        ("n1.cluster.internal", "A", ["A 10.77.0.100"]),
        ("N1.CLUSTER.internal.", "A", ["A 10.77.0.100"]),
        ("n2.cluster.internal", "A", ["A 10.77.0.101"]),
        ("a.rack1.cluster.internal", "A", ["A 10.77.0.102"]),
        ("head.cluster.internal", "A", ["A 10.77.0.1"]),
        ("n1.cluster.internal", "ANY", ["A 10.77.0.100"]),
        ("cluster.internal", "NS", ["NS head.cluster.internal."]),
        ("100.0.77.10.in-addr.arpa", "PTR", ["PTR n1.cluster.internal."]),
        ("1.0.77.10.in-addr.arpa", "PTR", ["PTR head.cluster.internal."]),
        ("0.77.10.in-addr.arpa", "NS", ["NS head.cluster.internal."]),
        ("_slurmctld._tcp.cluster.internal", "SRV", ["SRV 0 0 6817 head.cluster.internal."]),
    ],
)
def test_names_of_the_zone(name: str, kind: str, records: list[str]) -> None:
    reply = ask(name, kind)
    assert (reply.header.rcode, reply.header.aa, found(reply)) == (0, 1, records)
    assert str(reply.rr[0].rname).rstrip(".") == name.rstrip(".")  # spelt as it was asked for


@pytest.mark.parametrize("name", ["cluster.internal", "0.77.10.in-addr.arpa", "3.80.10.in-addr.arpa"])
def test_every_zone_has_its_soa(name: str) -> None:
    reply = ask(name, "SOA")
    assert reply.header.aa == 1
    assert reply.rr[0].rdata.times[0] == 42
    assert str(reply.rr[0].rdata.mname) == "head.cluster.internal."


@pytest.mark.parametrize(
    ("name", "kind", "rcode"),
    [
        ("nobody.cluster.internal", "A", 3),
        ("x.n1.cluster.internal", "A", 3),
        ("n1.cluster.internal", "AAAA", 0),  # the name is there, only not of that kind
        ("n1.cluster.internal", "MX", 0),
        ("cluster.internal", "A", 0),
        ("rack1.cluster.internal", "A", 0),  # exists by what is below it
        ("99.0.77.10.in-addr.arpa", "PTR", 3),
        ("100.0.77.10.in-addr.arpa", "A", 0),
    ],
)
def test_what_is_not_there_is_denied_with_the_soa(name: str, kind: str, rcode: int) -> None:
    reply = ask(name, kind)
    assert (reply.header.rcode, reply.header.aa, reply.rr) == (rcode, 1, [])
    assert [QTYPE[record.rtype] for record in reply.auth] == ["SOA"]
    apex = str(reply.auth[0].rname).rstrip(".")
    assert name.endswith(apex)


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("example.com", "A"),
        ("internal", "SOA"),
        ("xcluster.internal", "A"),
        (".", "NS"),
        ("5.1.77.10.in-addr.arpa", "PTR"),
        ("77.10.in-addr.arpa", "SOA"),
        ("in-addr.arpa", "SOA"),
        ("1.2.0.77.10.in-addr.arpa", "PTR"),
        ("x.0.77.10.in-addr.arpa", "PTR"),
        ("999.0.77.10.in-addr.arpa", "PTR"),
        ("1.16.80.10.in-addr.arpa", "PTR"),
        ("10.7.168.192.in-addr.arpa", "PTR"),  # beside the /26, though in the same octet
        ("cluster.internal", "AXFR"),
        ("cluster.internal", "IXFR"),
    ],
)
def test_what_is_not_ours_is_refused(name: str, kind: str) -> None:
    reply = ask(name, kind)
    assert (reply.header.rcode, reply.header.aa, reply.rr, reply.auth) == (5, 0, [], [])


def test_reverse_of_networks_that_end_between_octets() -> None:
    zone = Zone("c.i", "head", "10.80.0.1", {"n1": "10.80.15.9", "n2": "192.168.7.70"}, ZONE.networks)
    assert found(ask("9.15.80.10.in-addr.arpa", "PTR", zone=zone)) == ["PTR n1.c.i."]
    assert found(ask("70.7.168.192.in-addr.arpa", "PTR", zone=zone)) == ["PTR n2.c.i."]
    # A /16 is one zone of two octets; what lies between apex and address exists but holds nothing.
    wide = Zone(
        "c.i", "head", "10.80.0.1", {"n1": "10.80.15.9"}, (IPv4Network("10.80.0.0/16"), IPv4Network("10.77.0.0/24"))
    )
    assert found(ask("9.15.80.10.in-addr.arpa", "PTR", zone=wide)) == ["PTR n1.c.i."]
    between = ask("15.80.10.in-addr.arpa", "PTR", zone=wide)
    assert (between.header.rcode, str(between.auth[0].rname)) == (0, "80.10.in-addr.arpa.")


def test_only_the_clusters_networks_are_answered() -> None:
    for source in ("203.0.113.9", "::1", "nonsense", ""):
        reply = answer(query("n1.cluster.internal"), ZONE, source, False)
        assert reply is not None and len(reply) == 12 and reply[3] & 15 == 5
    assert found(ask("n1.cluster.internal", source="10.80.15.255")) == ["A 10.77.0.100"]


def test_other_classes_and_operations() -> None:
    assert ask("version.bind", "TXT", cls="CH").header.rcode == 5
    update = bytearray(query("cluster.internal", "SOA"))
    update[2] = 0x28
    reply = answer(bytes(update), ZONE, NODE, False)
    assert reply is not None and reply[3] & 15 == 4


def test_flags_of_the_question_that_mean_nothing_there_are_not_handed_back() -> None:
    asked = bytearray(query("n1.cluster.internal"))
    asked[2] |= 2  # truncated
    asked[3] |= 15  # an error code
    reply = answer(bytes(asked), ZONE, NODE, False)
    assert reply is not None
    assert (reply[2] & 2, reply[3] & 15) == (0, 0)


def test_edns() -> None:
    plain = ask("n1.cluster.internal")
    assert plain.ar == []
    with_edns = ask("n1.cluster.internal", udp_len=4096)
    assert (with_edns.ar[0].rtype, with_edns.ar[0].edns_len, found(with_edns)) == (41, 1232, ["A 10.77.0.100"])
    bad = ask("n1.cluster.internal", udp_len=4096, version=7)
    assert (bad.header.rcode, bad.ar[0].edns_rcode, bad.ar[0].edns_ver, bad.rr) == (0, 1, 0, [])  # 1 << 4 | 0 = BADVERS


def test_answers_that_do_not_fit_are_marked_and_fit_over_tcp(monkeypatch: pytest.MonkeyPatch) -> None:
    # No name of this zone makes an answer that long, so the limit is brought down to one.
    monkeypatch.setattr("netboot.dns.MAX_PLAIN", 40)
    asked = query("cluster.internal", "NS")
    cut = answer(asked, ZONE, NODE, False)
    whole = answer(asked, ZONE, NODE, True)
    assert cut is not None and whole is not None
    assert DNSRecord.parse(cut).header.tc == 1 and DNSRecord.parse(cut).rr == []
    assert DNSRecord.parse(whole).header.tc == 0 and found(DNSRecord.parse(whole)) == ["NS head.cluster.internal."]


@pytest.mark.parametrize(
    "data",
    [
        b"\x12\x34\x01\0" + b"\xff" * 8,
        b"\x12\x34\x01\0\0\0\0\0\0\0\0\0",
        b"\x12\x34\x01\0\0\1\0\0\0\0\0\0",
        b"\x12\x34\x01\0\0\1\0\0\0\0\0\0\xc0\x0c\0\1\0\1",
        b"\x12\x34\x01\0\0\1\0\0\0\0\0\0\1a\xc0\x0e\xc0\x0c\0\1\0\1",
        b"\x12\x34\x01\0\0\2\0\0\0\0\0\0" + query("a.b")[12:] * 2,
        query("n1.cluster.internal") + b"\0" * 5000,
        query("n1.cluster.internal")[:-1],
    ],
)
def test_malformed_questions(data: bytes) -> None:
    reply = answer(data, ZONE, NODE, False)
    assert reply == b"\x12\x34\x81\x01" + b"\0" * 8


@pytest.mark.parametrize("data", [b"", b"\x12\x34\x01", b"\x12\x34\x80\0" + query("n1.cluster.internal")[4:]])
def test_silence(data: bytes) -> None:
    assert answer(data, ZONE, NODE, False) is None


def test_names_with_bytes_that_are_no_text() -> None:
    data = query("xx.cluster.internal").replace(b"\x02xx", b"\x02\xff\xc3")
    reply = answer(data, ZONE, NODE, False)
    assert reply is not None and reply[3] & 15 in (1, 3)


def test_a_service_asked_for_without_a_domain_is_denied_and_not_refused() -> None:
    """slurmd asks a second time, and waits, where it is refused."""
    assert ask("_slurmctld._tcp", "SRV").header.rcode == 3
    assert ask("_ldap._tcp.example.org", "SRV").header.rcode == 5


def slow(question: bytes, zone: Zone) -> bytes | None:
    """The answer dnslib makes, without the table of ready ones."""
    bare = replace(zone)
    bare.__dict__["ready"] = {}
    return answer(question, bare, NODE, False)


NAMES = st.sampled_from([
    "n1.cluster.internal", "N1.clUSter.internal", "n2.cluster.internal", "head.cluster.internal",
    "nobody.cluster.internal", "100.0.77.10.in-addr.arpa", "1.0.77.10.IN-ADDR.arpa", "9.0.77.10.in-addr.arpa",
    "a.rack1.cluster.internal", "_slurmctld._tcp.cluster.internal", "_tcp.cluster.internal", "example.org",
])  # fmt: skip


@given(
    NAMES,
    st.sampled_from(["A", "PTR", "AAAA", "SRV", "HTTPS", "ANY", "NS"]),
    st.integers(0, 0xFFFF),
    st.one_of(st.none(), st.integers(0, 9000)),
    st.integers(0, 3),
    st.binary(max_size=3),
)
def test_a_ready_answer_means_what_dnslib_says(
    name: str, kind: str, flags: int, udp_len: int | None, version: int, rest: bytes
) -> None:
    edns: dict[str, Any] = {} if udp_len is None else {"udp_len": udp_len, "version": version // 3}
    asked = bytearray(query(name, kind, **edns) + (rest if version == 2 else b""))
    asked[2:4] = flags.to_bytes(2, "big")
    quick, careful = answer(bytes(asked), ZONE, NODE, False), slow(bytes(asked), ZONE)
    if quick is None or careful is None:
        assert quick is careful is None
    elif len(quick) == 12 or len(careful) == 12:
        assert quick == careful
    else:
        assert quick[:12] == careful[:12]
        ours, theirs = DNSRecord.parse(quick), DNSRecord.parse(careful)
        assert (ours.q, ours.rr, ours.auth) == (theirs.q, theirs.rr, theirs.auth)
        assert [record.pack(DNSBuffer()) for record in ours.ar] == [record.pack(DNSBuffer()) for record in theirs.ar]


def test_who_asks_is_remembered_in_bounds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("netboot.dns.MAX_SOURCES", 10)
    zone = replace(ZONE)
    for n in range(100):
        assert ask("n1.cluster.internal", source=f"10.77.0.{n}", zone=zone).rr
        assert ask("n1.cluster.internal", source=f"10.99.0.{n}", zone=zone).header.rcode == 5
    assert len(zone.sources) <= 10
