"""The HTTP listeners: public and node (TLS) on every address of the head, operator on a unix socket."""

from __future__ import annotations

import asyncio
import os
import ssl
from asyncio import sslproto
from pathlib import Path

from aiohttp import web

from appliance.errors import Environment
from appliance.keys import HeadIdentity
from appliance.web import app
from netboot.udp import UdpError, open_tcp

BACKLOG = 1024  # connections that wait to be accepted while the loop is busy
# Bytes read of a TLS connection at once, one record's (RFC 8446 section 5.1). asyncio makes a buffer of this size for
# each, and its own 256 KiB came to 2.5 GiB for 10,000 agents and 0.14 ms for each handshake; an upload is as fast with
# 16 KiB (measured).
TLS_PIECE = 16 * 1024
sslproto.SSLProtocol.max_size = TLS_PIECE


class Sites:
    """Three applications, each set up once, and where they listen."""

    def __init__(
        self,
        public: web.Application,
        node: web.Application,
        operator: web.Application,
        identity: HeadIdentity,
        http_port: int,
        https_port: int,
    ) -> None:
        self._public, self._node, self._operator = (app.runner(each) for each in (public, node, operator))
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._context.load_cert_chain(identity.certificate_path, identity.key_path)
        self._ports = http_port, https_port
        self._sites: dict[str, list[web.SockSite]] = {}
        self._socket: Path | None = None

    async def start(self) -> None:
        """Make the applications ready; nobody is answered before one of the next two."""
        for runner in (self._public, self._node, self._operator):
            await runner.setup()

    async def open_operator(self, path: Path) -> None:
        """Listen on the unix socket. Raises Environment."""
        path.unlink(missing_ok=True)
        # The socket is born closed to everybody else: the umask counts, not a chmod a moment later.
        before = os.umask(0o177)
        try:
            await web.UnixSite(self._operator, str(path)).start()
        except OSError as error:
            raise Environment(f"{path}: {error.strerror}", "give a --state with a shorter path") from None
        finally:
            os.umask(before)
        self._socket = path

    async def open(self, address: str) -> None:
        """Listen on an address of the head, for both kinds of machines. Raises Environment."""
        sites = self._sites.setdefault(address, [])
        try:
            for runner, port, context in zip(
                (self._public, self._node), self._ports, (None, self._context), strict=True
            ):
                sock = open_tcp(port, address=address)
                site = web.SockSite(runner, sock, backlog=BACKLOG, ssl_context=context)
                await site.start()
                sites.append(site)
        except UdpError as error:
            raise Environment(error.message, f"{error.hint}, or serve with --http-port and --https-port") from None

    async def close_at(self, address: str) -> None:
        """Accept nobody there any more; what runs goes on to its end."""
        for site in self._sites.pop(address, []):
            await site.stop()

    async def close(self) -> None:
        """End all. Together: each waits a second for its running requests, and one after the other would be three."""
        if self._socket is not None:
            self._socket.unlink(missing_ok=True)
        await asyncio.gather(*(runner.cleanup() for runner in (self._public, self._node, self._operator)))
