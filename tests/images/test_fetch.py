"""Fetching ranges over HTTP from servers of every temper, and from a folder."""

from __future__ import annotations

import queue
import random
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from images import fetch
from images.errors import ChunkMissing
from images.fetch import Fetcher, FileSource, HttpSource
from images.workers import Cancelled
from tests.images.pack_server import Answer, PackServer, reset, said

PACK = "ab" * 32
BYTES = random.Random(7).randbytes(3_000_000)


class Clock:
    """Time that passes only in pauses."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.pauses: list[float] = []
        self.on_pause: Callable[[], None] = lambda: None

    def monotonic(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.pauses.append(seconds)
        self.now += seconds
        self.on_pause()


@pytest.fixture(autouse=True)
def closed(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Every connection is given back at the end of its test."""
    made: list[Fetcher] = []
    real = HttpSource.open

    def opening(self: HttpSource, *args: Callable[[], bool]) -> Fetcher:
        made.append(real(self, *args))
        return made[-1]

    monkeypatch.setattr(HttpSource, "open", opening)
    yield
    for fetcher in made:
        fetcher.close()


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    monkeypatch.setattr(fetch, "time", made)
    return made


@pytest.fixture
def server() -> Iterator[PackServer]:
    with PackServer({PACK: BYTES}) as running:
        yield running


def test_a_range_comes_as_it_is(server: PackServer) -> None:
    fetcher = HttpSource([server.base]).open()
    for offset, length in ((0, 1), (5, 70_000), (0, len(BYTES)), (len(BYTES) - 1, 1)):
        assert fetcher.fetch(PACK, offset, length) == BYTES[offset : offset + length]
    fetcher.close()
    assert [(first, last) for _, _, first, last in server.asked] == [
        (0, 0),
        (5, 70_004),
        (0, len(BYTES) - 1),
        (len(BYTES) - 1, len(BYTES) - 1),
    ]
    assert server.connections() == 1, "one connection is kept for all"


def test_a_base_may_be_a_folder_of_a_cache(server: PackServer) -> None:
    assert HttpSource([server.base + "/cache/"]).open().fetch(PACK, 3, 4) == BYTES[3:7]
    assert server.heads[0].startswith(f"GET /cache/packs/{PACK}.pack HTTP/1.1\r\n")


def test_every_worker_has_its_own_connection(server: PackServer) -> None:
    source = HttpSource([server.base])
    one, two = source.open(), source.open()
    first = one.fetch(PACK, 0, 9)
    assert two.fetch(PACK, 9, 9) == BYTES[9:18]
    assert first == BYTES[:9], "what one holds the other does not overwrite"
    assert server.connections() == 2


def split_head(server: PackServer) -> Answer:
    def answer(connection: socket.socket, pack: str, first: int, last: int) -> bool:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        whole = server.head(pack, first, last) + server.packs[pack][first : last + 1]
        for at in range(0, 300, 7):
            connection.sendall(whole[at : at + 7])
            time.sleep(0.001)
        connection.sendall(whole[301:])
        return True

    return answer


def test_a_head_may_come_in_pieces(server: PackServer) -> None:
    server.script.append(split_head(server))
    fetcher = HttpSource([server.base]).open()
    assert fetcher.fetch(PACK, 10, 100_000) == BYTES[10:100_010]
    assert len(server.asked) == 1


def lower_case(connection: socket.socket, pack: str, first: int, last: int) -> bool:
    head = f"HTTP/1.1 206 OK\r\nCONTENT-LENGTH:{last - first + 1}  \r\ncontent-range:bytes {first}-{last}/*\r\n\r\n"
    connection.sendall(head.encode() + BYTES[first : last + 1])
    return True


def test_headers_are_read_as_rfc_9112_writes_them(server: PackServer) -> None:
    server.script.append(lower_case)
    assert HttpSource([server.base]).open().fetch(PACK, 7, 50) == BYTES[7:57]
    assert len(server.asked) == 1


def cut(server: PackServer, sent: int, ending: Callable[[socket.socket], bool]) -> Answer:
    def answer(connection: socket.socket, pack: str, first: int, last: int) -> bool:
        connection.sendall(server.head(pack, first, last) + server.packs[pack][first : first + sent])
        return ending(connection)

    return answer


def headed(server: PackServer, **headers: str) -> Answer:
    def answer(connection: socket.socket, pack: str, first: int, last: int) -> bool:
        connection.sendall(server.head(pack, first, last, **headers) + server.packs[pack][first : last + 1])
        return True

    return answer


def too_much(server: PackServer) -> Answer:
    def answer(connection: socket.socket, pack: str, first: int, last: int) -> bool:
        connection.sendall(server.head(pack, first, first + 9) + bytes(2000))
        return False

    return answer


BAD: dict[str, Callable[[PackServer], Answer]] = {
    "whole file": lambda server: said(f"HTTP/1.1 200 OK\nContent-Length: {len(BYTES)}\n\nxxxx"),
    "short body": lambda server: cut(server, 500, lambda connection: False),
    "no body": lambda server: cut(server, 0, lambda connection: False),
    "reset in mid-body": lambda server: cut(server, 5000, reset),
    "reset at once": lambda server: lambda connection, pack, first, last: reset(connection),
    "closed at once": lambda server: lambda connection, pack, first, last: False,
    "too short by its head": lambda server: headed(server, Content_Length="5"),
    "no length": lambda server: headed(server, Content_Length=""),
    "chunked": lambda server: headed(server, Content_Length="", Transfer_Encoding="chunked"),
    "another range": lambda server: headed(server, Content_Range="bytes 0-99999/3000000"),
    "no range": lambda server: headed(server, Content_Range=""),
    "longer than said": too_much,
    "not HTTP": lambda server: said("220 mail.example.com ESMTP\n\n"),
    "endless head": lambda server: said("HTTP/1.1 206 Partial Content\n" + "X: y\n" * 10_000),
    "half a head": lambda server: said("HTTP/1.1 206 Partial Content\nContent-Le"),
    "busy": lambda server: said("HTTP/1.1 503 Busy\nContent-Length: 0\n\n"),
}


@pytest.mark.parametrize("temper", BAD)
def test_a_bad_answer_is_asked_again(server: PackServer, clock: Clock, temper: str) -> None:
    server.script.extend([BAD[temper](server), BAD[temper](server)])
    fetcher = HttpSource([server.base]).open()
    assert fetcher.fetch(PACK, 100, 100_000) == BYTES[100:100_100]
    assert fetcher.fetch(PACK, 0, 10) == BYTES[:10]
    assert len(server.asked) == 4 and clock.pauses, "with a pause, so as not to hammer a head in trouble"


@pytest.mark.parametrize("temper", BAD)
def test_a_source_that_stays_bad_is_given_up(server: PackServer, clock: Clock, temper: str) -> None:
    server.script.extend([BAD[temper](server)] * 100)
    with pytest.raises(
        ChunkMissing, match=f"bytes 100\\+10000 of pack {PACK} cannot be had: {server.base}: "
    ) as caught:
        HttpSource([server.base]).open().fetch(PACK, 100, 10_000)
    assert 3 <= len(server.asked) <= 30 and clock.now - 1000 <= fetch.PATIENCE
    assert caught.value.message.isprintable() and len(caught.value.message) < 400


@pytest.mark.parametrize("status", ["404 Not Found", "403 Forbidden", "416 Range Not Satisfiable"])
def test_what_a_source_does_not_have_is_not_asked_for_again(server: PackServer, clock: Clock, status: str) -> None:
    server.script.extend([said(f"HTTP/1.1 {status}\nContent-Length: 0\n\n")] * 9)
    with pytest.raises(ChunkMissing, match=status[:3]):
        HttpSource([server.base]).open().fetch(PACK, 0, 10)
    assert (len(server.asked), clock.pauses) == (1, [])


def test_a_head_without_end_is_not_listened_to(server: PackServer, clock: Clock) -> None:
    sent: list[int] = []

    def endless(connection: socket.socket, pack: str, first: int, last: int) -> bool:
        connection.sendall(b"HTTP/1.1 206 Partial Content\r\n")
        for _ in range(64):
            connection.sendall(b"X-More: y\r\n" * 100_000)
            sent.append(1_100_000)
        return False

    server.script.append(endless)
    assert HttpSource([server.base]).open().fetch(PACK, 0, 9) == BYTES[:9]
    assert sum(sent) < 20_000_000, "what the socket's buffers take, and no more"


def test_a_source_that_closes_politely_is_not_blamed(server: PackServer, clock: Clock) -> None:
    """Stock web servers end a kept connection after so many requests, and say so."""

    after: queue.Queue[bytes] = queue.Queue()  # the server's threads are not waited for by anything else

    def last_one(connection: socket.socket, pack: str, first: int, last: int) -> bool:
        headed(server, Connection="Close")(connection, pack, first, last)
        after.put(connection.recv(1))
        return False

    server.script.extend([last_one] * 3)
    source = HttpSource([server.base])
    fetcher = source.open()
    for offset in range(4):
        assert fetcher.fetch(PACK, offset, 10) == BYTES[offset : offset + 10]
    assert (server.connections(), clock.pauses, source.banned) == (4, [], {})
    assert [after.get(timeout=10) for _ in range(3)] == [b""] * 3, "nothing more is asked of it on that connection"


def test_a_connection_that_idled_away_is_made_anew_without_blame(server: PackServer, clock: Clock) -> None:
    """They also end one that was quiet for a while, and cannot say so."""

    def then_leave(connection: socket.socket, pack: str, first: int, last: int) -> bool:
        server.fine(connection, pack, first, last)
        return False

    server.script.append(then_leave)
    source = HttpSource([server.base])
    fetcher = source.open()
    for offset in range(2):
        assert fetcher.fetch(PACK, offset, 10) == BYTES[offset : offset + 10]
    assert (server.connections(), clock.pauses, source.banned) == (2, [], {})


def test_a_server_that_is_gone_and_back_is_waited_for(clock: Clock) -> None:
    with PackServer({PACK: BYTES}) as first:
        port = first.port
        fetcher = HttpSource([first.base]).open()
        assert fetcher.fetch(PACK, 0, 10) == BYTES[:10]
    back: list[PackServer] = []

    def boot() -> None:
        if clock.now > 1000 + 120 and not back:  # a head node's restart takes minutes
            back.append(PackServer({PACK: BYTES}, port).__enter__())

    clock.on_pause = boot
    try:
        assert fetcher.fetch(PACK, 20, 10) == BYTES[20:30]
        assert max(clock.pauses) <= 30
    finally:
        for server in back:
            server.__exit__(None, None, None)


def test_a_server_that_stays_gone_is_given_up(clock: Clock) -> None:
    with PackServer({}) as gone:
        base = gone.base
    with pytest.raises(ChunkMissing, match="Connection refused") as caught:
        HttpSource([base]).open().fetch(PACK, 0, 10)
    assert fetch.PATIENCE / 2 < clock.now - 1000 <= fetch.PATIENCE
    assert caught.value.hint == "is the head reachable?"


def test_waiting_ends_when_it_is_in_vain(clock: Clock) -> None:
    with PackServer({}) as gone:
        base = gone.base
    with pytest.raises(Cancelled):
        HttpSource([base]).open(lambda: clock.now > 1001).fetch(PACK, 0, 10)
    assert clock.now < 1003


def test_silence_is_found_out(server: PackServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fetch, "TIMEOUT", 0.05)
    monkeypatch.setattr(fetch, "BANNED", 0.0)

    def silent(connection: socket.socket, pack: str, first: int, last: int) -> bool:
        connection.sendall(server.head(pack, first, last) + b"only this")
        return bool(connection.recv(1))  # until the other side gives up

    server.script.append(silent)
    assert HttpSource([server.base]).open().fetch(PACK, 0, 5000) == BYTES[:5000]
    assert len(server.asked) >= 2, "asked again"


def test_a_source_that_sends_drop_by_drop_is_given_up(
    server: PackServer, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = fetch._receive

    def receive(sock: socket.socket, into: memoryview, flags: int) -> int:
        clock.now += 10
        return real(sock, into[:500], flags)

    monkeypatch.setattr(fetch, "_receive", receive)
    with pytest.raises(ChunkMissing, match=r"only \d+ of 100000 bytes in 23 s"):
        HttpSource([server.base]).open().fetch(PACK, 0, 100_000)


def test_another_source_is_asked_at_once(server: PackServer, clock: Clock) -> None:
    with PackServer({PACK: BYTES}) as other:
        server.script.extend([BAD["short body"](server)] * 5)
        source = HttpSource([server.base, other.base])
        fetcher = source.open()
        assert fetcher.fetch(PACK, 5, 1000) == BYTES[5:1005]
        assert (len(server.asked), len(other.asked), clock.pauses) == (1, 1, [])
        assert source.banned == {server.base: 1000 + fetch.BANNED}
        assert source.open().fetch(PACK, 0, 9) == BYTES[:9], "and the next worker knows"
        assert (len(server.asked), len(other.asked)) == (1, 2)
        clock.now += fetch.BANNED + 1
        server.script.clear()
        assert source.open().fetch(PACK, 0, 9) == BYTES[:9], "the ban ends"
        assert (len(server.asked), len(other.asked)) == (2, 2)


def test_a_dead_source_is_passed_over(server: PackServer, clock: Clock) -> None:
    with PackServer({}) as gone:
        base = gone.base
    assert HttpSource([base, server.base]).open().fetch(PACK, 0, 9) == BYTES[:9]
    assert clock.pauses == []


def test_a_distrusted_source_is_left_for_another(server: PackServer, clock: Clock) -> None:
    with PackServer({PACK: BYTES}) as other:
        fetcher = HttpSource([server.base, other.base]).open()
        for _ in range(2):
            assert fetcher.fetch(PACK, 0, 9) == BYTES[:9]
            fetcher.distrust()
        assert (len(server.asked), len(other.asked)) == (1, 1)


@pytest.mark.parametrize(
    "bases", [[], ["ftp://x/"], ["10.0.0.1"], ["http://"], ["http://[::1"], ["http://x:99999"], [""]]
)
def test_a_source_that_cannot_be_asked_is_said_at_once(bases: list[str]) -> None:
    with pytest.raises(ChunkMissing, match=r"no source|is not a source"):
        HttpSource(bases)


def test_a_folder_is_a_source_too(tmp_path: Path) -> None:
    (tmp_path / f"{PACK}.pack").write_bytes(BYTES)
    fetcher = FileSource(str(tmp_path)).open()
    assert fetcher.fetch(PACK, 11, 200_000) == BYTES[11:200_011]
    assert fetcher.fetch(PACK, 0, 3) == BYTES[:3]
    with pytest.raises(ChunkMissing, match=f"pack {PACK} ends before byte {len(BYTES) + 1}"):
        fetcher.fetch(PACK, len(BYTES) - 9, 10)
    with pytest.raises(ChunkMissing, match="pack cdcd cannot be read: No such file"):
        fetcher.fetch("cdcd", 0, 1)
    fetcher.close()
    assert fetcher.fetch(PACK, 0, 3) == BYTES[:3], "opened again when asked again"
    fetcher.close()
