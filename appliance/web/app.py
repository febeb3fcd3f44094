"""The three listeners: who may ask what, and how an error becomes an answer."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Iterable

from aiohttp import web

from appliance.errors import Unknown, Wrong
from images.errors import Busy, GildError, ImageError, NotFound
from netboot.wire import WireInvalid

log = logging.getLogger("gild.web")

MAX_BODY = 4 * 1024 * 1024  # bytes of a request's body; hello with hundreds of disks stays far below it
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

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
        return await handler(request)
    except web.HTTPException as error:
        return _error(error.status, "http", error.reason)
    except GildError as error:
        return _error(status_of(error), type(error).__name__, error.message, error.hint)
    except ConnectionError:
        raise
    except Exception:
        log.exception("%s %s failed", request.method, request.path)
        return _error(500, "internal", "the head failed at this request; its log says how")


def _error(status: int, kind: str, message: str, hint: str = "") -> web.Response:
    return web.json_response({"error": kind, "message": message, "hint": hint}, status=status)


def application(routes: Iterable[web.AbstractRouteDef]) -> web.Application:
    """One listener's application."""
    app = web.Application(middlewares=[answer_errors], client_max_size=MAX_BODY)
    app.add_routes(list(routes))
    return app


def runner(app: web.Application) -> web.AppRunner:
    """A runner with the time limits of a server that faces unknown machines: headers within 30 s, idle 75 s."""
    return web.AppRunner(
        app, access_log=None, keepalive_timeout=75.0, shutdown_timeout=0.5, max_line_size=4096, max_field_size=4096
    )
