"""The operator's API for rules of approval."""

from __future__ import annotations

from aiohttp import web

from appliance.errors import Wrong
from appliance.head import Head
from appliance.web.operator import read_body, read_text, read_texts


class RuleApi:
    """Handlers over the head's rules; every answer is JSON."""

    def __init__(self, head: Head) -> None:
        self.head = head

    def routes(self) -> list[web.AbstractRouteDef]:
        """What an operator can do about rules."""
        return [
            web.get("/rules", self.rules),
            web.post("/rules/add", self.add),
            web.post("/rules/remove", self.remove),
        ]

    async def rules(self, request: web.Request) -> web.Response:
        """All rules in their order."""
        return web.json_response(self.head.rules())

    async def add(self, request: web.Request) -> web.Response:
        """One more rule."""
        body = await read_body(request)
        before = body.get("before")
        if before is not None and type(before) is not int:
            raise Wrong("before should be the number of a rule")
        return web.json_response(
            self.head.rule_add(
                read_texts(body, "conditions"),
                profile=read_text(body, "profile"),
                names=read_text(body, "names"),
                groups=read_texts(body, "groups") if "groups" in body else (),
                wait=bool(body.get("wait")),
                before=before,
                now=bool(body.get("now")),
            )
        )

    async def remove(self, request: web.Request) -> web.Response:
        """Forget a rule."""
        number = (await read_body(request)).get("id")
        if type(number) is not int:
            raise Wrong("id should be the number of a rule")
        return web.json_response(self.head.rule_remove(number))
