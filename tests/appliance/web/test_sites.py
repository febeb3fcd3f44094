"""The TLS listener at its real size: what a kept connection costs, and that uploads larger than its buffer arrive."""

from __future__ import annotations

import asyncio
import ssl
from pathlib import Path

from aiohttp import web

from appliance import keys
from appliance.web import app
from appliance.web.sites import TLS_PIECE, Sites
from netboot.udp import open_tcp

BODY = bytes(range(256)) * 8192  # 2 MiB: many records


def _port() -> int:
    with open_tcp(0, address="127.0.0.1") as sock:
        return int(sock.getsockname()[1])


def test_a_connection_holds_one_record_and_takes_many(tmp_path: Path) -> None:
    held: list[int] = []

    async def take(request: web.Request) -> web.Response:
        assert request.transport is not None
        # asyncio's own names: were they others in a later Python, the buffer would be 256 KiB again.
        held.append(len(request.transport._ssl_protocol._ssl_buffer))  # type: ignore[attr-defined]
        return web.Response(body=await request.read())

    async def both() -> bytes:
        identity = keys.head_identity(tmp_path, "127.0.0.1", "cluster.internal")
        node = app.application([web.post("/", take)])
        sites = Sites(app.application([]), node, app.application([]), identity, _port(), port := _port())
        await sites.start()
        await sites.open("127.0.0.1")
        try:
            context = ssl.create_default_context(cafile=str(identity.certificate_path))
            context.check_hostname = False
            reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=context)
            writer.write(b"POST / HTTP/1.1\r\nHost: head\r\nContent-Length: %d\r\n\r\n" % len(BODY) + BODY)
            await reader.readuntil(b"\r\n\r\n")
            back = await reader.readexactly(len(BODY))
            writer.close()
            return back
        finally:
            await sites.close()

    assert asyncio.run(asyncio.wait_for(both(), 30)) == BODY
    assert held == [TLS_PIECE]
