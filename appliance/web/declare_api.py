"""The operator's API for nodes that are declared, and for the order of power-on."""

from __future__ import annotations

from typing import Any

from aiohttp import web

from appliance.errors import Wrong
from appliance.head import Head
from appliance.web.operator import read_body, read_int, read_text, read_texts
from netboot.nodelist import Entry, NodelistInvalid, one


class DeclareApi:
    """Handlers over the head's declared nodes; every answer is JSON."""

    def __init__(self, head: Head) -> None:
        self.head = head

    def routes(self) -> list[web.AbstractRouteDef]:
        """What an operator can declare."""
        return [
            web.post("/declared/add", self.add),
            web.post("/declared/load", self.load),
            web.get("/declared/list", self.list),
            web.get("/poweron", self.shown),
            web.post("/poweron/begin", self.begin),
            web.post("/poweron/end", self.end),
        ]

    async def add(self, request: web.Request) -> web.Response:
        """One node."""
        return web.json_response(self.head.declared.add(_entry(await read_body(request))))

    async def load(self, request: web.Request) -> web.Response:
        """A list, as text."""
        body = await read_body(request)
        text = read_text(body, "text") or ""
        return web.json_response(self.head.declared.load(text.encode(), bool(body.get("preview"))))

    async def list(self, request: web.Request) -> web.Response:
        """All nodes, as a list that can be loaded."""
        return web.json_response({"text": self.head.declared.listed()})

    async def shown(self, request: web.Request) -> web.Response:
        """How the order of power-on stands."""
        return web.json_response(self.head.poweron.shown())

    async def begin(self, request: web.Request) -> web.Response:
        """Approve machines as they are switched on."""
        body = await read_body(request)
        numbers: dict[str, Any] = {key: read_int(body, key) for key in ("rack", "first", "count")}
        numbers = {key: number for key, number in numbers.items() if number is not None}
        groups = tuple(read_texts(body, "groups")) if "groups" in body else ()
        profile = read_text(body, "profile") or "default"
        return web.json_response(
            self.head.poweron.begin(profile=profile, names=read_text(body, "names"), groups=groups, **numbers)
        )

    async def end(self, request: web.Request) -> web.Response:
        """No more of them."""
        return web.json_response(self.head.poweron.end())


def _entry(body: dict[str, Any]) -> Entry:
    words: dict[str, str] = {}
    for key in ("name", "address", "profile", "serial", "uuid", "port"):
        words[key] = read_text(body, key) or ""
    for key in ("mac", "groups"):
        words[key] = " ".join(read_texts(body, key)) if key in body else ""
    try:
        return one(words)
    except NodelistInvalid as error:
        raise Wrong(error.message, error.hint) from None
