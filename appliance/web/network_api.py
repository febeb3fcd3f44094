"""The operator's API for networks."""

from __future__ import annotations

from typing import Any

from aiohttp import web

from appliance.errors import Wrong
from appliance.head import Head
from appliance.web.operator import read_body


class NetworkApi:
    """Handlers over the head's networks; every answer is JSON."""

    def __init__(self, head: Head) -> None:
        self.head = head

    def routes(self) -> list[web.AbstractRouteDef]:
        """What an operator can do about networks."""
        return [
            web.get("/networks", self.networks),
            web.post("/networks/{name}/add", self.add),
            web.post("/networks/{name}", self.set),
            web.post("/networks/{name}/remove", self.remove),
        ]

    async def networks(self, request: web.Request) -> web.Response:
        """All networks."""
        return web.json_response(self.head.networks.networks())

    async def add(self, request: web.Request) -> web.Response:
        """One more network."""
        given = await _given(request)
        return web.json_response(await self.head.networks.add(request.match_info["name"], given))

    async def set(self, request: web.Request) -> web.Response:
        """Change one."""
        given = await _given(request)
        if not given:
            raise Wrong("nothing to change", "see: gild.pyz network set --help")
        return web.json_response(self.head.networks.set(request.match_info["name"], given))

    async def remove(self, request: web.Request) -> web.Response:
        """Serve one no more."""
        return web.json_response(await self.head.networks.remove(request.match_info["name"]))


async def _given(request: web.Request) -> dict[str, Any]:
    return {key: value for key, value in (await read_body(request)).items() if value is not None}
