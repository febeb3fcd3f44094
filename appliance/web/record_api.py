"""The operator's API for what was: the audit log, statistics, and a node's record."""

from __future__ import annotations

from aiohttp import web

from appliance.errors import Wrong
from appliance.head import Head


class RecordApi:
    """Handlers over the head's records; every answer is JSON."""

    def __init__(self, head: Head) -> None:
        self.head = head

    def routes(self) -> list[web.AbstractRouteDef]:
        """What an operator can look at."""
        return [
            web.get("/audit", self.audit),
            web.get("/stats", self.stats),
            web.get("/nodes/{ref}/record", self.record),
        ]

    async def audit(self, request: web.Request) -> web.Response:
        """The newest entries of the audit log."""
        query = request.query
        rows = self.head.audit.rows(_seconds(query.get("since", "0")), query.get("who", ""), query.get("word", ""))
        return web.json_response(rows)

    async def stats(self, request: web.Request) -> web.Response:
        """Installations that have ended, by node, profile, image or group."""
        query = request.query
        return web.json_response(self.head.history.stats(query.get("by", "image"), _seconds(query.get("since", "0"))))

    async def record(self, request: web.Request) -> web.Response:
        """Everything about a node between its first packet and now."""
        return web.json_response(self.head.record(request.match_info["ref"]))


def _seconds(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise Wrong("since should be seconds since 1970") from None
