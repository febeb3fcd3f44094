"""The operator's API for jobs: rolling reinstalls."""

from __future__ import annotations

from typing import Any

from aiohttp import web

from appliance.errors import Wrong
from appliance.head import Head
from appliance.web.operator import read_body, read_text, read_texts


class JobApi:
    """Handlers over the head's jobs; every answer is JSON."""

    def __init__(self, head: Head) -> None:
        self.head = head

    def routes(self) -> list[web.AbstractRouteDef]:
        """What an operator can do about jobs."""
        return [
            web.get("/jobs", self.jobs),
            web.post("/jobs", self.make),
            web.get("/jobs/{id}", self.job),
            web.post("/jobs/{id}/stop", self.stop),
            web.post("/jobs/{id}/retry", self.retry),
        ]

    async def jobs(self, request: web.Request) -> web.Response:
        """All jobs, the newest first."""
        return web.json_response(self.head.jobs.jobs())

    async def job(self, request: web.Request) -> web.Response:
        """One job with its nodes."""
        return web.json_response(self.head.jobs.job(_number(request)))

    async def make(self, request: web.Request) -> web.Response:
        """A job. Two steps, as for `install`: without `expect` only what it would erase, and the digest of that."""
        body = await read_body(request)
        refs = None if body.get("all") else read_texts(body, "refs")
        made = self.head.jobs.make(
            refs,
            at=read_text(body, "at"),
            batch=_count(body, "batch"),
            drain=bool(body.get("drain")),
            power=bool(body.get("power")),
            failures=_count(body, "failures"),
            image=read_text(body, "image"),
            finish=read_text(body, "finish"),
            disk=read_text(body, "disk"),
            expect=read_text(body, "expect"),
        )
        return web.json_response(made)

    async def stop(self, request: web.Request) -> web.Response:
        """Begin nobody any more."""
        return web.json_response(self.head.jobs.stop(_number(request)))

    async def retry(self, request: web.Request) -> web.Response:
        """A new job for those that are not done, in two steps as `make`."""
        expect = read_text(await read_body(request), "expect")
        return web.json_response(self.head.jobs.retry(_number(request), expect))


def _count(body: dict[str, Any], key: str) -> int | None:
    value = body.get(key)
    if value is not None and type(value) is not int:
        raise Wrong(f"{key} should be a number")
    return value


def _number(request: web.Request) -> int:
    text = request.match_info["id"]
    if not (text.isascii() and text.isdecimal()) or len(text) > 9:
        raise Wrong(f"{text[:20]!r} is no number of a job", "see: gild.pyz job list")
    return int(text)
