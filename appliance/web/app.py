"""The three listeners: who may ask what, and how an error becomes an answer."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import Any, TypeVar

from aiohttp import http_exceptions, web

from appliance.errors import Unknown, Wrong
from images.errors import Busy, GildError, ImageError, NotFound
from netboot.wire import WireInvalid

log = logging.getLogger("gild.web")
_server_log = logging.getLogger("gild.http")

MAX_BODY = 4 * 1024 * 1024  # bytes of a request's body; hello with hundreds of disks stays far below it
BODY_TIME = 30.0  # seconds a request's body may take; aiohttp itself would wait for it for ever
LINGER = 2.0  # seconds a client that was refused may go on sending, so that it gets to see the answer
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
Middleware = Callable[[web.Request, Handler], Awaitable[web.StreamResponse]]
Made = TypeVar("Made", bound=Callable[..., Awaitable[web.StreamResponse]])

# HTTP statuses of errors, the one table (exit codes have theirs in appliance.errors).
STATUS: tuple[tuple[type[Exception], int], ...] = (
    (NotFound, 404),
    (Unknown, 404),
    (WireInvalid, 400),
    (Wrong, 409),
    (Busy, 409),
    (ImageError, 500),
    (GildError, 400),
)


def status_of(error: Exception) -> int:
    """The HTTP status of an error; an error that knows its own (`status`) is believed."""
    known = getattr(error, "status", None)
    if isinstance(known, int):
        return known
    return next((status for kind, status in STATUS if isinstance(error, kind)), 500)


@web.middleware
async def answer_errors(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Every error is one JSON shape {"error", "message", "hint"}; what nobody foresaw is logged and says no more."""
    try:
        await _receive(request)
        return await handler(request)
    except web.HTTPException as error:
        return _error(error.status, "http", error.reason)
    except GildError as error:
        return _error(status_of(error), type(error).__name__, error.message, error.hint)
    except ConnectionError:
        # The client left. Raised on, aiohttp would log it with a traceback; an answer it cannot send it drops quietly.
        if request.transport is not None:
            request.transport.abort()
        return web.Response(status=400)
    except Exception:
        log.exception("%s %s failed", request.method, request.path)
        return _error(500, "internal", "the head failed at this request; its log says how")


def streams(handler: Made) -> Made:
    """A handler that reads its request's body itself, piece by piece, and bounds it in size and time."""
    handler.streams = True  # type: ignore[attr-defined]
    return handler


async def _receive(request: web.Request) -> None:
    """Reads the body, which aiohttp keeps for the handler. Raises web.HTTPException: 408, 413, or 400 if it is
    garbled."""
    if not request.body_exists or getattr(request.match_info.handler, "streams", False):
        return
    try:
        async with asyncio.timeout(BODY_TIME):
            await request.read()
    except TimeoutError:
        raise web.HTTPRequestTimeout from None
    except (http_exceptions.BadHttpMessage, web.RequestPayloadError):
        raise web.HTTPBadRequest from None


def _error(status: int, kind: str, message: str, hint: str = "") -> web.Response:
    return web.json_response({"error": kind, "message": message, "hint": hint}, status=status)


def application(
    routes: Iterable[web.AbstractRouteDef], max_body: int = MAX_BODY, inside: Sequence[Middleware] = ()
) -> web.Application:
    """One listener's application; a request's body has at most `max_body` bytes. `inside` are middlewares that see
    errors before they become answers."""
    layers: list[Any] = [answer_errors, *inside]  # aiohttp's own type for them is a private one
    app = web.Application(middlewares=layers, client_max_size=max_body)
    app.add_routes(list(routes))
    return app


def _worth_a_line(record: logging.LogRecord) -> bool:
    """What is not HTTP is its sender's fault: aiohttp's traceback of it would fill the log at every port scan."""
    error = record.exc_info[1] if record.exc_info else None
    if not isinstance(error, http_exceptions.HttpProcessingError):
        return True
    record.exc_info, record.levelno, record.levelname = None, logging.DEBUG, "DEBUG"
    return _server_log.isEnabledFor(logging.DEBUG)


_server_log.addFilter(_worth_a_line)


def runner(app: web.Application) -> web.AppRunner:
    """A runner with the time limits of a server that faces unknown machines: 75 s for a request's headers, and as
    long between two requests."""
    return web.AppRunner(
        app,
        access_log=None,
        logger=_server_log,
        keepalive_timeout=75.0,
        lingering_time=LINGER,
        shutdown_timeout=0.5,
        max_line_size=4096,
        max_field_size=4096,
    )
