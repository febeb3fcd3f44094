"""Every change that an operator asks for goes into the audit log, with whoever asked and what came of it."""

from __future__ import annotations

import json
import pwd
import socket
import struct

from aiohttp import web

from appliance.audit import Audit, asking, told
from appliance.web.app import Handler, Middleware

_SO_PEERCRED = struct.Struct("=iII")  # pid, uid, gid: unix(7)


def audited(audit: Audit) -> Middleware:
    """The middleware, around the handlers and inside of the one that answers errors."""

    @web.middleware
    async def middleware(request: web.Request, handler: Handler) -> web.StreamResponse:
        if request.method != "POST":
            return await handler(request)
        who = _who(request)
        token = asking.set(who)
        outcome = "refused"
        try:
            response = await handler(request)
            outcome = "done" if response.status < 400 else f"refused ({response.status})"
            return response
        except Exception as error:
            outcome = f"refused: {getattr(error, 'message', '') or type(error).__name__}"
            raise
        finally:
            asking.reset(token)
            body = await _body(request)
            if not _only_looks(request.path, body):
                audit.note(who, request.path.strip("/"), f"{outcome} {told(body)}".strip())

    return middleware


def _only_looks(path: str, body: dict[str, object]) -> bool:
    """A preview changes nothing: the first of the two steps of whatever erases."""
    shown = path.startswith("/jobs") and not path.endswith("/stop") and not body.get("expect")
    return shown or bool(body.get("preview"))


async def _body(request: web.Request) -> dict[str, object]:
    """The body that is there already; one that is read piece by piece is no JSON."""
    if getattr(request.match_info.handler, "streams", False):
        return {}
    try:
        body = json.loads(await request.read() or b"{}")
    except (ValueError, RecursionError):
        return {}
    return body if isinstance(body, dict) else {}


def _who(request: web.Request) -> str:
    """The user at the other end of the unix socket, as the kernel knows it: "root (0)"."""
    sock = request.transport.get_extra_info("socket") if request.transport is not None else None
    if sock is None or sock.family != socket.AF_UNIX:
        return "somebody"
    _, uid, _ = _SO_PEERCRED.unpack(sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _SO_PEERCRED.size))
    try:
        return f"{pwd.getpwuid(uid).pw_name} ({uid})"
    except KeyError:
        return f"({uid})"
