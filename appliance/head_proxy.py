"""Beside another DHCP server: that one gives the addresses, this head says what to boot (proxyDHCP, PXE 2.1 section 2).

No address is ever given. Which machine has which is learnt from the kernel's table of neighbours whenever one asks for
something: what a machine says of itself is compared with the card its packets come from, as a lease is otherwise.
"""

from __future__ import annotations

from collections.abc import Iterable

from appliance.head_dhcp import Address, Ask, Dhcp, Send
from netboot import dhcp, firmware, replies
from netboot.dhcp import DhcpRequest, Kind
from netboot.firmware import Firmware
from netboot.policy import Act
from netboot.subnet import Subnet

ASKED = frozenset({Kind.DISCOVER, Kind.REQUEST, Kind.INFORM})


class Proxy(Dhcp):
    """The use case of ports 67 and 4011 where addresses are somebody else's."""

    def proxied(self, data: bytes, source: Address) -> Iterable[tuple[bytes, Address]]:
        """One datagram on port 4011: firmware that has its address by now asks what to boot (PXE 2.1 section 2.2.1)."""
        answers = self.dhcp(data, source, lambda packet, to: None, from_proxy_port=True)
        # It has an address, and has just spoken from it.
        return [(packet, source) for packet, _ in answers]

    def _answer(
        self, request: DhcpRequest, subnet: Subnet, send: Send, from_proxy_port: bool
    ) -> Iterable[tuple[bytes, Address]]:
        if request.kind not in ASKED:
            return ()
        kind = firmware.classify(request)
        if kind is Firmware.NONE or (request.kind is not Kind.DISCOVER and not from_proxy_port):
            # An installed system, or a machine that takes an address of the other server: not our affair. But it lives.
            node = self.roster.by_mac(request.mac)
            if node is not None:
                self.roster.touch(node.id)
                self.heard(node.id, kind is not Firmware.NONE)
            return ()
        node, decision = self._who(request, kind)
        if decision.act is Act.IGNORE:
            self._remark(request, f"is not answered: {decision.why}")
            return ()
        ask = Ask(request, subnet, node, kind, self._boot_file(request, subnet, node, kind))
        if node is not None:
            self._seen(node, ask, "")
        if ask.boot is None:
            return ()
        reply = replies.proxy(request, subnet.head, ask.boot)
        self.counts[reply.kind.name] += 1
        networks = [known.net for known in self.roster.addresses.subnets.values()]
        packet = dhcp.build(reply)
        self.recorded(request.mac, "out", packet)
        return [(packet, replies.destination(request, reply, networks))]
