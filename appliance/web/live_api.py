"""A golden client's calls, over TLS, and those of the command that waits for it, over the operator's socket.

The client's side is text for a shell: who has no token learns nothing but one line.
"""

from __future__ import annotations

import asyncio

from aiohttp import http_exceptions, web

from appliance.errors import Unknown, Wrong
from appliance.live import Broken, Live, Relay
from appliance.pasted import refusal
from appliance.web.app import status_of, streams
from appliance.web.operator import MAX_WAIT, read_body
from images.errors import GildError
from images.sources.leftout import Wishes

STALL = 300.0  # seconds without a byte from a client that sends; tar is silent while it looks for the holes of a file
EVERY = 5.0  # seconds between two lines that say how much has come


class LiveApi:
    """Handlers over the offers of one head."""

    def __init__(self, live: Live) -> None:
        self.live = live

    def routes(self) -> list[web.AbstractRouteDef]:
        """What a golden client asks, on the node listener; the token in the path is all it needs to be let in."""
        return [
            web.get("/capture/{token}", self.script),
            web.post("/capture/{token}/facts", self.facts),
            web.put("/capture/{token}/tree", self.tree),
        ]

    def operator_routes(self) -> list[web.AbstractRouteDef]:
        """What the waiting command asks."""
        return [
            web.post("/captures", self.offer),
            web.get("/captures/{token}", self.state),
            web.get("/captures/{token}/stream", self.stream),
            web.post("/captures/{token}/say", self.say),
            web.post("/captures/{token}/end", self.end),
        ]

    # --- the client

    async def script(self, request: web.Request) -> web.Response:
        """What the pasted line runs; a script that says why not, if there is none."""
        try:
            text = self.live.script(_token(request), python=request.query.get("with") == "python3")
        except GildError as error:
            return _text(refusal(str(error)), status_of(error))
        return _text(text)

    async def facts(self, request: web.Request) -> web.Response:
        """What the client is; it learns what to read."""
        try:
            return _text(self.live.facts(_token(request), await request.read(), request.remote or ""))
        except GildError as error:
            return _text(f"! {error}\n", status_of(error))

    @streams
    async def tree(self, request: web.Request) -> web.StreamResponse:
        """The system itself, handed on as it comes; the answer says line by line what becomes of it."""
        token = _token(request)
        try:
            relay = self.live.sending(token)
        except GildError as error:
            return _refused(error)
        trouble = "the client has left before it had sent everything"
        response = web.StreamResponse(headers={"Content-Type": "text/plain; charset=utf-8"})
        response.force_close()
        try:
            await relay.taken()
            await response.prepare(request)
            await _pour(request, relay, response)
            trouble = ""
            async for line in relay.lines():
                await response.write(f"{line}\n".encode())
        except Broken as error:
            trouble = error.message
            if not response.prepared:
                return _refused(error)
            await response.write(f"! {error.message}\n".encode())
        finally:
            self.live.sent(token, relay, trouble)
        await response.write_eof()
        return response

    # --- the command

    async def offer(self, request: web.Request) -> web.Response:
        """Make an offer."""
        body = await read_body(request)
        name, only = body.get("name"), body.get("one_file_system", False)
        lists = {key: body.get(key, []) for key in ("exclude", "include")}
        good = all(isinstance(v, list) and all(isinstance(text, str) for text in v) for v in lists.values())
        if not isinstance(name, str) or not isinstance(only, bool) or not good:
            raise Wrong("name should be a text, exclude and include lists of texts")
        wishes = Wishes(tuple(lists["exclude"]), tuple(lists["include"]), only)
        return web.json_response(self.live.offer(name, wishes))

    async def state(self, request: web.Request) -> web.Response:
        """How an offer stands, waiting up to `wait` seconds for it to become other than `known`."""
        text = request.query.get("wait", "0")
        if not text.isdecimal() or len(text) > 6:
            raise Wrong("wait should be a number")
        known = request.query.get("known", "")
        return web.json_response(await self.live.state(_token(request), known, min(MAX_WAIT, int(text))))

    async def stream(self, request: web.Request) -> web.StreamResponse:
        """What the client sends. If it breaks off, so does this answer."""
        relay = self.live.stream(_token(request))
        pieces = relay.pieces()
        response = web.StreamResponse(headers={"Content-Type": "application/octet-stream"})
        await response.prepare(request)
        try:
            async for piece in pieces:
                await response.write(piece)
            await response.write_eof()
        except Broken:
            if request.transport is not None:
                request.transport.abort()
        except ConnectionError:
            relay.break_off("the command on the head has ended")
            raise
        return response

    async def say(self, request: web.Request) -> web.Response:
        """A line for the client."""
        body = await read_body(request)
        self.live.say(_token(request), str(body.get("text", "")))
        return web.json_response({})

    async def end(self, request: web.Request) -> web.Response:
        """How it ended, for the client; the offer is over."""
        body = await read_body(request)
        self.live.end(_token(request), str(body.get("text", "")), good=body.get("good") is True)
        return web.json_response({})


async def _pour(request: web.Request, relay: Relay, response: web.StreamResponse) -> None:
    """The request's body into the relay; the answer says now and then how much. Raises Broken, also for a client that
    stalls or goes away."""
    loop = asyncio.get_running_loop()
    done, told = 0, loop.time()
    try:
        while True:
            async with asyncio.timeout(STALL):
                piece = await request.content.readany()
            if not piece:
                break
            await relay.put(piece)
            done += len(piece)
            if loop.time() - told > EVERY:
                told = loop.time()
                await response.write(b"+ %d MiB are there\n" % (done >> 20))
    except TimeoutError:
        raise Broken(f"the client has sent nothing for {STALL:.0f} s") from None
    except (ConnectionError, http_exceptions.BadHttpMessage, web.RequestPayloadError):
        raise Broken("the connection to the client broke") from None
    await relay.end()


def _token(request: web.Request) -> str:
    token = request.match_info["token"]
    if len(token) > 64:
        raise Unknown("the head knows nothing of this line")
    return token


def _text(text: str, status: int = 200) -> web.Response:
    # A client's paths are bytes; one that is no UTF-8 goes back to it as it came.
    body = text.encode("utf-8", "surrogateescape")
    headers = {"Content-Type": "text/plain; charset=utf-8", "Cache-Control": "no-store"}
    return web.Response(body=body, status=status, headers=headers)


def _refused(error: GildError) -> web.Response:
    """An answer to a client that may still be sending: it is not read to its end."""
    response = _text(f"! {error}\n", status_of(error))
    response.force_close()
    return response
