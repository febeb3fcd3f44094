"""The agent's API (netboot.report), over TLS."""

from __future__ import annotations

from aiohttp import web

from appliance.head import Head
from netboot.capture import ASK, CAPTURE, CHUNKS, END, OFFER, SESSION_HEADER, Ask, End, Offer
from netboot.report import FILE, HELLO, NEXT, PLAN, REPORT, FileAsk, Hello, Next, PlanAsk, Report
from netboot.wire import decode, encode


class NodeApi:
    """Handlers over the head: read the message, ask the head, send its answer."""

    def __init__(self, head: Head) -> None:
        self.head = head

    def routes(self) -> list[web.AbstractRouteDef]:
        """The calls of an agent: to be installed (netboot.report), and to be captured (netboot.capture)."""
        return [
            web.post(HELLO, self.hello),
            web.post(NEXT, self.next),
            web.post(PLAN, self.plan),
            web.post(FILE, self.file),
            web.post(REPORT, self.report),
            web.post(CAPTURE, self.capture),
            web.post(OFFER, self.offer),
            web.post(ASK, self.ask),
            web.post(CHUNKS, self.chunks),
            web.post(END, self.end),
        ]

    async def hello(self, request: web.Request) -> web.Response:
        """Who a machine is; it learns what to do."""
        return _json(self.head.hello(decode(Hello, await request.read()), request.remote or ""))

    async def next(self, request: web.Request) -> web.Response:
        """A waiting machine asks again; held back until there is news or its time is over."""
        return _json(await self.head.next(decode(Next, await request.read())))

    async def plan(self, request: web.Request) -> web.Response:
        """Uses an order up."""
        return _json(await self.head.plan(decode(PlanAsk, await request.read())))

    async def file(self, request: web.Request) -> web.Response:
        """A piece of an overlay file."""
        piece = self.head.file_piece(decode(FileAsk, await request.read()))
        return web.Response(body=piece, content_type="application/octet-stream")

    async def report(self, request: web.Request) -> web.Response:
        """How the installation goes."""
        return _json(self.head.report(decode(Report, await request.read())))

    async def capture(self, request: web.Request) -> web.Response:
        """Uses an order to capture up."""
        return _json(self.head.capture_plan(decode(PlanAsk, await request.read())))

    async def offer(self, request: web.Request) -> web.Response:
        """What stands on a golden client's disk."""
        return _json(await self.head.capture_offer(decode(Offer, await request.read())))

    async def ask(self, request: web.Request) -> web.Response:
        """Which chunks the head lacks."""
        return _json(await self.head.capture_ask(decode(Ask, await request.read())))

    async def chunks(self, request: web.Request) -> web.Response:
        """Chunks the head lacks."""
        return _json(await self.head.capture_chunks(request.headers.get(SESSION_HEADER, ""), await request.read()))

    async def end(self, request: web.Request) -> web.Response:
        """Everything was sent."""
        return _json(await self.head.capture_end(decode(End, await request.read())))


def _json(message: object) -> web.Response:
    return web.Response(body=encode(message), content_type="application/json")
