"""The operator's way to profiles: what they say, where it comes from, and what a node would get by them."""

from __future__ import annotations

from aiohttp import web

from appliance.errors import Wrong
from appliance.head import Head
from appliance.web.operator import read_body


class ProfileApi:
    """Handlers over the head's profiles and their files."""

    def __init__(self, head: Head) -> None:
        self.head = head

    def routes(self) -> list[web.AbstractRouteDef]:
        """What an operator can do with profiles."""
        return [
            web.get("/profiles", self.profiles),
            web.get("/profiles/{name}", self.profile),
            web.get("/profiles/{name}/values", self.values),
            web.post("/profiles/{name}", self.set),
            web.post("/profiles/{name}/remove", self.remove),
            web.get("/nodes/{ref}/values", self.node_values),
            web.get("/nodes/{ref}/render", self.render),
        ]

    async def profiles(self, request: web.Request) -> web.Response:
        """All profiles."""
        return web.json_response(self.head.profiles())

    async def profile(self, request: web.Request) -> web.Response:
        """One profile, as `set` takes it."""
        return web.json_response(self.head.profile(request.match_info["name"]))

    async def values(self, request: web.Request) -> web.Response:
        """What nodes of a profile get, and where each value comes from."""
        return web.json_response(self.head.profile_values(request.match_info["name"]))

    async def node_values(self, request: web.Request) -> web.Response:
        """What one node gets, and where each value comes from."""
        return web.json_response(self.head.node_values(request.match_info["ref"]))

    async def set(self, request: web.Request) -> web.Response:
        """Make or change a profile."""
        name, body = request.match_info["name"], await read_body(request)
        if body.pop("name", name) != name:
            raise Wrong("the profile has another name than the one it is asked for by", "leave the name out")
        return web.json_response(self.head.profile_set(name, **body))

    async def remove(self, request: web.Request) -> web.Response:
        """Forget a profile."""
        return web.json_response(self.head.profile_remove(request.match_info["name"]))

    async def render(self, request: web.Request) -> web.Response:
        """What a node would get of its profile's files: a list, or with `file` one of them."""
        ref, file = request.match_info["ref"], request.query.get("file")
        return web.json_response(self.head.render(ref) if file is None else self.head.render_file(ref, file))
