"""DHCP: what a machine that asks for an address is answered, and which loader it is handed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace

from appliance import rows
from appliance.roster import Roster
from images.errors import GildError
from netboot import dhcp, firmware, replies
from netboot.dhcp import NONE, DhcpInvalid, DhcpReply, DhcpRequest, Kind
from netboot.firmware import BootFile, Firmware
from netboot.identity import Sighting, real_uuid
from netboot.node import Boot, Event, Node, State
from netboot.policy import Act, Asks, Decision, decide
from netboot.subnet import Subnet, choose, network_options

PROBE_SECONDS = 3.0  # an answer to ARP comes within milliseconds, from a sleeping machine within one or two seconds
MAX_ASKED = 4096
MAX_CLAIMS = 8  # addresses one card is believed to have; a router that answers for everybody (proxy ARP) has more

Address = tuple[str, int]
Send = Callable[[bytes, Address], object]


@dataclass(frozen=True, slots=True)
class Ask:
    """A request with what is known of it: its network, its node, what asks, and what it is given to boot."""

    request: DhcpRequest
    subnet: Subnet
    node: Node | None
    kind: Firmware
    boot: BootFile | None

    @property
    def host(self) -> str:
        return self.node.name if self.node is not None else ""


class Dhcp:
    """The use case of port 67. `counts` are packets by what became of them."""

    def __init__(self, roster: Roster, available: Callable[[str], bool]) -> None:
        """`available` says whether the head has a boot file of that name."""
        self.roster, self.config = roster, roster.config
        self.counts: Counter[str] = Counter()
        # A known node asks for an address: its number, and whether it is its firmware that asks.
        self.heard: Callable[[int, bool], None] = lambda node_id, boots: None
        # Every message, in and out, with the machine's card: for the flight recorder.
        self.recorded: Callable[[str, str, bytes], object] = lambda mac, way, data: None
        # What asks on an interface whether an address is in use there already.
        self.probes: dict[str, Callable[[str], object]] = {}
        self._asked: dict[str, float] = {}  # addresses of which somebody may say so now, until when
        self._claims: dict[str, set[str]] = {}  # by card
        self._available = _Names(available)

    def dhcp(
        self, data: bytes, source: Address, send: Send, interface: str = "", from_proxy_port: bool = False
    ) -> Iterable[tuple[bytes, Address]]:
        """One datagram on port 67 of `interface` (empty: the main one). Offers and refusals are returned, to be sent at
        once; an acknowledgement goes through `send` once its lease is on the disk. Never raises for anything a machine
        sends."""
        try:
            request = dhcp.parse(data)
        except DhcpInvalid:
            self.counts["not DHCP"] += 1
            return ()
        if not request.from_client:
            self.counts["from another server"] += 1
            return ()
        self.recorded(request.mac, "in", data)
        subnets = tuple(self.roster.addresses.subnets.values())
        subnet = choose(request, interface or self.config.interface, source[0], subnets)
        if subnet is None:
            self.counts["from no network of ours"] += 1
            self._remark(request, f"asks from a network that is not described here ({request.giaddr})", "warn")
            return ()
        try:
            return self._answer(request, subnet, send, from_proxy_port)
        except DhcpInvalid as error:
            # The answer does not fit what the client can take, or a field of it: say so where people look.
            self._remark(request, f"cannot be answered: {error.message}", "warn")
            return ()

    def _answer(
        self, request: DhcpRequest, subnet: Subnet, send: Send, from_proxy_port: bool
    ) -> Iterable[tuple[bytes, Address]]:
        now, pool = self.roster.clock.steady(), self.roster.pool
        if request.kind is Kind.RELEASE:
            if pool.release(request.mac, request.ciaddr, now):
                self.roster.store.submit([rows.lease_gone(request.mac)], self.roster.lost)
                self._remark(request, f"gives its address {request.ciaddr} back")
            return ()
        if request.kind is Kind.DECLINE:
            if pool.decline(request.mac, request.requested_ip or "", now):
                self._remark(request, f"found {request.requested_ip} in use by somebody else; it is set aside", "warn")
            return ()
        if request.server_id not in (None, *(known.head for known in self.roster.addresses.subnets.values())):
            pool_address = pool.address(request.mac)
            if pool_address and not pool.known(request.mac):
                pool.release(request.mac, pool_address, now)
            self._remark(request, f"took the offer of another DHCP server, {request.server_id}", "warn")
            return ()
        kind = firmware.classify(request)
        node, decision = self._who(request, kind)
        if decision.act is Act.IGNORE:
            self._remark(request, f"is not answered: {decision.why}")
            return ()
        ask = Ask(request, subnet, node, kind, self._boot_file(request, subnet, node, kind))
        if request.kind is Kind.INFORM:
            return self._packet(ask, self._ack(ask, ""))
        return self._offer(ask, now) if request.kind is Kind.DISCOVER else self._acknowledge(ask, now, send)

    def _offer(self, ask: Ask, now: float) -> Iterable[tuple[bytes, Address]]:
        request, subnet = ask.request, ask.subnet
        address = self.roster.pool.offer(request.mac, request.requested_ip, now, subnet.name)
        if address is None:
            self._remark(
                request, f"gets no address: all from {subnet.first} to {subnet.last} are in use ({subnet.name})", "bad"
            )
            return ()
        probe = self.probes.get(subnet.interface)
        if probe is not None and request.giaddr == NONE and self.roster.pool.on_offer(request.mac, address):
            probe(address)
            self._asked.pop(address, None)
            self._asked[address] = now + PROBE_SECONDS
            if len(self._asked) > MAX_ASKED:
                del self._asked[next(iter(self._asked))]
        if ask.node is not None:
            self._seen(ask.node, ask, address)
        options = network_options(subnet, self.config.domain)
        return self._packet(ask, replies.offer(request, address, options, ask.boot, ask.host))

    def claimed(self, address: str, mac: str) -> None:
        """Somebody with that card says on the wire that it has this address. If it is on offer to another machine, that
        one gets another address; if it is taken up, or a node's own, all that can be done is to say so. Only who was
        asked is heard, and once, and nobody for more than MAX_CLAIMS addresses: anybody can say such things all day."""
        pool, now = self.roster.pool, self.roster.clock.steady()
        if self._asked.get(address, 0.0) <= now:
            return
        holder = pool.holder(address)
        node, other = self.roster.by_mac(holder), self.roster.by_mac(mac)
        if not holder or holder == mac or (node is not None and node is other):
            return
        del self._asked[address]
        if len(self._claims) > MAX_ASKED:
            self._claims.clear()
        claims = self._claims.setdefault(mac, set())
        if address not in claims and len(claims) >= MAX_CLAIMS:
            self.counts["claims of one for many"] += 1
            return
        claims.add(address)
        who = f"{mac} ({other.label})" if other is not None else mac
        own = node is not None and node.state is not State.WAITING and node.address == address
        text, level = f"its address {address} is in use by {who} too", "bad"
        if not own and pool.on_offer(holder, address):
            pool.decline(holder, address, now)
            self.counts["in use"] += 1
            text, level = f"{address}, which it was offered, is in use by {who}: it is set aside", "warn"
        if node is not None:
            self.roster.timeline.note(node.id, text, level)

    def _ack(self, ask: Ask, address: str) -> DhcpReply:
        return replies.ack(ask.request, address, network_options(ask.subnet, self.config.domain), ask.boot, ask.host)

    def _acknowledge(self, ask: Ask, now: float, send: Send) -> Iterable[tuple[bytes, Address]]:
        request, subnet, node = ask.request, ask.subnet, ask.node
        wanted = request.requested_ip or request.ciaddr
        seconds = float(subnet.lease)
        inside = wanted != NONE and wanted in subnet
        if not inside or not self.roster.pool.commit(request.mac, wanted, now, seconds):
            self._remark(request, f"may not have the address {wanted} it asks for; it is told to ask anew")
            return self._packet(ask, replies.nak(request, subnet.head, f"{wanted} is not for {request.mac}"))
        if node is not None:
            self.roster.touch(node.id)
            self.heard(node.id, ask.boot is not None)
            if node.state is State.WAITING and node.address != wanted:
                self.roster.replace(replace(node, address=wanted))
        packets = list(self._packet(ask, self._ack(ask, wanted)))

        def acknowledge(error: GildError | None) -> None:
            # With a full disk the lease lives in memory until the disk takes it: a rack that cannot boot helps nobody.
            self.roster.lost(error)
            for packet, destination in packets:
                send(packet, destination)

        self.roster.store.submit([rows.lease_row(request.mac, wanted, now + seconds)], acknowledge)
        return ()

    def _packet(self, ask: Ask, reply: DhcpReply) -> list[tuple[bytes, Address]]:
        self.counts[reply.kind.name] += 1
        networks = [subnet.net for subnet in self.roster.addresses.subnets.values()]
        packet = dhcp.build(reply)
        self.recorded(reply.mac, "out", packet)
        return [(packet, replies.destination(ask.request, reply, networks))]

    def _who(self, request: DhcpRequest, kind: Firmware) -> tuple[Node | None, Decision]:
        """The node of a request (a new one if it wants to boot), and whether it is answered."""
        sighting = Sighting((request.mac,), real_uuid(request.uuid or ""))
        verdict = self.roster.identify(sighting)
        node = verdict.node
        if node is None and kind is not Firmware.NONE:
            node = self.roster.add(sighting)
        if node is not None and verdict.conflict:
            self.roster.timeline.note(node.id, f"{request.mac} {verdict.conflict}: no order is handed out", "warn")
        elif node is not None and (request.mac not in node.macs or (sighting.uuid and not node.uuid)):
            if not node.macs and node.address and node.state is not State.WAITING:
                # Declared by its UUID, and here it is: its address is its card's from now on.
                self.roster.pool.unreserve(node.holder)
                self.roster.pool.reserve(request.mac, node.address)
            macs = node.macs if request.mac in node.macs else (*node.macs, request.mac)
            node = replace(node, macs=macs, uuid=node.uuid or sighting.uuid)
            self.roster.replace(node)
        now = self.roster.clock.steady()
        return node, decide(node, Asks.LOADER, None, now, unknown=self.config.unknown)

    def _seen(self, node: Node, ask: Ask, address: str) -> None:
        request, kind, boot = ask.request, ask.kind, ask.boot
        self.roster.touch(node.id)
        self.heard(node.id, kind is not Firmware.NONE)
        if kind is Firmware.NONE:
            return
        if boot is None:
            number = firmware.architecture(request)
            self.roster.timeline.note(
                node.id, f"asks for something to boot, but the head has no loader for architecture {number}", "bad"
            )
            return
        if request.relay != node.relay:
            node = replace(node, relay=request.relay)
            self.roster.replace(node)
        known = {"address": address} if address and node.state is State.WAITING else {}
        what = "its script" if kind is Firmware.IPXE else boot.name
        self.roster.apply(
            node, Event.SEEN, firmware=kind.value, loader=kind is Firmware.IPXE, what=f"{what} ({boot.quirk})", **known
        )

    def _boot_file(self, request: DhcpRequest, subnet: Subnet, node: Node | None, kind: Firmware) -> BootFile | None:
        if kind is Firmware.NONE:
            return None
        rung, secure = 0, False
        if node is not None:
            # A loader that was handed out and did not come back is tried no second time: step() counts it when the
            # firmware asks again, so this answer must already be the next rung.
            gone_wrong = node.boot is Boot.LOADER and kind is not Firmware.IPXE and request.kind is Kind.DISCOVER
            rung, secure = node.rung + gone_wrong, node.secure
        boot = firmware.boot_file(request, subnet.head, secure=secure, rung=rung, available=self._available)
        if boot is not None and boot.url and self.config.http_port != 80:
            here = f"http://{subnet.head}"
            boot = replace(boot, name=boot.name.replace(here, f"{here}:{self.config.http_port}", 1))
        return boot

    def _remark(self, request: DhcpRequest, text: str, level: str = "info") -> None:
        """A line on the timeline of a known machine; of an unknown one a count."""
        self.counts[level] += 1
        node = self.roster.by_mac(request.mac)
        if node is not None:
            self.roster.timeline.note(node.id, text, level)


class _Names:
    """A container of boot file names that asks the table of files each time."""

    def __init__(self, known: Callable[[str], bool]) -> None:
        self._known = known

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and self._known(name)
