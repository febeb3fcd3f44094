"""The client of the unix socket against servers that are not what they should be."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from appliance.cli import client
from appliance.cli.client import Client
from appliance.errors import NotServing, Unknown
from images.errors import GildError


@contextmanager
def answering(path: Path, answer: bytes | None) -> Iterator[list[bytes]]:
    """A server that reads one request and says `answer`, or nothing at all and keeps the line open for None."""
    asked: list[bytes] = []
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
        listener.bind(str(path))
        listener.listen()

        def serve() -> None:
            connection, _ = listener.accept()
            with connection:
                asked.append(connection.recv(65536))
                if answer is None:
                    connection.recv(1)
                else:
                    connection.sendall(answer)

        thread = threading.Thread(target=serve)
        thread.start()
        yield asked
        thread.join(20)


def reply(status: str, body: bytes) -> bytes:
    return f"HTTP/1.1 {status}\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body


def test_parts_of_the_path_are_quoted(tmp_path: Path) -> None:
    with answering(tmp_path / "s", reply("200 OK", b"[1]")) as asked:
        assert Client(tmp_path / "s").get("nodes", "a/b?c é", after=3, wait=None) == [1]
    assert asked[0].startswith(b"GET /nodes/a%2Fb%3Fc%20%C3%A9?after=3 HTTP/1.1\r\n")


def test_an_error_comes_back_as_what_it_was(tmp_path: Path) -> None:
    body = b'{"error": "Unknown", "message": "no node x", "hint": "look"}'
    with answering(tmp_path / "s", reply("404 Not Found", body)), pytest.raises(Unknown) as caught:
        Client(tmp_path / "s").get("nodes", "x")
    assert (caught.value.message, caught.value.hint) == ("no node x", "look")


@pytest.mark.parametrize("kind", ["KeyboardInterrupt", "exit_code", "EXIT_CODES", "__name__", "", "Path"])
def test_no_other_name_becomes_an_exception(tmp_path: Path, kind: str) -> None:
    body = f'{{"error": "{kind}", "message": "m"}}'.encode()
    with answering(tmp_path / "s", reply("400 Bad Request", body)), pytest.raises(GildError) as caught:
        Client(tmp_path / "s").get("x")
    assert type(caught.value) is GildError and caught.value.message == "m"


@pytest.mark.parametrize(
    "answer",
    [b"", b"nonsense\r\n\r\n", reply("200 OK", b"no json"), reply("500 x", b"[]"), reply("500 x", b'"x"'),
     b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n{"],
)  # fmt: skip
def test_something_else_on_the_socket_is_told(tmp_path: Path, answer: bytes) -> None:
    with answering(tmp_path / "s", answer), pytest.raises(NotServing) as caught:
        Client(tmp_path / "s").get("status")
    assert str(tmp_path) in caught.value.message


def test_silence_ends(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client, "TIMEOUT", 0.05)
    with answering(tmp_path / "s", None), pytest.raises(NotServing):
        Client(tmp_path / "s").get("status")
