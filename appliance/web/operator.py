"""The operator's API, on a unix socket that only root can open: what the command line and scripts ask."""

from __future__ import annotations

import hashlib
import json
from typing import Any

from aiohttp import web

from appliance.errors import Wrong
from appliance.head import Head
from netboot.wanted import OWN

MAX_WAIT = 25.0  # seconds a question for news may be held back


class Operator:
    """Handlers over the head's operator verbs; every answer is JSON."""

    def __init__(self, head: Head) -> None:
        self.head = head

    def routes(self) -> list[web.AbstractRouteDef]:
        """One table of everything an operator can do over the socket."""
        return [
            web.get("/status", self.status),
            web.get("/changes", self.changes),
            web.get("/nodes", self.nodes),
            web.post("/nodes/approve", self.approve),
            web.post("/nodes/install", self.install),
            web.post("/nodes/cancel", self.cancel),
            web.post("/nodes/capture", self.capture),
            web.post("/nodes/set", self.set),
            web.post("/nodes/remove", self.remove),
            web.post("/nodes/same", self.same),
            web.post("/nodes/other", self.other),
            web.get("/nodes/{ref}", self.node),
            web.get("/nodes/{ref}/log", self.log),
        ]

    async def status(self, request: web.Request) -> web.Response:
        """What is served where, and how many nodes are in which state."""
        return web.json_response(self.head.status())

    async def changes(self, request: web.Request) -> web.Response:
        """Events after `cursor`, waiting up to `wait` seconds for the first."""
        cursor, wait = read_number(request, "cursor"), min(MAX_WAIT, read_number(request, "wait"))
        return web.json_response(await self.head.changes(cursor, wait))

    async def nodes(self, request: web.Request) -> web.Response:
        """All nodes, or those of a noderange, a row each."""
        refs = request.query.getall("refs", None)
        return web.json_response(self.head.nodes(refs))

    async def node(self, request: web.Request) -> web.Response:
        """One node with its facts and timeline."""
        return web.json_response(self.head.node(request.match_info["ref"]))

    async def log(self, request: web.Request) -> web.Response:
        """A node's timeline after an event number, waiting for news when asked to."""
        ref, after, wait = request.match_info["ref"], read_number(request, "after"), read_number(request, "wait")
        events = self.head.log(ref, after)
        if not events and wait:
            await self.head.news(min(MAX_WAIT, wait))
            events = self.head.log(ref, after)
        return web.json_response(events)

    async def approve(self, request: web.Request) -> web.Response:
        """Let machines out of the waiting room."""
        body = await read_body(request)
        refs = None if body.get("all") else _refs(body)
        known: dict[str, Any] = {"profile": read_text(body, "profile") or "default", "names": read_text(body, "names")}
        known["groups"] = read_texts(body, "groups") if "groups" in body else ()
        return web.json_response(self.head.approve(refs, **known, rack=read_int(body, "rack")))

    async def install(self, request: web.Request) -> web.Response:
        """Preview, or arm orders. Two steps: a preview's digest comes back as `expect`; if anything has changed since,
        nothing is armed and the answer is 409."""
        body = await read_body(request)
        refs = None if body.get("all") else _refs(body)
        choice = {key: read_text(body, key) for key in ("image", "finish", "disk")}
        rows = self.head.install(refs, **choice, preview=True)
        digest = hashlib.sha256(json.dumps(rows, sort_keys=True).encode()).hexdigest()
        if body.get("preview"):
            return web.json_response({"nodes": rows, "digest": digest})
        if body.get("expect") != digest:
            raise Wrong("what would be erased has changed since it was shown", "look at it again and repeat the order")
        return web.json_response({"nodes": self.head.install(refs, **choice, preview=False), "digest": digest})

    async def capture(self, request: web.Request) -> web.Response:
        """Order that a node's disk is read for a new version of an image, or show what would be read."""
        body = await read_body(request)
        ref, image = read_text(body, "ref"), read_text(body, "image")
        if not ref or not image:
            raise Wrong("which node is to be captured, as which image?")
        told = self.head.capture(
            ref, image, read_text(body, "message") or "", read_text(body, "disk"), preview=bool(body.get("preview"))
        )
        return web.json_response(told)

    async def cancel(self, request: web.Request) -> web.Response:
        """Take orders back."""
        body = await read_body(request)
        return web.json_response(self.head.cancel(None if body.get("all") else _refs(body)))

    async def set(self, request: web.Request) -> web.Response:
        """Change what is wanted of nodes."""
        body = await read_body(request)
        fields: dict[str, Any] = {
            key: read_text(body, key) for key in ("profile", "name", "address", "loader") if key in body
        }
        fields |= {key: read_texts(body, key) for key in ("group", "ungroup") if key in body}
        own = {key: word for key in OWN if (word := read_text(body, key)) is not None}
        return web.json_response(self.head.set(_refs(body), **fields, own=own))

    async def same(self, request: web.Request) -> web.Response:
        """A machine that waits is that node, with another network card."""
        body = await read_body(request)
        return web.json_response(self.head.same(read_text(body, "ref") or "", read_text(body, "node") or ""))

    async def other(self, request: web.Request) -> web.Response:
        """A machine that waits is not the node it looks like."""
        return web.json_response(self.head.other(read_text(await read_body(request), "ref") or ""))

    async def remove(self, request: web.Request) -> web.Response:
        """Forget nodes."""
        return web.json_response(self.head.remove(_refs(await read_body(request))))


async def read_body(request: web.Request) -> dict[str, Any]:
    """The request's JSON object. Raises Wrong."""
    try:
        body = json.loads(await request.read() or b"{}")
    except (ValueError, RecursionError):
        body = None
    if not isinstance(body, dict):
        raise Wrong("the request's body is not a JSON object")
    return body


def _refs(body: dict[str, Any]) -> list[str]:
    refs = read_texts(body, "refs")
    if not refs:
        raise Wrong("refs should be a list of node names")
    return refs


def read_texts(body: dict[str, Any], key: str) -> list[str]:
    """A list of texts of the body. Raises Wrong."""
    value = body.get(key)
    if not isinstance(value, list) or not all(isinstance(word, str) for word in value):
        raise Wrong(f"{key} should be a list of texts")
    return value


def read_text(body: dict[str, Any], key: str) -> str | None:
    """A text of the body, None if it is not there. Raises Wrong."""
    value = body.get(key)
    if value is not None and not isinstance(value, str):
        raise Wrong(f"{key} should be a text")
    return value


def read_int(body: dict[str, Any], key: str) -> int | None:
    """A whole number of the body, None if it is not there. Raises Wrong."""
    value = body.get(key)
    if value is not None and type(value) is not int:
        raise Wrong(f"{key} should be a number")
    return value


def read_number(request: web.Request, key: str) -> int:
    """A number of the query, 0 if it is not there. Raises Wrong."""
    text = request.query.get(key, "0")
    if not text.isdecimal() or len(text) > 15:
        raise Wrong(f"{key} should be a number")
    return int(text)
