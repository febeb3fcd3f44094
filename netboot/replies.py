"""What the head answers to a DHCP request: OFFER, ACK, NAK, the boot half alone (proxyDHCP), and where it is sent."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv4Network

from netboot import dhcp
from netboot.dhcp import NONE, DhcpReply, DhcpRequest, Kind, ip, ips, text, u32
from netboot.firmware import BootFile
from netboot.siteoptions import classless_routes


@dataclass(frozen=True, slots=True)
class NetworkOptions:
    """What every machine on a network is told. `dns` are addresses, `lease_seconds` the lease."""

    server_ip: str
    netmask: str
    router: str | None = None
    dns: tuple[str, ...] = ()
    domain: str = ""
    lease_seconds: int = 3600
    ntp: tuple[str, ...] = ()
    mtu: int | None = None
    routes: tuple[tuple[str, str], ...] = ()  # (network, router)
    extra: Mapping[int, bytes] = field(default_factory=dict)  # the site's own options, for those that ask for them


def destination(request: DhcpRequest, reply: DhcpReply, networks: Sequence[IPv4Network] = ()) -> tuple[str, int]:
    """Where the reply goes (RFC 2131 section 4.1): relay, or the address the client has, or everybody.

    The RFC would send to the offered address when the broadcast flag is clear; the kernel cannot, since the client
    does not answer ARP yet and we inject no ARP entry, so clients without an address always get a broadcast, which
    they must take (section 4.1). With `networks` given, relays and clients outside them are not believed: a forged
    address would turn the head into a reflector.
    """

    def believed(address: str) -> bool:
        return address != NONE and (not networks or any(IPv4Address(address) in network for network in networks))

    if believed(request.giaddr):
        return request.giaddr, dhcp.SERVER_PORT
    if reply.kind is not Kind.NAK and believed(request.ciaddr):
        return request.ciaddr, dhcp.CLIENT_PORT
    return dhcp.BROADCAST, dhcp.CLIENT_PORT


def offer(request: DhcpRequest, address: str, net: NetworkOptions, boot: BootFile | None, hostname: str) -> DhcpReply:
    """The answer to a DISCOVER: `address`, the network, and the boot file if the machine wants one."""
    return _lease(Kind.OFFER, request, address, net, boot, hostname)


def ack(request: DhcpRequest, address: str, net: NetworkOptions, boot: BootFile | None, hostname: str) -> DhcpReply:
    """The answer to a REQUEST for `address`. With `address` empty the answer to an INFORM: no lease, options only
    (RFC 2131 section 4.3.5)."""
    return _lease(Kind.ACK, request, address, net, boot, hostname)


def nak(request: DhcpRequest, server_ip: str, reason: str) -> DhcpReply:
    """Refuse the address a client asked for: it starts again with DISCOVER. `reason` goes into option 56.

    Through a relay the broadcast flag is set, so that the relay does not unicast to the refused address
    (RFC 2131 section 4.3.2)."""
    reply = DhcpReply(Kind.NAK, request.xid, request.mac, request.flags, giaddr=request.giaddr, limit=request.limit)
    if request.giaddr != NONE:
        reply.flags |= 0x8000
    reply.options = {dhcp.SERVER_ID: ip(server_ip), dhcp.MESSAGE: text(reason[:200])}
    _echo(request, reply)
    return reply


def proxy(request: DhcpRequest, server_ip: str, boot: BootFile) -> DhcpReply:
    """The boot half only, for a network where another server gives the addresses (PXE 2.1 section 2.2.1, proxyDHCP):
    an OFFER to a DISCOVER on port 67, an ACK to a REQUEST on port 4011. It never carries an address."""
    kind = Kind.OFFER if request.kind is Kind.DISCOVER else Kind.ACK
    reply = DhcpReply(kind, request.xid, request.mac, request.flags, giaddr=request.giaddr, limit=request.limit)
    reply.ciaddr = request.ciaddr
    reply.options = {dhcp.SERVER_ID: ip(server_ip), dhcp.VENDOR_CLASS: b"PXEClient"}
    _boot(request, reply, boot)
    # BIOS ROMs and iPXE: discovery control 8 = take the file named here, ask no boot server (PXE 2.1 table 2-2).
    # UEFI firmware often ignores an offer that says so; without option 43 it asks port 4011 instead, and gets this
    # same file there (the way pixiecore goes, found by trial on many boards).
    if request.client_arch in (None, 0) or request.has_ipxe_options:
        reply.options[dhcp.VENDOR] = b"\x06\x01\x08\xff"
    _echo(request, reply)
    return reply


def _lease(
    kind: Kind, request: DhcpRequest, address: str, net: NetworkOptions, boot: BootFile | None, hostname: str
) -> DhcpReply:
    reply = DhcpReply(kind, request.xid, request.mac, request.flags, giaddr=request.giaddr, limit=request.limit)
    reply.yiaddr = address or NONE
    if kind is Kind.ACK:
        reply.ciaddr = request.ciaddr
    options = reply.options
    options[dhcp.SERVER_ID] = ip(net.server_ip)
    if address:
        options[dhcp.LEASE] = u32(net.lease_seconds)
        options[dhcp.RENEW] = u32(net.lease_seconds // 2)
        options[dhcp.REBIND] = u32(net.lease_seconds * 7 // 8)  # RFC 2131 section 4.4.5
    options[dhcp.MASK] = ip(net.netmask)
    if net.router:
        options[dhcp.ROUTER] = ip(net.router)
    if net.dns:
        options[dhcp.DNS] = ips(net.dns)
    if hostname:
        options[dhcp.HOSTNAME] = text(hostname)
    if net.domain:
        options[dhcp.DOMAIN] = text(net.domain)
    wanted = request.params
    if dhcp.BROADCAST_ADDRESS in wanted and address:
        options[dhcp.BROADCAST_ADDRESS] = bytes(a | ~m & 255 for a, m in zip(ip(address), ip(net.netmask), strict=True))
    if dhcp.NTP in wanted and net.ntp:
        options[dhcp.NTP] = ips(net.ntp)
    if dhcp.MTU in wanted and net.mtu:
        options[dhcp.MTU] = net.mtu.to_bytes(2, "big")
    if dhcp.ROUTES in wanted and net.routes:
        options[dhcp.ROUTES] = classless_routes(net.routes, net.router or "")
    # Option 43 means to a boot ROM what the PXE specification says, and a site's own value would send it astray.
    rom = request.vendor_class.startswith(("PXEClient", "HTTPClient"))
    options |= {number: value for number, value in net.extra.items() if number in wanted and not (rom and number == 43)}
    if boot:
        _boot(request, reply, boot)
    _echo(request, reply)
    return reply


def _boot(request: DhcpRequest, reply: DhcpReply, boot: BootFile) -> None:
    # Some ROMs read only the header fields, some only the options: both are filled. The options end in a NUL as
    # dnsmasq's do: ROMs exist that run on into the next option, and EDK2 (PxeBcDhcp4.c) writes one behind the value.
    reply.siaddr = boot.server
    reply.file = boot.name if len(boot.name) < 128 else ""
    reply.options[dhcp.BOOT_FILE] = text(boot.name) + b"\x00"
    if not boot.url:
        reply.options[dhcp.TFTP_SERVER] = text(boot.server) + b"\x00"
    if boot.echo_class:
        reply.options[dhcp.VENDOR_CLASS] = text(boot.echo_class)
    if boot.ipxe_options:
        reply.options[dhcp.IPXE] = boot.ipxe_options
    if dhcp.UUID in request.options:
        reply.options[dhcp.UUID] = request.options[dhcp.UUID][:17]  # PXE 2.1 section 2.2.3: the server returns it


def _echo(request: DhcpRequest, reply: DhcpReply) -> None:
    if request.options.get(dhcp.CLIENT_ID):
        reply.options[dhcp.CLIENT_ID] = request.options[dhcp.CLIENT_ID][:255]  # RFC 6842 section 3
    if request.relay_info:
        reply.options[dhcp.RELAY] = request.relay_info
