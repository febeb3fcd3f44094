"""Small immutable files from the head or its stand-ins: manifest, runs, boot pieces. Believed by their sha256 alone."""

from __future__ import annotations

import hashlib
import http.client
import time
from collections.abc import Callable, Sequence
from urllib.parse import urlsplit

from images.errors import GildError

TIMEOUT = 20.0  # seconds for one read
PATIENCE = 300.0  # seconds for all sources together: a head that is restarted is back long before
LAST_PAUSE = 10.0


class DownloadFailed(GildError):
    """No source has the file, or what they have is not it."""


def fetch(
    sources: Sequence[str],
    path: str,
    sha256: str,
    limit: int,
    *,
    patience: float = PATIENCE,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> bytes:
    """The file `path` of any of the base URLs, at most `limit` bytes, its sha256 checked. A source that is away is
    asked again for `patience` seconds; one that has not got the file, or has another one, is not. Raises
    DownloadFailed with every source's last word."""
    left = dict.fromkeys(sources, "not asked")
    deadline, pause = clock() + patience, 0.5
    asking = list(left)
    while asking:
        for source in list(asking):
            try:
                data = _get(source, path, limit)
            except DownloadFailed as error:
                left[source] = error.message
                asking.remove(source)
                continue
            except (OSError, http.client.HTTPException) as error:
                left[source] = str(getattr(error, "strerror", None) or error or type(error).__name__)
                continue
            if hashlib.sha256(data).hexdigest() == sha256:
                return data
            left[source] = "its content has another sha256"
            asking.remove(source)
        if not asking or clock() >= deadline:
            break
        sleep(pause)
        pause = min(pause * 2, LAST_PAUSE)
    told = "; ".join(f"{source}: {reason}" for source, reason in left.items())
    raise DownloadFailed(f"{path} cannot be had: {told or 'the plan names no source'}", "is the head's store complete?")


def _get(source: str, path: str, limit: int) -> bytes:
    try:
        url = urlsplit(source)
        port = url.port or 80
    except ValueError as error:
        raise DownloadFailed(f"not a usable address: {error}") from None
    if url.scheme != "http" or not url.hostname:
        raise DownloadFailed("not an http:// address")
    connection = http.client.HTTPConnection(url.hostname, port, timeout=TIMEOUT)
    try:
        connection.request("GET", url.path.rstrip("/") + path)
        response = connection.getresponse()
        if response.status >= 500:
            raise OSError(0, f"status {response.status}")
        if response.status != 200:
            raise DownloadFailed(f"status {response.status}")
        data = response.read(limit + 1)
        if len(data) > limit:
            raise DownloadFailed(f"more than {limit} bytes")
        return data
    finally:
        connection.close()
