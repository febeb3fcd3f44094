"""The operator's way to hooks: what they would be told. They are run by whoever asks."""

from __future__ import annotations

from aiohttp import web

from appliance.head import Head


class HooksApi:
    """Handlers over the head's hooks."""

    def __init__(self, head: Head) -> None:
        self.head = head

    def routes(self) -> list[web.AbstractRouteDef]:
        """What can be asked."""
        return [web.get("/hooks/{event}", self.message), web.get("/hooks/{event}/{ref}", self.message)]

    async def message(self, request: web.Request) -> web.Response:
        """The message of an event for a node as it is now, or for one that does not exist."""
        asked = request.match_info
        return web.json_response(self.head.hook_message(asked["event"], asked.get("ref", "")))
