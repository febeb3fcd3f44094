"""Every socket on a network of the head: DHCP, TFTP, DNS, the empty router advertisement, and HTTP."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable, Iterable

from appliance.errors import Environment
from appliance.foreign import ForeignServers
from appliance.head import Head
from appliance.sightings import Server
from appliance.web.sites import Sites
from images.errors import GildError
from netboot.arp import watch
from netboot.bootfiles import BootFiles, Piece
from netboot.dhcp import PROXY_PORT
from netboot.dns import Zone
from netboot.dnsd import DnsServer
from netboot.ra import answer_solicitations
from netboot.subnet import Subnet
from netboot.tftpd import BytesSource, TftpServer
from netboot.udp import Address, Drain, UdpError, open_udp
from netboot.upstream import upstream_for

Segments = Callable[[str], bytes]  # the initrd's piece for machines that reach the head at that address

log = logging.getLogger("gild")

DHCP_PORT = 67
# The signed GRUB looks for its configuration under this name; what it gets is rendered for its address.
GRUB_CFG = ("grub/grub.cfg", "grub.cfg")


class Lan:
    """What answers on one interface of the head, from `open` to `close`."""

    def __init__(
        self, head: Head, interface: str, address: str, files: BootFiles, segment: bytes, clear: Callable[[], bool]
    ) -> None:
        """`address` is the head's on that interface; `segment` is the initrd's piece that knows this head there. No
        DHCP request is answered until `clear()`: a machine that is not answered asks again, for longer than a first
        look at the wire takes."""
        self.head, self.interface, self.address = head, interface, address
        self.files, self.segment, self.clear = files, segment, clear
        self._opened = contextlib.AsyncExitStack()

    async def open(self) -> None:
        """Open every socket. Raises Environment; what was open by then is closed by `close`."""
        loop, address, interface = asyncio.get_running_loop(), self.address, self.interface
        try:
            tftp = TftpServer(
                loop, self._lookup, address=address, interface=interface, on_done=self._tftp_done, log=log.warning
            )
            self._opened.callback(tftp.close)
            upstream = upstream_for(self.head.config.forward, address)
            dns = DnsServer(loop, self._zone, address=address, interface=interface, upstream=upstream, log=log.warning)
            self._opened.push_async_callback(dns.close)
            await dns.start()
            # Bound to the device and to every address: a machine that has none asks 255.255.255.255.
            sock = open_udp(DHCP_PORT, interface=interface, broadcast=True)
            if self.head.proxied is not None:
                late = open_udp(PROXY_PORT, interface=interface, address=address)
                proxy = Drain(loop, late, self.head.proxied, name="proxyDHCP", log=log.warning)
                self._opened.callback(proxy.close)
        except UdpError as error:
            raise Environment(error.message, error.hint) from None
        arp = watch(loop, interface, self.head.claimed, log.warning) if self.head.proxied is None else None
        if arp is not None:
            self._opened.callback(arp.close)
            self.head.probes[interface] = arp.ask
            self._opened.callback(self.head.probes.pop, interface)
        self._dhcp_socket = Drain(loop, sock, self._dhcp, name="DHCP", log=log.warning)
        self._opened.callback(self._dhcp_socket.close)
        advertiser = answer_solicitations(loop, interface, log.info)
        if advertiser is not None:
            self._opened.callback(advertiser.close)

    async def close(self) -> None:
        """Close every socket, the last first."""
        await self._opened.aclose()

    def _zone(self) -> Zone:
        return self.head.zone(self.address)

    def _dhcp(self, data: bytes, source: Address) -> Iterable[tuple[bytes, Address]]:
        return self.head.dhcp(data, source, self._dhcp_socket.send, self.interface) if self.clear() else ()

    def _lookup(self, name: str, client: str) -> Piece | BytesSource | None:
        name = name.lstrip("/")
        if name in GRUB_CFG:
            return BytesSource(self.head.grub_cfg(client).encode())
        piece = BytesSource(self.segment) if name == "head.cpio" else self.files.find(name)
        if piece is None and self.files.is_folder(name):
            raise PermissionError("that is a folder")
        if piece is None and ".." in name.split("/"):
            raise PermissionError("names do not lead out of the folder of boot files")
        return piece

    def _tftp_done(self, client: str, name: str, sent: int, seconds: float, error: str | None) -> None:
        self.head.file_sent(client, name, sent, seconds, "tftp", error or "")


class Lans:
    """All networks the head is on. One behind relays needs no sockets of its own: relays send to those there are."""

    def __init__(self, head: Head, files: BootFiles, segments: Segments, sites: Sites) -> None:
        self.head, self.files, self.segments, self.sites = head, files, segments, sites
        self._lans: dict[str, Lan] = {}
        self._watched: dict[str, tuple[ForeignServers, asyncio.Task[None]]] = {}

    async def open(self, subnet: Subnet, clear: Callable[[], bool]) -> None:
        """Open a network's sockets. Raises Environment, and none is open then."""
        lan = Lan(self.head, subnet.interface, subnet.head, self.files, self.segments(subnet.head), clear)
        self._lans[subnet.name] = lan
        try:
            await self.sites.open(subnet.head)
            await lan.open()
        except GildError:
            await self.close_one(subnet)
            raise

    async def attach(self, subnet: Subnet) -> None:
        """Open a network beside the main one, unless somebody else gives addresses there. Raises Environment."""
        if not subnet.interface:
            return
        if self.head.config.dhcp_check == "on":
            others = ForeignServers(subnet.interface, subnet.head)
            self._watched[subnet.name] = others, asyncio.create_task(others.watch())
            await others.first_look()
            if others.refusal is not None:
                await self.close_one(subnet)
                raise others.refusal
        await self.open(subnet, lambda: True)
        log.info("serving on %s as well: %s, the network %s", subnet.interface, subnet.head, subnet.name)

    async def close_one(self, subnet: Subnet) -> None:
        """Close a network's sockets; harmless if there are none."""
        await self._close(subnet.name)

    async def _close(self, name: str) -> None:
        watch = self._watched.pop(name, None)
        if watch is not None:
            watch[1].cancel()
            await asyncio.gather(watch[1], return_exceptions=True)
        lan = self._lans.pop(name, None)
        if lan is not None:
            await lan.close()
            await self.sites.close_at(lan.address)

    def foreign(self) -> list[Server]:
        """Other DHCP servers on the networks beside the main one."""
        return [server for others, _ in self._watched.values() for server in others.rows()]

    async def close(self) -> None:
        """Close all, the last first."""
        for name in reversed([*self._lans, *(name for name in self._watched if name not in self._lans)]):
            await self._close(name)
