"""The serving process, as the command line sees it: JSON over HTTP on a unix socket that only root can open."""

from __future__ import annotations

import http.client
import json
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any
from urllib.parse import quote, urlencode

from appliance import errors
from images import errors as image_errors
from images.errors import GildError

TIMEOUT = 60.0  # seconds; longer than the longest poll the head grants
STREAM_TIMEOUT = 600.0  # seconds without a byte of a stream; the head itself gives up earlier


class _UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: Path) -> None:
        super().__init__("localhost", timeout=TIMEOUT)
        self.path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(TIMEOUT)
        self.sock.connect(str(self.path))


class Client:
    """Asks the head. Raises what the head raised: the same class, message and hint, so exit codes agree."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def get(self, *parts: str, **query: Any) -> Any:
        """GET /part/part?query as JSON."""
        text = urlencode({key: value for key, value in query.items() if value is not None}, doseq=True)
        return self._ask("GET", _path(parts) + (f"?{text}" if text else ""), None)

    def post(self, *parts: str, **body: Any) -> Any:
        """POST a JSON object to /part/part."""
        return self._ask("POST", _path(parts), {key: value for key, value in body.items() if value is not None})

    @contextmanager
    def stream(self, *parts: str) -> Iterator[IO[bytes]]:
        """GET /part/part as a stream of bytes, as they come. Raises what the head raised; reading from it raises
        OSError or http.client.HTTPException if the head breaks it off."""
        connection = _UnixConnection(self.path)
        try:
            try:
                connection.request("GET", _path(parts))
                connection.sock.settimeout(STREAM_TIMEOUT)
                response = connection.getresponse()
                answer = json.loads(response.read()) if response.status >= 400 else {}
            except (OSError, http.client.HTTPException, ValueError) as error:
                raise errors.NotServing(f"the gild process at {self.path.parent} does not answer: {error}") from None
            if response.status >= 400:
                raise _error(answer)
            yield response
        finally:
            connection.close()

    def _ask(self, method: str, path: str, body: Any) -> Any:
        connection = _UnixConnection(self.path)
        try:
            data = None if body is None else json.dumps(body).encode()
            connection.request(method, path, data, {"Content-Type": "application/json"})
            response = connection.getresponse()
            answer = json.loads(response.read())
        except PermissionError:
            raise errors.Environment(f"{self.path} may be opened by root alone", "run this as root") from None
        except (FileNotFoundError, NotADirectoryError, ConnectionRefusedError):
            raise errors.NotServing(
                f"no gild process serves {self.path.parent}",
                "start one: gild.pyz serve --interface NAME (or the service), or give the --state it has",
            ) from None
        except (OSError, http.client.HTTPException, ValueError) as error:
            raise errors.NotServing(f"the gild process at {self.path.parent} does not answer: {error}") from None
        finally:
            connection.close()
        if response.status >= 400 and not isinstance(answer, dict):
            raise errors.NotServing(f"what answers at {self.path} is not gild")
        if response.status >= 400:
            raise _error(answer)
        return answer


def _path(parts: tuple[str, ...]) -> str:
    return "/" + "/".join(quote(part, safe="") for part in parts)


def _error(answer: dict[str, Any]) -> GildError:
    kind = str(answer.get("error", ""))
    cls = getattr(errors, kind, None) or getattr(image_errors, kind, None)
    known = cls if isinstance(cls, type) and issubclass(cls, GildError) else GildError
    return known(str(answer.get("message", "the head refused")), str(answer.get("hint", "")))
