"""The operator's view of the cluster for its other services: the inventory."""

from __future__ import annotations

from aiohttp import web

from appliance.head import Head


class ClusterApi:
    """Handlers over the head's inventory."""

    def __init__(self, head: Head) -> None:
        self.head = head

    def routes(self) -> list[web.AbstractRouteDef]:
        """What can be asked."""
        return [web.get("/inventory", self.inventory)]

    async def inventory(self, request: web.Request) -> web.Response:
        """All approved nodes, or those of a noderange, as schedulers see them."""
        return web.json_response(self.head.inventory(request.query.getall("refs", None)))
