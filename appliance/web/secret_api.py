"""The operator's way to secrets: their names can be read, their values only be written."""

from __future__ import annotations

import base64
import binascii

from aiohttp import web

from appliance.errors import Wrong
from appliance.head import Head
from appliance.web.operator import read_body, read_text


class SecretApi:
    """Handlers over the head's secrets; a value comes as base64."""

    def __init__(self, head: Head) -> None:
        self.head = head

    def routes(self) -> list[web.AbstractRouteDef]:
        """What an operator can do with secrets."""
        return [
            web.get("/secrets", self.secrets),
            web.post("/secrets/{name}", self.set),
            web.post("/secrets/{name}/remove", self.remove),
        ]

    async def secrets(self, request: web.Request) -> web.Response:
        """Names, owners and sizes."""
        return web.json_response(self.head.secrets())

    async def set(self, request: web.Request) -> web.Response:
        """Keep a secret."""
        body = await read_body(request)
        try:
            value = base64.b64decode(read_text(body, "value") or "", validate=True)
        except (binascii.Error, ValueError):
            raise Wrong("the value of a secret comes as base64") from None
        name = request.match_info["name"]
        return web.json_response(
            self.head.secret_set(name, value, node=read_text(body, "node"), profile=read_text(body, "profile"))
        )

    async def remove(self, request: web.Request) -> web.Response:
        """Forget a secret."""
        body, name = await read_body(request), request.match_info["name"]
        return web.json_response(
            self.head.secret_remove(name, node=read_text(body, "node"), profile=read_text(body, "profile"))
        )
