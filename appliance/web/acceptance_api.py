"""The operator's way to what commands that log in to nodes have to know."""

from __future__ import annotations

from aiohttp import web

from appliance.head import Head
from appliance.web.operator import read_body, read_text, read_texts


class AcceptanceApi:
    """Handlers over the head; logging in is done in the process of the person who wants it, with that person's keys."""

    def __init__(self, head: Head) -> None:
        self.head = head

    def routes(self) -> list[web.AbstractRouteDef]:
        """What can be asked."""
        return [
            web.get("/acceptance", self.acceptance),
            web.get("/telling", self.telling),
            web.post("/telling", self.told),
        ]

    async def acceptance(self, request: web.Request) -> web.Response:
        """The nodes of a noderange, or all that are up."""
        return web.json_response(self.head.acceptance(request.query.getall("refs", None)))

    async def telling(self, request: web.Request) -> web.Response:
        """What running systems are to be told of themselves."""
        return web.json_response(self.head.telling(request.query.getall("refs", [])))

    async def told(self, request: web.Request) -> web.Response:
        """A running system was told."""
        body = await read_body(request)
        self.head.told(read_text(body, "node") or "", read_texts(body, "lines"), bool(body.get("restarts")))
        return web.json_response({})
