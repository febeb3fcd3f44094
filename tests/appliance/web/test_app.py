"""Errors as answers, and what the public port does with requests nobody sane sends."""

from __future__ import annotations

import asyncio
import json
import logging
import re
from collections.abc import Iterator
from typing import Any

import pytest
from aiohttp import web

from appliance.errors import EXIT_CODES, Unknown, Wrong
from appliance.head_hello import Refused
from appliance.sessions import SessionUnknown
from appliance.web import app
from images.errors import Busy, GildError, ManifestInvalid, NotFound
from netboot.wire import WireInvalid
from tests.appliance.process import Served, rack_of_one

SECRET = b"the site's secret"


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (NotFound("x"), 404),
        (Unknown("x"), 404),
        (WireInvalid("x"), 400),
        (Wrong("x"), 409),
        (Busy("x"), 409),
        (SessionUnknown("x"), 401),
        (Refused("x"), 403),
        (ManifestInvalid("x"), 500),
        (GildError("x"), 400),
        (ValueError("x"), 500),
    ],
)
def test_the_table_of_statuses(error: Exception, status: int) -> None:
    assert app.status_of(error) == status


def test_every_error_with_an_exit_code_has_a_status() -> None:
    for kind, _, _ in EXIT_CODES:
        if issubclass(kind, GildError):
            assert 400 <= app.status_of(kind("x")) <= 500


def answers(handler: app.Handler, *requests: bytes, **options: Any) -> list[tuple[int, bytes]]:
    """Status and body of the answers to each of the raw requests, on a connection of its own each."""

    async def one(port: int, request: bytes) -> tuple[int, bytes]:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(request)
        head, _, body = (await reader.read()).partition(b"\r\n\r\n")
        writer.close()
        return int(head.split()[1]) if head else 0, body

    async def main() -> list[tuple[int, bytes]]:
        runner = app.runner(app.application([web.route("*", "/", handler)], **options))
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        try:
            async with asyncio.timeout(20):
                return [await one(runner.addresses[0][1], request) for request in requests]
        finally:
            await runner.cleanup()

    return asyncio.run(main())


def request(method: str = "GET", body: bytes = b"", *headers: str, path: str = "/") -> bytes:
    lines = [f"{method} {path} HTTP/1.1", "Host: head", "Connection: close", *headers]
    if body and not any("ength" in line or "ncoding" in line for line in headers):
        lines.append(f"Content-Length: {len(body)}")
    return "\r\n".join([*lines, "", ""]).encode() + body


def test_an_error_is_json_with_its_hint() -> None:
    async def handler(request: web.Request) -> web.StreamResponse:
        raise Wrong("two words that exclude each other", "say one")

    ((status, body), (missing, other)) = answers(handler, request(), request(path="/nowhere"))
    assert status == 409
    assert json.loads(body) == {"error": "Wrong", "message": "two words that exclude each other", "hint": "say one"}
    assert missing == 404 and json.loads(other)["error"] == "http"


def test_a_fault_is_logged_and_tells_nothing(caplog: pytest.LogCaptureFixture) -> None:
    async def handler(request: web.Request) -> web.StreamResponse:
        raise RuntimeError("inner matters")

    ((status, body),) = answers(handler, request())
    assert status == 500 and b"inner matters" not in body
    assert [record.name for record in caplog.records if record.levelno == logging.ERROR] == ["gild.web"]


def test_a_client_that_left_is_no_fault(caplog: pytest.LogCaptureFixture) -> None:
    async def handler(request: web.Request) -> web.StreamResponse:
        raise ConnectionResetError("gone")

    assert answers(handler, request()) == [(0, b"")]
    assert not caplog.records


def test_a_body_has_a_size_and_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    async def handler(request: web.Request) -> web.StreamResponse:
        return web.Response(body=await request.read())

    chunked = "Transfer-Encoding: chunked"
    monkeypatch.setattr(app, "BODY_TIME", 0.05)
    monkeypatch.setattr(app, "LINGER", 0.05)
    found = answers(
        handler,
        request("POST", b"12345678"),
        request("POST", b"123456789"),
        request("POST", b"abc", "Content-Length: 8"),
        request("POST", b"3\r\nabc\r\n3\r\ndef\r\n0\r\n\r\n", chunked),
        request("POST", b"5\r\nabcde\r\n5\r\nfghij\r\n0\r\n\r\n", chunked),
        request("POST", b"zz\r\nabc\r\n", chunked),
        max_body=8,
    )
    assert [status for status, _ in found] == [200, 413, 408, 200, 413, 400]
    assert found[3][1] == b"abcdef"


# --- the public port of the real process


@pytest.fixture(scope="module")
def head() -> Iterator[Served]:
    with rack_of_one() as served:
        served.paths.boot.mkdir()
        (served.paths.boot / "memtest").write_bytes(b"M" * 1000)
        (served.state / "secret").write_bytes(SECRET)
        served.start()
        yield served


HOSTILE = [
    b"GET /boot/memtest HTTP/1.1\r\nHost: head\r\nX: " + b"a" * 10000 + b"\r\n\r\n",
    b"GET /" + b"a" * 10000 + b" HTTP/1.1\r\nHost: head\r\n\r\n",
    request("POST", b"0\r\n\r\n", "Content-Length: 4", "Transfer-Encoding: chunked"),
    request("POST", b"abcd", "Content-Length: 4", "Content-Length: 5"),
    request("POST", b"abcd", "Content-Length: +4"),
    request("POST", b"abcd", "Content-Length: -4"),
    request("POST", b"abcd", "Transfer-Encoding: chunked, identity"),
    b"GET /boot/mem\0test HTTP/1.1\r\nHost: head\r\n\r\n",
    b"GET /boot/memtest HTTP/1.1\r\nHost: a\0b\r\n\r\n",
    b"GET /boot/memtest HTTP/1.1\r\n folded: x\r\n\r\n",
    b"GET /boot/memtest\r\n\r\n",
    b"GET http://other.example/boot/memtest HTTP/1.1\r\nHost: head\r\nConnection: close\r\n\r\n",
    b"CONNECT other.example:443 HTTP/1.1\r\nHost: other.example\r\nConnection: close\r\n\r\n",
    b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(200) + b"\r\n\r\n",
    b"\xff" * 9000 + b"\r\n\r\n",
    request("TRACE"),
    request("BREW", path="/boot/memtest"),
    request(path="/boot/../secret"),
    request(path="/boot/..%2fsecret"),
    request(path="/boot/%2e%2e/secret"),
    request(path="/boot/%2e%2e%2fsecret"),
    request(path="/boot/..%5csecret"),
    request(path="/boot//../secret"),
    request(path="/boot/%2fetc%2fpasswd"),
    request(path="/boot//etc/passwd"),
    request(path="/boot/memtest%00.png"),
    request(path="/boot/%ff%fe"),
    request(path="/boot/%"),
    request(path="/boot/" + "../" * 30 + "etc/passwd"),
    request(path="/packs/..%2f..%2fsecret"),
    request(path="/packs/" + "A" * 64 + ".pack"),
    request(path="/manifests/..%2f..%2fsecret"),
    request(path="/runs/" + "0" * 63 + "%0a"),
    request(path="/boot.ipxe?mac=%00%ff&platform=%0a#!ipxe"),
    request(path="/boot.ipxe?" + "mac=x&" * 500),
    request("POST", b"x" * 5000, path="/up/1"),
    request("POST", b"x", path="/up/-1"),
    request("POST", b"x", path="/up/99999999999999999999"),
    request("POST", b"x", path="/up/%d9%a1"),
]


@pytest.mark.root
@pytest.mark.parametrize("number", range(len(HOSTILE)))
def test_hostile_requests_get_nothing_and_break_nothing(head: Served, number: int) -> None:
    answer = head.raw(HOSTILE[number])
    if answer:  # a connection that is merely closed is an answer too
        assert re.match(rb"HTTP/[01]\.[019] [2-4][0-9][0-9] ", answer), answer[:200]
    assert SECRET not in answer and b"root:" not in answer
    assert head.http("GET", "/boot/memtest").body == b"M" * 1000
    assert "Traceback" not in head.log


@pytest.mark.root
def test_unknown_names_are_json_404(head: Served) -> None:
    for path in ("/boot/none", "/none", "/packs/none", "/manifests/none", "/runs/none", "/boot/", "/nodes", "/status"):
        reply = head.http("GET", path)
        assert reply.status == 404, path
        assert set(json.loads(reply.body)) == {"error", "message", "hint"}


@pytest.mark.root
def test_the_operators_routes_are_not_on_the_network(head: Served) -> None:
    for path in ("/nodes/approve", "/nodes/install", "/profiles/default", "/node/hello"):
        assert head.http("POST", path, b"{}").status == 404
    assert head.tls("/nodes/approve", b'{"all": true}').status == 404
