"""Small files by their sha256, from sources that are away, wrong or endless."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from netboot.agent.download import DownloadFailed, fetch
from tests.netboot.agent.smallhead import SmallHead, certificate

GOOD = b"manifest " * 1000
NAME = hashlib.sha256(GOOD).hexdigest()


@pytest.fixture
def head(tmp_path: Path) -> Iterator[SmallHead]:
    with SmallHead(certificate(tmp_path), lambda path: {"/good": GOOD, "/sub/good": GOOD}.get(path)) as head:
        yield head


def quick(head: SmallHead, sources: list[str], path: str = "/good", limit: int = 10_000) -> bytes:
    times = iter(range(1000))
    return fetch(
        [source.format(port=head.http_port) for source in sources], path, NAME, limit,
        patience=5, clock=lambda: next(times), sleep=lambda seconds: None,
    )  # fmt: skip


def test_a_good_file_from_a_base_with_a_path(head: SmallHead) -> None:
    assert quick(head, ["http://127.0.0.1:{port}"]) == GOOD
    assert quick(head, ["http://127.0.0.1:{port}/sub/"]) == GOOD


def test_the_next_source_is_asked(head: SmallHead) -> None:
    assert quick(head, ["http://127.0.0.1:1", "http://127.0.0.1:{port}/none", "http://127.0.0.1:{port}"]) == GOOD


@pytest.mark.parametrize(
    ("sources", "path", "limit", "told"),
    [
        (["http://127.0.0.1:{port}"], "/gone", 10_000, "status 404"),
        (["http://127.0.0.1:{port}"], "/good", 100, "more than 100 bytes"),
        (["http://127.0.0.1:1"], "/good", 10_000, "Connection refused"),
        (["ftp://127.0.0.1/"], "/good", 10_000, "not an http"),
        (["http://127.0.0.1:99999/"], "/good", 10_000, "not a usable address"),
        ([], "/good", 10_000, "names no source"),
    ],
)
def test_failures_name_every_source(head: SmallHead, sources: list[str], path: str, limit: int, told: str) -> None:
    with pytest.raises(DownloadFailed, match=told):
        quick(head, sources, path, limit)


def test_other_bytes_are_not_believed(head: SmallHead) -> None:
    head.files = lambda path: GOOD + b"!"
    with pytest.raises(DownloadFailed, match="another sha256"):
        quick(head, ["http://127.0.0.1:{port}"])


def test_a_source_that_comes_back_is_waited_for(head: SmallHead) -> None:
    head.close()
    pauses: list[float] = []

    def sleep(seconds: float) -> None:
        pauses.append(seconds)
        if len(pauses) == 3:
            head.start()

    assert fetch([f"http://127.0.0.1:{head.http_port}"], "/good", NAME, 10_000, sleep=sleep) == GOOD
    assert pauses == [0.5, 1.0, 2.0]
