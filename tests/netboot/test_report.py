"""Reports: what the words on the wire are called, for agents and heads of other days."""

from __future__ import annotations

import json

from netboot.report import HELLO, HOME, NEXT, PLAN, PROOF_HEADER, REPORT, Ack, Answer, Do, Facts, Hello, Phase, Report
from netboot.wire import WIRE, decode, encode


def test_addresses_and_words_are_part_of_the_protocol() -> None:
    assert (HELLO, NEXT, PLAN, REPORT) == ("/node/hello", "/node/next", "/node/plan", "/node/report")
    assert (HOME, PROOF_HEADER) == ("/up/", "Gild-Proof")
    assert [str(do) for do in Do] == ["wait", "install", "capture", "local", "reboot", "poweroff"]
    install = ["planning", "partitioning", "writing", "growing", "fitting", "booting"]
    assert [str(phase) for phase in Phase] == [*install, "reading"]


def test_an_empty_report_and_an_empty_ack_are_valid() -> None:
    assert decode(Report, b'{"session":"s"}') == Report("s")
    assert decode(Ack, b"{}") == Ack()
    assert json.loads(encode(Report("s")))["phase"] is None


def test_a_hello_says_its_wire_version_and_no_secret_but_the_token() -> None:
    body = json.loads(encode(Hello("52:54:00:00:77:01", Facts())))
    assert body["wire"] == WIRE and body["token"] == ""
    assert "session" not in body and "session" in json.loads(encode(Answer(Do.WAIT)))
