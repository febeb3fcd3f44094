"""Ranges, sendfile and readers that go away, on loopback."""

from __future__ import annotations

import asyncio
import os
import random
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
from aiohttp import web
from hypothesis import given
from hypothesis import strategies as st

from appliance.web import app, sending
from appliance.web.sending import RangeInvalid, read_range, send

BLOB = random.Random(3).randbytes(3 * sending.SLICE + 17)
OFFSET = 1000  # where the member begins in its file
Test = Callable[[int, list[str]], Awaitable[None]]


@pytest.mark.parametrize(
    ("header", "part"),
    [
        (None, None),
        ("bytes=0-", (0, 100)),
        ("bytes=0-0", (0, 1)),
        ("bytes=99-99", (99, 1)),
        ("bytes=10-19", (10, 10)),
        ("bytes=90-5000", (90, 10)),
        ("bytes=-10", None),
        ("bytes=0-9,20-29", None),
        ("chunks=0-9", None),
        ("bytes= 0-9", None),
        ("bytes=0x1-9", None),
        ("bytes=" + "9" * 40 + "-", None),
    ],
)
def test_one_range_is_understood_and_other_forms_are_ignored(header: str | None, part: tuple[int, int] | None) -> None:
    assert read_range(header, 100) == part


@pytest.mark.parametrize("header", ["bytes=100-", "bytes=100-200", "bytes=20-10"])
def test_a_range_behind_the_end_is_refused(header: str) -> None:
    with pytest.raises(RangeInvalid):
        read_range(header, 100)


@given(st.text(max_size=30) | st.from_regex(r"bytes=[0-9]{0,5}-[0-9]{0,5}", fullmatch=True), st.integers(0, 5000))
def test_what_a_range_names_is_always_inside(header: str, size: int) -> None:
    try:
        part = read_range(header, size)
    except RangeInvalid:
        return
    assert part is None or (part[0] >= 0 and part[1] > 0 and part[0] + part[1] <= size)


def serve(folder: Path, test: Test) -> None:
    """`test(port, ended)` against a server of one member at OFFSET of a file; `ended` tells how each answer ended."""
    path = folder / "archive"
    path.write_bytes(b"x" * OFFSET + BLOB + b"tail")
    fd = os.open(path, os.O_RDONLY)
    ended: list[str] = []

    async def handler(request: web.Request) -> web.StreamResponse:
        try:
            response = await send(request, fd, OFFSET, len(BLOB), headers={"X-Kind": "blob"})
        except ConnectionError as error:
            ended.append(str(error))
            raise
        ended.append("")
        return response

    async def main() -> None:
        runner = app.runner(app.application([web.get("/blob", handler)]))
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        try:
            await asyncio.wait_for(test(runner.addresses[0][1], ended), 20)
        finally:
            await runner.cleanup()

    try:
        asyncio.run(main())
    finally:
        os.close(fd)


async def ask(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, method: str = "GET", **headers: str
) -> tuple[int, dict[str, str], bytes]:
    """One request on a connection that stays open."""
    lines = "".join(f"{key}: {value}\r\n" for key, value in headers.items())
    writer.write(f"{method} /blob HTTP/1.1\r\nHost: head\r\n{lines}\r\n".encode())
    head = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
    fields = dict(line.lower().split(": ", 1) for line in head[1:] if line)
    length = 0 if method == "HEAD" else int(fields["content-length"])
    return int(head[0].split()[1]), fields, await reader.readexactly(length)


def test_whole_parts_and_heads_on_one_connection(tmp_path: Path) -> None:
    async def test(port: int, ended: list[str]) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        status, fields, body = await ask(reader, writer)
        assert (status, body, fields["accept-ranges"], fields["x-kind"]) == (200, BLOB, "bytes", "blob")
        status, fields, body = await ask(reader, writer, Range="bytes=7-1500000")
        assert (status, body) == (206, BLOB[7:1500001])
        assert fields["content-range"] == f"bytes 7-1500000/{len(BLOB)}"
        status, fields, body = await ask(reader, writer, Range=f"bytes={len(BLOB) - 5}-{len(BLOB) + 100}")
        assert (status, body) == (206, BLOB[-5:])
        status, fields, body = await ask(reader, writer, Range=f"bytes={len(BLOB)}-")
        assert (status, body, fields["content-range"]) == (416, b"", f"bytes */{len(BLOB)}")
        status, fields, body = await ask(reader, writer, Range="bytes=-5")
        assert (status, len(body)) == (200, len(BLOB))
        status, fields, body = await ask(reader, writer, "HEAD")
        assert (status, fields["content-length"], body) == (200, str(len(BLOB)), b"")
        status, fields, body = await ask(reader, writer, Range="bytes=0-0")
        assert (status, body) == (206, BLOB[:1])
        writer.close()
        assert not any(ended)

    serve(tmp_path, test)


def test_many_readers_share_one_descriptor(tmp_path: Path) -> None:
    async def test(port: int, ended: list[str]) -> None:
        async def one(number: int) -> bool:
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            first = number * 1111
            _, _, body = await ask(reader, writer, Range=f"bytes={first}-")
            writer.close()
            return body == BLOB[first:]

        assert all(await asyncio.gather(*(one(number) for number in range(20))))

    serve(tmp_path, test)


def test_a_reader_that_leaves_costs_nobody_else_anything(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async def test(port: int, ended: list[str]) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"GET /blob HTTP/1.1\r\nHost: head\r\n\r\n")
        await reader.readexactly(1000)
        writer.transport.abort()
        while not ended:
            await asyncio.sleep(0.01)
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        assert (await ask(reader, writer))[2] == BLOB
        writer.close()
        assert ended[0]

    serve(tmp_path, test)
    assert not caplog.records


def test_one_that_hangs_up_with_its_request_leaves_no_traceback(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async def test(port: int, ended: list[str]) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"GET /blob HTTP/1.1\r\nHost: head\r\n\r\n")
        writer.write_eof()
        assert len(await reader.read()) < len(BLOB)
        writer.close()
        while not ended:
            await asyncio.sleep(0.01)
        assert ended[0]

    serve(tmp_path, test)
    assert not caplog.records


def test_a_stalled_reader_is_cut_off(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sending, "PATIENCE", 0.05)

    async def test(port: int, ended: list[str]) -> None:
        # Twelve megabytes for one who does not read: more than the kernel's buffers on both sides take.
        _, writer = await asyncio.open_connection("127.0.0.1", port, limit=4096)
        writer.transport.pause_reading()  # type: ignore[attr-defined]
        for _ in range(4):
            writer.write(b"GET /blob HTTP/1.1\r\nHost: head\r\n\r\n")
        while not any(ended):
            await asyncio.sleep(0.01)
        assert ended[-1] == "the reader stalled"
        writer.transport.abort()

    serve(tmp_path, test)


def test_a_file_cut_short_ends_the_connection_instead_of_misleading_the_reader(tmp_path: Path) -> None:
    async def test(port: int, ended: list[str]) -> None:
        os.truncate(tmp_path / "archive", OFFSET + 2000)
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"GET /blob HTTP/1.1\r\nHost: head\r\n\r\n" * 2)
        with pytest.raises((asyncio.IncompleteReadError, ConnectionResetError)):
            await reader.readexactly(len(BLOB))
        writer.close()
        assert ended == ["the file has become shorter"]

    serve(tmp_path, test)
