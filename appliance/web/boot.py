"""Public HTTP: boot scripts, boot files, and the one call of a freshly installed system."""

from __future__ import annotations

import time
from collections.abc import Callable

from aiohttp import web

from appliance.head import Head
from appliance.web.sending import send
from images.errors import NotFound
from netboot.bootfiles import BootFiles
from netboot.report import HOME, PROOF_HEADER

MAX_BODY = 4096  # bytes of what anybody may post here: the call home is a handful of short lines


class Boot:
    """Handlers over the head and the table of boot files. `segments` gives the initrd's piece for machines that reach
    the head at an address."""

    def __init__(self, head: Head, files: BootFiles, segments: Callable[[str], bytes]) -> None:
        self.head = head
        self.files = files
        self.segments = segments

    def routes(self) -> list[web.AbstractRouteDef]:
        """Everything a machine may ask for before and after it is installed."""
        return [
            web.get("/", self.welcome),
            web.get("/boot.ipxe", self.script),
            web.get("/boot/head.cpio", self.head_segment),
            web.get("/boot/{name:.+}", self.file),
            web.post(HOME + "{node}", self.home),
        ]

    async def welcome(self, request: web.Request) -> web.Response:
        """One line for a person who looks with a browser."""
        return web.Response(text="gild serves boot files here; machines find their way by DHCP.\n")

    async def script(self, request: web.Request) -> web.Response:
        """The iPXE script of the machine that asks, rendered now."""
        query = request.query
        text = self.head.script(query.get("mac", ""), _peer(request), query.get("platform"))
        return web.Response(text=text, content_type="text/plain", headers={"Cache-Control": "no-store"})

    async def head_segment(self, request: web.Request) -> web.Response:
        """Certificate and settings of this head as a small cpio, loaded in front of the installer's initrd."""
        here = request.transport.get_extra_info("sockname") if request.transport is not None else None
        return web.Response(
            body=self.segments(here[0] if here else self.head.config.address), content_type="application/octet-stream"
        )

    async def file(self, request: web.Request) -> web.StreamResponse:
        """A boot file by its public name, and a line on the machine's timeline."""
        name = request.match_info["name"]
        piece = self.files.find(name)
        if piece is None:
            self.head.file_sent(_peer(request), name, 0, 0.0, "http", "not found")
            raise NotFound(f"there is no boot file {name!r}")
        begun = time.monotonic()
        try:
            response = await send(request, piece.fd, piece.offset, piece.size)
        except ConnectionError as gone:
            self.head.file_sent(_peer(request), name, 0, 0.0, "http", str(gone))
            raise
        finally:
            piece.close()
        if request.method == "GET" and response.status < 400:
            count, seconds = response.content_length or 0, time.monotonic() - begun
            self.head.file_sent(_peer(request), name, count, seconds, "http", "")
        return response

    async def home(self, request: web.Request) -> web.Response:
        """The installed system says that it is up (netboot.report.HOME)."""
        body = await request.read()
        self.head.home(request.match_info["node"], body, request.headers.get(PROOF_HEADER, ""), _peer(request))
        return web.Response(text="welcome\n")


def _peer(request: web.Request) -> str:
    return request.remote or ""
