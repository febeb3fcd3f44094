"""The link to the head: the pinned certificate and no other, and heads that come back another day."""

from __future__ import annotations

import ssl
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from netboot.agent.link import HeadAway, HeadRefused, Link
from netboot.plan import InstallPlan
from netboot.report import HELLO, NEXT, PLAN, Answer, Do, Facts, Report
from tests.netboot.agent.smallhead import SmallHead, certificate, public
from tests.netboot.test_plan import PLAN as A_PLAN

MAC = "52:54:00:00:77:01"
TOKEN = "5ec7e7" * 6


class Stop(Exception):
    """Ends a link that would try for ever."""


def no_waiting(seconds: float) -> None:
    raise Stop


@pytest.fixture(scope="module")
def pem(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return certificate(tmp_path_factory.mktemp("head"))


@pytest.fixture
def head(pem: Path) -> Iterator[SmallHead]:
    with SmallHead(pem) as head:
        yield head


def link_to(head: SmallHead, **more: object) -> Link:
    return Link("127.0.0.1", head.port, public(head.pem), **{"sleep": no_waiting, **more})  # type: ignore[arg-type]


def test_hello_goes_to_the_pinned_head_and_keeps_its_session(head: SmallHead) -> None:
    link = link_to(head)
    answer = link.hello(MAC, Facts(vendor="Acme"), TOKEN, "1")
    assert (answer.do, answer.number, link.session) == (Do.WAIT, 12, "session1")
    assert (head.hellos[0].mac, head.hellos[0].facts.vendor, head.hellos[0].token) == (MAC, "Acme", TOKEN)
    assert link.next(0).do is Do.WAIT
    assert head.nexts[0].session == "session1"


def test_another_certificate_is_refused_and_nothing_is_sent(head: SmallHead, tmp_path: Path) -> None:
    said: list[str] = []
    link = Link("127.0.0.1", head.port, public(certificate(tmp_path, "other")), log=said.append, sleep=no_waiting)
    with pytest.raises(Stop):
        link.hello(MAC, Facts(), TOKEN)
    assert head.hellos == []
    assert "another certificate" in said[0] and TOKEN not in said[0]


def test_a_certificate_that_the_pinned_one_signed_is_not_the_pinned_one(head: SmallHead) -> None:
    link = link_to(head)
    link.pin = b"something else"  # the chain would do, the certificate is not the same
    with pytest.raises(HeadAway, match="another certificate"):
        link.report(Report(""))


def test_what_is_no_certificate_is_said_at_once() -> None:
    for text in ("", "hello", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"):
        with pytest.raises(HeadAway, match="cannot be read"):
            Link("127.0.0.1", 1, text)


def test_a_head_that_is_restarted_is_found_again_and_told_who_we_are(head: SmallHead) -> None:
    waits: list[float] = []
    back = threading.Event()

    def sleep(seconds: float) -> None:
        waits.append(seconds)
        if len(waits) == 4:
            head.forget()
            head.start()
            back.set()

    said: list[str] = []
    link = link_to(head, sleep=sleep, log=said.append)
    link.hello(MAC, Facts(vendor="Acme"), TOKEN)
    head.close()
    assert link.next(0).do is Do.WAIT
    assert back.is_set()
    assert waits == [0.5, 1.0, 2.0, 4.0]
    assert len(said) == 1  # one line a minute, not one a try
    assert [hello.token for hello in head.hellos] == [TOKEN, ""]
    assert head.hellos[1].facts.vendor == "Acme"
    assert link.session == "session2"


def test_pauses_are_bounded(head: SmallHead) -> None:
    waits: list[float] = []

    def sleep(seconds: float) -> None:
        waits.append(seconds)
        if len(waits) == 9:
            raise Stop

    link = link_to(head, sleep=sleep)
    head.close()
    with pytest.raises(Stop):
        link.hello(MAC, Facts())
    assert max(waits) == waits[-1] == 10.0


def test_a_plan_once_and_a_refusal(head: SmallHead) -> None:
    link = link_to(head)
    link.hello(MAC, Facts(), TOKEN)
    with pytest.raises(HeadRefused, match=r"no open order .make one") as refused:
        link.plan(TOKEN)
    assert refused.value.status == 403
    assert TOKEN not in str(refused.value)
    head.plan = A_PLAN
    assert link.plan(TOKEN) == A_PLAN
    assert [(ask.session, ask.token) for ask in head.asks] == [("session1", TOKEN)] * 2


def test_a_plan_whose_answer_is_lost_is_asked_for_again(head: SmallHead) -> None:
    head.plan = A_PLAN
    tries: list[str] = []

    def bend(path: str, message: object) -> tuple[int, bytes] | None:
        if path == PLAN:
            tries.append(path)
            if len(tries) < 3:
                raise ConnectionError
        return None

    head.bend = bend
    link = link_to(head, sleep=lambda seconds: None)
    link.hello(MAC, Facts())
    assert isinstance(link.plan(TOKEN), InstallPlan)
    assert len(tries) == 3


@pytest.mark.parametrize(
    "body", [b"", b"{}", b"[]", b'{"do":"dance"}', b"\xff\xfe", b'{"do":"wait","wait":"x"}'], ids=repr
)
def test_answers_that_cannot_be_read_are_refusals(head: SmallHead, body: bytes) -> None:
    head.bend = lambda path, message: (200, body) if path == HELLO else None
    with pytest.raises(HeadRefused, match="different versions"):
        link_to(head).hello(MAC, Facts())


def test_an_endless_answer_is_cut_off(head: SmallHead) -> None:
    head.bend = lambda path, message: (200, b" " * (5 << 20))
    with pytest.raises(Stop):
        link_to(head).hello(MAC, Facts())


def test_errors_of_the_head_itself_are_tried_again(head: SmallHead) -> None:
    link = link_to(head, sleep=lambda seconds: None)
    link.hello(MAC, Facts())
    sick = [500, 503, 502]
    head.bend = lambda path, message: (sick.pop(), b"<html>") if path == NEXT and sick else None
    head.answers = [Answer(Do.LOCAL)]
    assert link.next(0).do is Do.LOCAL
    assert not sick


def test_a_report_after_a_restart_says_hello_first(head: SmallHead) -> None:
    link = link_to(head)
    link.hello(MAC, Facts(), TOKEN)
    head.forget()
    link.report(Report("", lines=("one",)))
    assert head.reports[0].session == "session2" == link.session
    assert head.hellos[1].token == ""


def test_only_modern_tls_is_spoken(head: SmallHead) -> None:
    assert link_to(head).context.minimum_version >= ssl.TLSVersion.TLSv1_2
