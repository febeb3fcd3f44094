"""The operator's way to what a test of the cluster has to know."""

from __future__ import annotations

from aiohttp import web

from appliance.head import Head


class AcceptanceApi:
    """One handler; the test itself runs in the process of the person who wants it, with that person's keys."""

    def __init__(self, head: Head) -> None:
        self.head = head

    def routes(self) -> list[web.AbstractRouteDef]:
        """What can be asked."""
        return [web.get("/acceptance", self.acceptance)]

    async def acceptance(self, request: web.Request) -> web.Response:
        """The nodes of a noderange, or all that are up."""
        return web.json_response(self.head.acceptance(request.query.getall("refs", None)))
