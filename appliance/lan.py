"""The datagram sockets on a network of the head: DHCP, TFTP, DNS and the empty router advertisement."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable, Iterable

from appliance.errors import Environment
from appliance.head import Head
from netboot.bootfiles import BootFiles, Piece
from netboot.dnsd import DnsServer
from netboot.ra import answer_solicitations
from netboot.tftpd import BytesSource, TftpServer
from netboot.udp import Address, Drain, UdpError, open_udp
from netboot.upstream import upstream_for

log = logging.getLogger("gild")

DHCP_PORT = 67
# The signed GRUB looks for its configuration under this name; what it gets is rendered for its address.
GRUB_CFG = ("grub/grub.cfg", "grub.cfg")


class Lan:
    """What answers on the head's interface, from `open` to `close`."""

    def __init__(self, head: Head, files: BootFiles, segment: bytes, clear: Callable[[], bool]) -> None:
        """`segment` is the initrd's piece that knows this head. No DHCP request is answered until `clear()`: a machine
        that is not answered asks again, for longer than a first look at the wire takes."""
        self.head, self.files, self.segment, self.clear = head, files, segment, clear
        self._opened = contextlib.AsyncExitStack()

    async def open(self) -> None:
        """Open every socket. Raises Environment; what was open by then is closed by `close`."""
        loop, config = asyncio.get_running_loop(), self.head.config
        address, interface = config.address, config.interface
        try:
            tftp = TftpServer(
                loop, self._lookup, address=address, interface=interface, on_done=self._tftp_done, log=log.warning
            )
            self._opened.callback(tftp.close)
            upstream = upstream_for(config.forward, config.address)
            dns = DnsServer(
                loop, self.head.zone, address=address, interface=interface, upstream=upstream, log=log.warning
            )
            self._opened.push_async_callback(dns.close)
            await dns.start()
            # Bound to the device and to every address: a machine that has none asks 255.255.255.255.
            sock = open_udp(DHCP_PORT, interface=config.interface, broadcast=True)
        except UdpError as error:
            raise Environment(error.message, error.hint) from None
        self._dhcp_socket = Drain(loop, sock, self._dhcp, name="DHCP", log=log.warning)
        self._opened.callback(self._dhcp_socket.close)
        advertiser = answer_solicitations(loop, config.interface, log.info)
        if advertiser is not None:
            self._opened.callback(advertiser.close)

    async def close(self) -> None:
        """Close every socket, the last first."""
        await self._opened.aclose()

    def _dhcp(self, data: bytes, source: Address) -> Iterable[tuple[bytes, Address]]:
        return self.head.dhcp(data, source, self._dhcp_socket.send) if self.clear() else ()

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
