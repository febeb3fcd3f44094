"""Questions for names that are not ours: what may be asked of another server, what of its answer is believed, and what
is remembered. Messages in, messages out.

A question is written anew for the other server: a number of its own, the letters of its name in random case (Vixie,
Dagon: Use of Bit 0x20 in DNS Labels, 2008). An answer counts only if it repeats both; one that repeats the name in
other letters is asked for again over TCP, which cannot be forged from aside. An answer is taken whole or not at all.
"""

from __future__ import annotations

import struct
from collections import OrderedDict
from collections.abc import Iterable
from dataclasses import dataclass, replace
from ipaddress import IPv4Address

from netboot.dns import MAX_PLAIN, MAX_UDP, NXDOMAIN

MAX_SERVERS = 3  # as many as a resolv.conf has (resolv.conf(5), MAXNS)
MAX_ANSWER = 65535  # bytes: what TCP's length can say (RFC 1035 section 4.2.2)
MAX_RECORDS = 1000  # of an answer: more than 64 KiB of useful ones
MAX_KEPT, MAX_KEPT_SIZE = 512, 4096  # answers remembered, and bytes of one: 2 MiB at most
MAX_TTL, MAX_NEGATIVE_TTL = 3600, 300  # seconds (RFC 8767 section 4 caps at days; a cluster's names move faster)
SERVFAIL = 2
_HEADER, _FIXED = struct.Struct("!6H"), struct.Struct("!HHLH")
_A, _SOA, _AAAA, _OPT, _IN = 1, 6, 28, 41, 1
_FROM_THE_ZONE = (251, 252, 255)  # IXFR, AXFR, and ANY, which is an amplifier's (RFC 8482)
_RD, _CD, _TC, _RA, _QR = 0x0100, 0x0010, 0x0200, 0x0080, 0x8000
_DO = 0x8000  # of an OPT record's flags (RFC 3225)

# Never asked of anybody else: names that mean something on this network alone. RFC 6303 section 4 (reverse zones of
# private and special addresses), RFC 6761 (localhost, invalid, test), RFC 6762 (local), RFC 7686 (onion).
_HERE = frozenset(
    ["localhost", "invalid", "test", "local", "onion", "10.in-addr.arpa", "168.192.in-addr.arpa", "0.in-addr.arpa",
     "127.in-addr.arpa", "254.169.in-addr.arpa", "255.255.255.255.in-addr.arpa", "2.0.192.in-addr.arpa",
     "100.51.198.in-addr.arpa", "113.0.203.in-addr.arpa", "d.f.ip6.arpa", "8.e.f.ip6.arpa", "9.e.f.ip6.arpa",
     "a.e.f.ip6.arpa", "b.e.f.ip6.arpa", "8.b.d.0.1.0.0.2.ip6.arpa",
     ".".join("0" * 32) + ".ip6.arpa", ".".join("1" + "0" * 31) + ".ip6.arpa",
     *(f"{n}.172.in-addr.arpa" for n in range(16, 32)), *(f"{n}.100.in-addr.arpa" for n in range(64, 128))]
)  # fmt: skip


@dataclass(frozen=True)
class Question:
    """One that may be asked of another server, taken out of a client's message. `wire` is name, type and class as the
    client wrote them; `room` the bytes its answer may have over UDP; `edns` its OPT flags, None if it has no OPT."""

    number: int
    flags: int
    wire: bytes
    room: int
    edns: int | None

    @property
    def key(self) -> tuple[bytes, int, bool]:
        """What decides the answer: name, type, class, whether signatures are wanted and checking is off."""
        return self.wire.lower(), self.flags & _CD, bool((self.edns or 0) & _DO)

    @property
    def name(self) -> str:
        """Lower-case, without the last dot; bytes that are no text are made visible."""
        labels, at = [], 0
        while self.wire[at]:
            labels.append(self.wire[at + 1 : at + 1 + self.wire[at]].decode("ascii", "backslashreplace").lower())
            at += 1 + self.wire[at]
        return ".".join(labels)

    @property
    def kind(self) -> int:
        """Its record type."""
        return int.from_bytes(self.wire[-4:-2], "big")


def question(query: bytes) -> Question | None:
    """The question in a client's message, or None if it is none that is passed on: no recursion desired, another class
    than Internet, a whole zone or everything asked for, or anything about it damaged. Never raises."""
    try:
        number, flags, count, answers, authorities, additional = _HEADER.unpack_from(query)
        end = _name_end(query, _HEADER.size, pointers=False) + 4
        wire = query[_HEADER.size : end]
        if flags & 0xFA00 or not flags & _RD or (count, answers, authorities) != (1, 0, 0) or additional > 1:
            return None
        kind, class_ = struct.unpack("!HH", wire[-4:])
        if class_ != _IN or kind in _FROM_THE_ZONE or kind == _OPT:
            return None
        room, edns = MAX_PLAIN, None
        if additional:
            if query[end] != 0:
                return None
            found, size, extra, length = _FIXED.unpack_from(query, end + 1)
            # RFC 6891 section 6.1.3: version 0 is the only one there is.
            if found != _OPT or extra >> 16 & 0xFF or len(query) != end + 11 + length:
                return None
            room, edns = min(max(size, MAX_PLAIN), MAX_UDP), extra & 0xFFFF
        elif len(query) != end:
            return None
        return Question(number, flags, wire, room, edns)
    except (struct.error, IndexError, ValueError):
        return None


def stays_here(asked: Question) -> bool:
    """Whether nobody else is to hear of this name: it is private, or a bare one, which only a search domain makes
    whole."""
    labels = asked.name.split(".")
    if len(labels) == 1 and asked.kind in (_A, _AAAA):
        return True
    return any(".".join(labels[at:]) in _HERE for at in range(len(labels)))


def unknown(asked: Question) -> bytes:
    """The answer to one that stays here: there is no such name."""
    return _without_records(asked, NXDOMAIN)


def unanswered(asked: Question) -> bytes:
    """The answer when nobody else has one."""
    return _without_records(asked, SERVFAIL)


def outgoing(asked: Question, number: int, bits: int) -> bytes:
    """The message for another server. `number` has 16 random bits, `bits` as many as a name has letters (255)."""
    wire = bytearray(asked.wire)
    at = 0
    while length := wire[at]:
        for place in range(at + 1, at + 1 + length):
            if chr(wire[place]).isalpha() and wire[place] < 128:
                wire[place] = wire[place] ^ 0x20 if bits & 1 else wire[place]
                bits >>= 1
        at += 1 + length
    opt = b"\0" + _FIXED.pack(_OPT, MAX_UDP, (asked.edns or 0) & _DO, 0)
    return _HEADER.pack(number, _RD | asked.flags & _CD, 1, 0, 0, 1) + bytes(wire) + opt


@dataclass(frozen=True)
class Answer:
    """What another server said: the rest of a message behind its question, without any OPT. `ttls` says where in it the
    times to live stand; `ttl` is the shortest, 0 if it is not to be remembered."""

    rcode: int
    counts: tuple[int, int, int]
    body: bytes
    ttls: tuple[int, ...] = ()
    ttl: int = 0


AGAIN = Answer(-1, (0, 0, 0), b"")  # ask the same server over TCP: it was cut, or came in other letters
USELESS = Answer(-2, (0, 0, 0), b"")  # ask another server: this one fails or refuses, or what it says is damaged


def incoming(message: bytes, sent: bytes, tcp: bool) -> Answer | None:
    """The answer in `message` to what was `sent`, or AGAIN, or USELESS; None if it is no answer to that. Never
    raises."""
    try:
        number, flags, count, *counts = _HEADER.unpack_from(message)
        end = _name_end(sent, _HEADER.size, pointers=False) + 4
        ours, theirs = sent[_HEADER.size : end], message[_HEADER.size : end]
        if number != int.from_bytes(sent[:2], "big") or not flags & _QR or flags & 0x7800 or count != 1:
            return None
        if ours.lower() != theirs.lower():
            return None
        if not tcp and (flags & _TC or ours != theirs):
            return AGAIN
    except (struct.error, IndexError, ValueError):
        return None
    rcode = flags & 15
    if flags & _TC or rcode not in (0, NXDOMAIN):
        return USELESS
    try:
        return _records(message, end, rcode, counts)
    except (struct.error, IndexError, ValueError):
        return USELESS


def reply(asked: Question, answer: Answer, tcp: bool, age: int = 0) -> bytes:
    """The answer as the client gets it, `age` seconds after it came: with its number, its letters and its EDNS, cut to
    a header that says so where it has no room."""
    body = bytearray(answer.body)
    for place in answer.ttls:
        left = max(0, int.from_bytes(body[place : place + 4], "big") - age)
        body[place : place + 4] = left.to_bytes(4, "big")
    opt = b"" if asked.edns is None else b"\0" + _FIXED.pack(_OPT, MAX_UDP, asked.edns & _DO, 0)
    flags = _QR | _RA | asked.flags & (_RD | _CD) | answer.rcode
    first, second, third = answer.counts
    whole = _HEADER.pack(asked.number, flags, 1, first, second, third + bool(opt)) + asked.wire + bytes(body) + opt
    if len(whole) > (MAX_ANSWER if tcp else asked.room):
        return _HEADER.pack(asked.number, flags | _TC, 1, 0, 0, int(bool(opt))) + asked.wire + opt
    return whole


class Kept:
    """Answers remembered for as long as they say, the one unused for longest making room. Times are seconds of one
    steady clock."""

    def __init__(self) -> None:
        self._held: OrderedDict[tuple[bytes, int, bool], tuple[Answer, float]] = OrderedDict()

    def find(self, asked: Question, now: float) -> tuple[Answer, int] | None:
        """An answer that is still good, and its age."""
        held = self._held.get(asked.key)
        if held is None:
            return None
        answer, came = held
        age = int(now - came)
        if not 0 <= age < answer.ttl:
            del self._held[asked.key]
            return None
        self._held.move_to_end(asked.key)
        return answer, age

    def keep(self, asked: Question, answer: Answer, now: float) -> None:
        """Remember one, if it may be."""
        if answer.ttl and len(answer.body) <= MAX_KEPT_SIZE:
            self._held[asked.key] = answer, now
            self._held.move_to_end(asked.key)
            while len(self._held) > MAX_KEPT:
                self._held.popitem(last=False)


def nameservers(resolv: str, own: Iterable[str]) -> list[str]:
    """The IPv4 servers of a resolv.conf's text, without `own` addresses: asking oneself would never end."""
    found = []
    for line in resolv.splitlines():
        words = line.split()
        if len(words) >= 2 and words[0] == "nameserver":
            try:
                found.append(str(IPv4Address(words[1])))
            except ValueError:
                continue
    return [address for address in dict.fromkeys(found) if address not in set(own)][:MAX_SERVERS]


def _records(message: bytes, at: int, rcode: int, counts: list[int]) -> Answer:
    """Everything behind the question, walked record by record to the end. Raises ValueError, IndexError, struct.error
    if it is not whole."""
    if sum(counts) > MAX_RECORDS:
        raise ValueError("too many")
    begin, shortest, ttls = at, MAX_TTL, []
    kept = [0, 0, 0]
    cut: int | None = None
    for section, count in enumerate(counts):
        for _ in range(count):
            here = at
            at = _name_end(message, at)
            kind, _, ttl, length = _FIXED.unpack_from(message, at)
            at += _FIXED.size + length
            if at > len(message):
                raise ValueError("a record longer than the message")
            if kind == _OPT:
                # One a hop (RFC 6891 section 6.2.6). What comes behind it goes too: it would move otherwise.
                if section != 2:
                    raise ValueError("an OPT record among answers")
                cut = here if cut is None else cut
            if cut is not None:
                continue
            kept[section] += 1
            ttls.append(at - length - 6 - begin)
            shortest = min(shortest, ttl if ttl < 1 << 31 else 0)  # RFC 2181 section 8
            if kind == _SOA and section == 1:
                minimum = int.from_bytes(message[at - 4 : at], "big")  # RFC 2308 section 5
                shortest = min(shortest, minimum)
    if at != len(message):
        raise ValueError("something behind the last record")
    nothing = rcode == NXDOMAIN or not kept[0]
    if nothing:
        shortest = min(shortest, MAX_NEGATIVE_TTL) if kept[1] else 0
    return Answer(rcode, (kept[0], kept[1], kept[2]), message[begin:cut], tuple(ttls), shortest)


def _name_end(message: bytes, at: int, pointers: bool = True) -> int:
    """Behind the name at `at`. Raises ValueError, IndexError for one that is none (RFC 1035 sections 3.1, 4.1.4)."""
    begin = at
    while length := message[at]:
        if length >= 0xC0:
            # Backwards only, so that whoever follows them comes to an end.
            if not pointers or (length & 0x3F) << 8 | message[at + 1] >= at:
                raise ValueError("a pointer")
            return at + 2
        if length > 63 or at + 1 + length - begin > 254:
            raise ValueError("a name too long")
        at += 1 + length
    return at + 1


def _without_records(asked: Question, rcode: int) -> bytes:
    return reply(replace(asked, room=MAX_UDP), Answer(rcode, (0, 0, 0), b""), tcp=False)
