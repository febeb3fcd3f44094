"""Messages to and from other DNS servers; dnslib is the second opinion on them."""

from __future__ import annotations

import pytest
from dnslib import AAAA, CNAME, EDNS0, QTYPE, RR, SOA, A, DNSHeader, DNSQuestion, DNSRecord
from hypothesis import given
from hypothesis import strategies as st

from netboot import forward
from netboot.forward import AGAIN, USELESS, Answer, Kept, Question, incoming, outgoing, question, reply


def ask(
    name: str = "www.example.com", kind: str = "A", *, rd: int = 1, edns: int | None = 1232, do: bool = False
) -> bytes:
    message = DNSRecord(DNSHeader(id=0x1234, rd=rd), q=DNSQuestion(name, getattr(QTYPE, kind)))
    message.header.bitmap = 0x0100 * rd
    if edns is not None:
        message.add_ar(EDNS0(udp_len=edns, flags="do" if do else ""))
    return bytes(message.pack())


def asked(*words: str, **more: object) -> Question:
    found = question(ask(*words, **more))  # type: ignore[arg-type]
    assert found is not None
    return found


def said(sent: bytes, *records: RR, rcode: int = 0, auth: tuple[RR, ...] = (), tc: int = 0, opt: bool = True) -> bytes:
    """What another server answers, with the question's own bytes."""
    message = DNSRecord.parse(sent)
    answer = DNSRecord(DNSHeader(id=message.header.id, qr=1, ra=1, rd=1, rcode=rcode, tc=tc), q=message.q)
    answer.add_answer(*records)
    answer.add_auth(*auth)
    if opt:
        answer.add_ar(EDNS0(udp_len=1232))
    packed = bytes(answer.pack())
    end = 12 + len(packed[12:].split(b"\0")[0])
    return packed[:12] + sent[12:end] + packed[end:]  # dnslib writes names as it read them, but be sure


def record(ttl: int = 600, name: str = "www.example.com") -> RR:
    return RR(name, QTYPE.A, ttl=ttl, rdata=A("192.0.2.7"))


SOA_RECORD = RR("example.com", QTYPE.SOA, ttl=900, rdata=SOA("ns.example.com", "h.example.com", (1, 2, 3, 4, 60)))


def test_a_question_is_read() -> None:
    found = asked("WWW.Example.com", do=True)
    assert (found.number, found.name, found.kind, found.room) == (0x1234, "www.example.com", 1, 1232)
    assert asked(edns=None).room == 512 and asked(edns=100).room == 512 and asked(edns=4096).room == 1232
    assert found.key == asked("www.EXAMPLE.com", do=True).key != asked("www.example.com").key


@pytest.mark.parametrize("query", [
    b"", b"\0" * 11, ask(rd=0), ask(kind="AXFR"), ask(kind="ANY"), ask(kind="IXFR"), ask(kind="OPT"), ask() + b"x",
    ask()[:-1], ask(edns=None)[:-1], ask().replace(b"\0\x01\0\x01", b"\0\x01\0\x03", 1),
    b"\x12\x34\x81\x00" + ask()[4:], b"\x12\x34\x11\x00" + ask()[4:], ask()[:4] + b"\0\x02" + ask()[6:],
    ask(edns=None)[:12] + b"\xc0\x0c\0\x01\0\x01", ask(edns=None)[:12] + (b"\x3f" + b"x" * 63) * 4 + b"\0\0\x01\0\x01",
])  # fmt: skip
def test_what_is_not_passed_on(query: bytes) -> None:
    assert question(query) is None


@pytest.mark.parametrize("name", [
    "node01", "localhost", "a.localhost", "printer.local", "x.onion", "1.1.10.in-addr.arpa", "5.1.168.192.in-addr.arpa",
    "1.2.20.172.in-addr.arpa", "1.0.0.127.in-addr.arpa", "1.64.100.in-addr.arpa", "1.d.f.ip6.arpa", "a.invalid",
])  # fmt: skip
def test_names_that_nobody_else_is_to_hear_of(name: str) -> None:
    found = asked(name)
    assert forward.stays_here(found)
    answer = DNSRecord.parse(forward.unknown(found))
    assert answer.header.get_rcode() == 3 and answer.header.ra == 1 and answer.header.id == 0x1234


@pytest.mark.parametrize("name", ["example.com", "1.113.0.8.in-addr.arpa", "1.2.32.172.in-addr.arpa", "localhost.com"])
def test_names_that_others_may_know(name: str) -> None:
    assert not forward.stays_here(asked(name)) and not forward.stays_here(asked("com", "NS"))


def test_it_is_written_anew() -> None:
    found = asked("www.example.com", do=True)
    plain, mixed = outgoing(found, 7, 0), outgoing(found, 7, (1 << 255) - 1)
    assert mixed[12:].startswith(b"\x03WWW\x07EXAMPLE\x03COM\0") and plain.lower() == mixed.lower()
    read = DNSRecord.parse(plain)
    assert (read.header.id, read.header.rd, read.header.qr) == (7, 1, 0)
    assert read.ar[0].edns_len == 1232 and read.ar[0].edns_do == 1
    assert outgoing(asked("1-2.example.com"), 7, (1 << 255) - 1)[12:].startswith(b"\x031-2\x07EXAMPLE")


def test_an_answer_comes_back_as_the_client_asked() -> None:
    found = asked("WWW.example.com")
    sent = outgoing(found, 77, 0b1011011101)
    answer = incoming(said(sent, record()), sent, False)
    assert answer is not None and answer.ttl == 600 and answer.counts == (1, 0, 0)
    told = reply(found, answer, False)
    assert told[12:].startswith(b"\x03WWW\x07example")
    read = DNSRecord.parse(told)
    assert (read.header.id, read.header.qr, read.header.ra, read.header.aa, read.header.rd) == (0x1234, 1, 1, 0, 1)
    assert str(read.rr[0].rdata) == "192.0.2.7" and read.rr[0].ttl == 600 and len(read.ar) == 1
    assert DNSRecord.parse(reply(found, answer, False, age=100)).rr[0].ttl == 500
    assert DNSRecord.parse(reply(asked(edns=None), answer, False)).ar == []


def test_only_an_answer_to_this_question_counts() -> None:
    found = asked()
    sent = outgoing(found, 77, 0b111)
    good = said(sent, record())
    assert incoming(b"\0\x4e" + good[2:], sent, False) is None  # another number
    assert incoming(good[:2] + b"\x01" + good[3:], sent, False) is None  # a question
    other = outgoing(asked("www.example.org"), 77, 0)
    assert incoming(said(other, record()), sent, False) is None
    assert incoming(said(outgoing(asked(kind="AAAA"), 77, 0b111), record()), sent, False) is None
    assert incoming(b"", sent, False) is None


def test_other_letters_and_cut_answers_are_asked_for_again() -> None:
    sent, plain = outgoing(asked(), 77, 0b1), outgoing(asked(), 77, 0)
    assert incoming(said(plain, record()), sent, False) is AGAIN
    assert incoming(said(sent, record(), tc=1), sent, False) is AGAIN
    assert isinstance(incoming(said(plain, record()), sent, True), Answer)
    assert incoming(said(sent, record(), tc=1), sent, True) is USELESS


def test_another_server_may_know_better() -> None:
    sent = outgoing(asked(), 77, 0)
    for rcode in (1, 2, 4, 5):
        assert incoming(said(sent, rcode=rcode), sent, False) is USELESS
    good = said(sent, record())
    assert incoming(good[:-12], sent, False) is USELESS
    assert incoming(good + b"x", sent, False) is USELESS


def test_there_is_no_such_name() -> None:
    sent = outgoing(asked(), 77, 0)
    answer = incoming(said(sent, rcode=3, auth=(SOA_RECORD,)), sent, False)
    assert answer is not None and answer.rcode == 3 and answer.ttl == 60  # the SOA's last field
    bare = incoming(said(sent, rcode=3), sent, False)
    assert bare is not None and bare.ttl == 0
    none = incoming(said(sent, auth=(SOA_RECORD,)), sent, False)
    assert none is not None and none.rcode == 0 and none.ttl == 60


def test_chains_and_long_answers() -> None:
    found = asked(edns=None)
    sent = outgoing(found, 77, 0)
    chain = [RR("www.example.com", QTYPE.CNAME, ttl=30, rdata=CNAME("a.example.com")), record(99, "a.example.com")]
    answer = incoming(said(sent, *chain), sent, False)
    assert answer is not None and answer.ttl == 30 and answer.counts == (2, 0, 0)
    many = [RR("www.example.com", QTYPE.AAAA, rdata=AAAA(f"2001:db8::{n:x}")) for n in range(40)]
    long = incoming(said(sent, *many), sent, True)
    assert isinstance(long, Answer)
    cut = DNSRecord.parse(reply(found, long, False))
    assert cut.header.tc == 1 and cut.rr == [] and len(reply(found, long, False)) <= 512
    assert len(DNSRecord.parse(reply(found, long, True)).rr) == 40


def test_what_is_remembered_ends_and_is_bounded() -> None:
    kept, answer = Kept(), Answer(0, (0, 0, 0), b"", (), 100)
    kept.keep(asked(), answer, 1000.0)
    assert kept.find(asked("WWW.EXAMPLE.COM"), 1099.9) == (answer, 99)
    assert kept.find(asked(), 1100.0) is None and kept.find(asked(), 1001.0) is None
    kept.keep(asked(), Answer(0, (0, 0, 0), b"", (), 0), 0.0)
    kept.keep(asked("big.example.com"), Answer(0, (1, 0, 0), b"x" * 5000, (), 9), 0.0)
    assert kept.find(asked(), 0.0) is None and kept.find(asked("big.example.com"), 0.0) is None
    for n in range(2 * forward.MAX_KEPT):
        kept.keep(asked(f"n{n}.example.com"), answer, 0.0)
    assert len(kept._held) == forward.MAX_KEPT and kept.find(asked("n0.example.com"), 1.0) is None


@given(st.integers(0, 65535), st.integers(0, (1 << 255) - 1),
       st.lists(st.from_regex(r"[A-Za-z0-9_-]{1,20}", fullmatch=True), min_size=1, max_size=6),
       st.integers(0, 2**32 - 1))  # fmt: skip
def test_whatever_the_name_the_way_there_and_back_is_whole(number: int, bits: int, labels: list[str], ttl: int) -> None:
    name = ".".join(labels)
    found = asked(name)
    sent = outgoing(found, number, bits)
    answer = incoming(said(sent, record(ttl, name)), sent, False)
    assert isinstance(answer, Answer) and 0 <= answer.ttl <= forward.MAX_TTL
    read = DNSRecord.parse(reply(found, answer, False))
    assert str(read.q.qname) == name + "." and str(read.rr[0].rdata) == "192.0.2.7"


def test_resolv_conf() -> None:
    text = "# c\nnameserver 192.0.2.1\nnameserver ::1\nnameserver 10.0.0.1\nsearch x\nnameserver\nnameserver x\n" * 3
    assert forward.nameservers(text, ["10.0.0.1"]) == ["192.0.2.1"]
    assert len(forward.nameservers("".join(f"nameserver 192.0.2.{n}\n" for n in range(9)), [])) == 3
