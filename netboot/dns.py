"""DNS answers for the cluster's own zone and its reverse zone: query bytes in, answer bytes out.

Authoritative only: outside its zones, and to anyone outside the cluster's networks, it refuses, so it is no open
resolver; `forward` has what may be asked of others. dnslib reads and writes the messages; besides its DNSError it
raises UnicodeDecodeError, struct.error and more for bad packets (found by fuzzing), so everything is caught here.

What nodes ask all day, a name for its address and an address for its name, is answered from a table of ready-made
records: 7 us instead of 230 (measured), and the same bytes of meaning as dnslib would give.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from ipaddress import IPv4Address, IPv4Network
from typing import Any

MAX_QUERY = 4096  # bytes: a question and an OPT record need a tenth of it
MAX_UDP = 1232  # bytes: fits every path unfragmented (DNS flag day 2020)
MAX_PLAIN = 512  # bytes: RFC 1035 section 4.2.1, without EDNS
TTL = 60  # seconds: a node that changes its address is found again within a minute
NEGATIVE_TTL = 10  # seconds: names appear as nodes are added

FORMERR, NXDOMAIN, NOTIMP, REFUSED, BADVERS = 1, 3, 4, 5, 16
_A, _NS, _SOA, _PTR, _SRV, _OPT, _IXFR, _AXFR, _ANY, _IN = 1, 2, 6, 12, 33, 41, 251, 252, 255, 1
_HEADER = struct.Struct("!6H")
_RECORD = struct.Struct("!HHHLH")  # a pointer to the question's name, type, class, TTL, length of the data
_QUESTION_NAME = 0xC000 | 12  # RFC 1035 section 4.1.4
_ECHOED = 0x0110  # flags of a question that stand in its answer: recursion desired, checking disabled (RFC 4035)
_EDNS = b"\0" + struct.pack("!HHLH", 41, MAX_UDP, 0, 0)
MAX_SOURCES = 4096  # addresses remembered as being in a network or not


@dataclass(frozen=True)
class Zone:
    """The names to answer for. `names` maps the first label (or dotted labels) under `domain` to an IPv4 address;
    `networks` are both who is answered and what the reverse zone covers. `serial` goes into the SOA record.

    A zone is a value: build a new one when a name changes.
    """

    domain: str
    head_name: str
    head_ip: str
    names: Mapping[str, str] = field(default_factory=dict)
    networks: tuple[IPv4Network, ...] = ()
    serial: int = 1
    services: Mapping[str, int] = field(default_factory=dict)  # "_slurmctld._tcp" -> the head's port for it (RFC 2782)

    @cached_property
    def forward(self) -> dict[str, str]:
        """Full lower-case name -> address, the head among them."""
        table = {f"{label}.{self.domain}".lower(): address for label, address in self.names.items()}
        table[self.head] = self.head_ip
        return table

    @cached_property
    def empty_names(self) -> frozenset[str]:
        """Names that exist only because something stands below them ("rack1" of "n1.rack1"): RFC 8020."""
        parents = set()
        for name in (*self.forward, *self.service_ports):
            while (name := name.partition(".")[2]) and name != self.domain.lower():
                parents.add(name)
        return frozenset(parents)

    @cached_property
    def reverse(self) -> dict[str, str]:
        """Address -> full name; of several names the first, but the head's own name for the head's address."""
        table: dict[str, str] = {}
        for name, address in self.forward.items():
            table.setdefault(address, name)
        table[self.head_ip] = self.head
        return table

    @cached_property
    def service_ports(self) -> dict[str, int]:
        """Full lower-case name of a service -> port."""
        return {f"{name}.{self.domain}".lower(): port for name, port in self.services.items()}

    @cached_property
    def ready(self) -> dict[bytes, bytes]:
        """The question of an address or a name as it comes over the wire, in lower case -> the record that answers
        it."""
        table: dict[bytes, bytes] = {}
        for name, address in self.forward.items():
            data = IPv4Address(address).packed
            table[_wire(name) + _TYPE[_A]] = _RECORD.pack(_QUESTION_NAME, _A, _IN, TTL, len(data)) + data
        for address, name in self.reverse.items():
            if self.covers(IPv4Address(address)):
                data = _wire(name)
                key = _wire(".".join(reversed(address.split("."))) + ".in-addr.arpa") + _TYPE[_PTR]
                table[key] = _RECORD.pack(_QUESTION_NAME, _PTR, _IN, TTL, len(data)) + data
        return table

    @cached_property
    def sources(self) -> dict[str, bool]:
        """Who has asked, and whether that address lies in one of the networks; filled as they ask."""
        return {}

    @cached_property
    def head(self) -> str:
        """The head's full name, which is also the name server of both zones."""
        return f"{self.head_name}.{self.domain}".lower()

    def covers(self, address: IPv4Address) -> bool:
        """`address` lies in one of the networks."""
        return any(address in network for network in self.networks)


def answer(query: bytes, zone: Zone, source_ip: str, tcp: bool) -> bytes | None:
    """The answer to one message, or None for silence: too short to have a header, or itself an answer (two servers
    answering each other's answers would never stop). Never raises. Over UDP the answer is at most 512 bytes, or what
    the client's EDNS allows up to 1232, and marked truncated where that cuts it."""
    if len(query) < _HEADER.size:
        return None
    _, flags, questions, answers, authorities, additional = _HEADER.unpack_from(query)
    if flags & 0x8000:
        return None
    if not from_cluster(zone, source_ip):
        return _bare(query, REFUSED)
    if questions == 1 and not (flags & 0x7A00 or answers or authorities) and additional < 2:
        reply = _quick(query, zone, flags, additional)
        if reply is not None:
            return reply
    if flags & 0x7800:  # opcode other than QUERY
        return _bare(query, NOTIMP)
    # Counted before parsing: 65,535 claimed records are refused without a look at them.
    if questions != 1 or answers or authorities or additional > 2 or len(query) > MAX_QUERY:
        return _bare(query, FORMERR)
    try:
        return _answer(query, zone, tcp)
    except Exception:
        return _bare(query, FORMERR)


def from_cluster(zone: Zone, source_ip: str) -> bool:
    """Whether somebody with that address is answered at all."""
    known = zone.sources.get(source_ip)
    if known is None:
        try:
            known = zone.covers(IPv4Address(source_ip))
        except ValueError:
            known = False
        if len(zone.sources) >= MAX_SOURCES:
            zone.sources.clear()
        zone.sources[source_ip] = known
    return known


def _quick(query: bytes, zone: Zone, flags: int, additional: int) -> bytes | None:
    """The answer from the table, or None if the question is not in it or anything about the message is unusual."""
    end = query.find(b"\0", _HEADER.size) + 5  # the name's last byte, type and class; names of ours hold no zero byte
    rest = query[end:]
    if additional:
        # An OPT record of version 0, at the very end (RFC 6891 section 6.1.2).
        plain = (
            len(rest) >= 11 and rest[:3] == b"\0\0\x29" and not rest[6] and len(rest) == 11 + (rest[9] << 8 | rest[10])
        )
        if not plain or rest[5]:
            return None
    elif rest:
        return None
    name = query[_HEADER.size : end - 4]
    record = zone.ready.get(name.lower() + query[end - 4 : end])
    if record is None:
        return None
    head = query[:2] + struct.pack("!5H", 0x8400 | flags & _ECHOED, 1, 1, 0, additional)
    return head + query[_HEADER.size : end] + record + (_EDNS if additional else b"")


def _wire(name: str) -> bytes:
    """A lower-case name as it stands in a message, without compression."""
    return b"".join(bytes((len(label),)) + label.encode() for label in name.split(".")) + b"\0"


_TYPE = {kind: struct.pack("!HH", kind, _IN) for kind in (_A, _PTR)}


def _answer(query: bytes, zone: Zone, tcp: bool) -> bytes:
    from dnslib import EDNS0, DNSRecord  # here: 26 ms that only a serving head should pay

    asked: Any = DNSRecord.parse(query)
    options = [record for record in asked.ar if record.rtype == _OPT]
    if len(options) > 1:  # RFC 6891 section 6.1.1
        return _bare(query, FORMERR)
    reply = asked.reply(ra=0, aa=0)
    # dnslib copies all flags from the question, where most of them mean nothing.
    reply.header.bitmap = 0x8000 | reply.header.bitmap & _ECHOED
    edns, limit = None, MAX_PLAIN
    if options:
        edns = EDNS0(udp_len=MAX_UDP)
        limit = min(max(options[0].edns_len, MAX_PLAIN), MAX_UDP)
    if options and options[0].edns_ver != 0:  # RFC 6891 section 6.1.3
        # The upper bits of the 12-bit code stand in the OPT record, the lower four (0 for BADVERS) in the header.
        edns = EDNS0(udp_len=MAX_UDP, ext_rcode=BADVERS >> 4)
    else:
        _fill(reply, asked.q, zone)
    if edns is not None:
        reply.add_ar(edns)
    packed = bytes(reply.pack())
    if not tcp and len(packed) > limit:
        reply.rr, reply.auth, reply.header.tc = [], [], 1
        packed = bytes(reply.pack())
    return packed


def _fill(reply: Any, question: Any, zone: Zone) -> None:
    """Put the answer to `question` into `reply`: records, or the SOA that says there are none, or a refusal."""
    name = _name(question.qname)
    if question.qclass != _IN or question.qtype in (_AXFR, _IXFR):
        reply.header.rcode = REFUSED
        return
    apex = _apex(name, zone)
    if apex is None:
        # slurmd asks for the bare `_slurmctld._tcp.` before it goes through its search domains, twice if it is refused.
        # There is no top-level domain that begins with an underscore.
        reply.header.rcode = NXDOMAIN if name.rpartition(".")[2].startswith("_") else REFUSED
        return
    reply.header.aa = 1
    from dnslib import NS, PTR, RR, SRV, A

    exists = name == apex or name in zone.empty_names
    records: list[tuple[int, Any]] = []
    if name == apex:
        records = [(_SOA, _soa(zone)), (_NS, NS(zone.head))]
    elif name in zone.forward:
        exists, records = True, [(_A, A(zone.forward[name]))]
    elif name in zone.service_ports:
        exists, records = True, [(_SRV, SRV(0, 0, zone.service_ports[name], zone.head))]
    elif (address := _reverse_address(name)) is not None and (host := zone.reverse.get(str(address))):
        exists, records = True, [(_PTR, PTR(host))]
    elif name.endswith(".in-addr.arpa") and address is None:
        exists = True  # an octet boundary between the apex and the addresses below it
    # ANY gets one record set, not everything (RFC 8482 section 4.1): it was an amplifier's favourite.
    found = [(kind, data) for kind, data in records if question.qtype in (kind, _ANY)][:1]
    for kind, data in found:
        reply.add_answer(RR(question.qname, kind, ttl=TTL, rdata=data))
    if not found:
        if not exists:
            reply.header.rcode = NXDOMAIN
        reply.add_auth(RR(apex, _SOA, ttl=NEGATIVE_TTL, rdata=_soa(zone)))  # RFC 2308 section 3


def _apex(name: str, zone: Zone) -> str | None:
    """The zone of ours that `name` lies in, or None."""
    domain = zone.domain.lower()
    if name == domain or name.endswith("." + domain):
        return domain
    if not name.endswith(".in-addr.arpa"):
        return None
    octets = name.removesuffix(".in-addr.arpa").split(".")[::-1]
    if len(octets) > 4 or not all(o.isascii() and o.isdecimal() and len(o) <= 3 and int(o) < 256 for o in octets):
        return None
    for network in zone.networks:
        # Reverse zones are cut at octets: 10.0.0.0/20 is sixteen zones of three octets, /26 lies inside one. Addresses
        # beside the network in such a zone are not ours to deny.
        depth = min(max((network.prefixlen + 7) // 8, 1), 3)
        if len(octets) < depth:
            continue
        padded = octets + ["0"] * (4 - len(octets))
        base = IPv4Address(".".join(str(int(o)) for o in padded))
        inside = base in network if len(octets) == 4 else network.overlaps(IPv4Network((int(base), 8 * len(octets))))
        if inside:
            return ".".join(octets[:depth][::-1]) + ".in-addr.arpa"
    return None


def _reverse_address(name: str) -> IPv4Address | None:
    octets = name.removesuffix(".in-addr.arpa").split(".")
    if not name.endswith(".in-addr.arpa") or len(octets) != 4:
        return None
    return IPv4Address(".".join(str(int(octet)) for octet in octets[::-1]))


def _soa(zone: Zone) -> Any:
    from dnslib import SOA

    return SOA(zone.head, f"hostmaster.{zone.domain}", (zone.serial & 0xFFFFFFFF, 3600, 600, 86400, NEGATIVE_TTL))


def _name(label: Any) -> str:
    """Lower-case text without the last dot. A label that is not plain ASCII becomes a name nobody has."""
    return ".".join(part.decode("ascii", "replace") for part in label.label).lower()


def _bare(query: bytes, rcode: int) -> bytes:
    """The header sent back with an error code and no sections: never longer than the question."""
    number, flags = struct.unpack_from("!2H", query)
    return _HEADER.pack(number, 0x8000 | flags & 0x7900 | rcode, 0, 0, 0, 0)
