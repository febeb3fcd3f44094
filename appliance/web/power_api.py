"""The operator's way to power and BMCs. Passwords come in and never go out."""

from __future__ import annotations

from aiohttp import web

from appliance.errors import Wrong
from appliance.head import Head
from appliance.web.operator import MAX_WAIT, read_body, read_number, read_text, read_texts


class PowerApi:
    """Handlers over the head's power verbs; every answer is JSON."""

    def __init__(self, head: Head) -> None:
        self.head = head

    def routes(self) -> list[web.AbstractRouteDef]:
        """What an operator can do about power."""
        return [
            web.post("/power", self.begin),
            web.get("/power/{id}", self.outcome),
            web.get("/bmcs", self.bmcs),
            web.post("/bmcs/set", self.set),
            web.post("/bmcs/trust", self.trust),
            web.post("/bmcs/remove", self.remove),
        ]

    async def begin(self, request: web.Request) -> web.Response:
        """Begin a command for nodes; the answer says where to ask for what comes of it."""
        body = await read_body(request)
        broadcasts = read_texts(body, "broadcasts") if "broadcasts" in body else []
        return web.json_response(self.head.power(read_text(body, "act") or "", read_texts(body, "refs"), broadcasts))

    async def outcome(self, request: web.Request) -> web.Response:
        """What has come of a command beyond the first `have` rows, waiting up to `wait` seconds for more."""
        number = request.match_info["id"]
        if not number.isdecimal() or len(number) > 15:
            raise Wrong("a command has a number")
        have, wait = read_number(request, "have"), min(MAX_WAIT, read_number(request, "wait"))
        return web.json_response(await self.head.power_outcome(int(number), have, wait))

    async def bmcs(self, request: web.Request) -> web.Response:
        """All BMCs, or those of a noderange."""
        return web.json_response(self.head.bmcs(request.query.getall("refs", None)))

    async def set(self, request: web.Request) -> web.Response:
        """Enter BMCs."""
        body = await read_body(request)
        words = {key: read_text(body, key) or "" for key in ("kind", "address", "user", "password", "fingerprint")}
        return web.json_response(self.head.bmc_set(read_texts(body, "refs"), **words))

    async def trust(self, request: web.Request) -> web.Response:
        """Take a certificate for a BMC's."""
        body = await read_body(request)
        return web.json_response(
            self.head.bmc_trust(read_texts(body, "refs"), read_text(body, "fingerprint") or "")
        )  # fmt: skip

    async def remove(self, request: web.Request) -> web.Response:
        """Forget BMCs."""
        return web.json_response(self.head.bmc_remove(read_texts(await read_body(request), "refs")))
