"""The notice on the machine's screen."""

from __future__ import annotations

from netboot.agent.screen import WIDTH, Screen, card
from netboot.report import Answer, Do, Facts, Nic

FACTS = Facts(vendor="Dell Inc.", product="PowerEdge R640", serial="ABC123")
NIC = Nic("eth0", "52:54:00:00:77:01")


def test_the_waiting_room_shows_number_address_and_machine() -> None:
    text = "\n".join(card(Answer(Do.WAIT, number=12), FACTS, NIC, "10.77.0.101"))
    for part in (
        "WAITING ROOM, NUMBER 12",
        "10.77.0.101",
        NIC.mac,
        "PowerEdge R640 serial ABC123",
        "nothing is written",
    ):
        assert part in text


def test_a_node_shows_its_name_the_heads_word_and_its_trouble() -> None:
    rows = card(
        Answer(Do.WAIT, node="n17", message="n17 waits"), FACTS, NIC, "10.77.0.17", "no disk fits " + "very " * 40
    )
    text = "\n".join(rows)
    assert "NODE N17" in text and "n17 waits" in text and "FAILED: no disk fits" in text
    assert all(len(row) <= WIDTH for row in rows)
    assert "nothing is written" not in "\n".join(card(Answer(Do.WAIT, node="n17"), FACTS, NIC, "10.77.0.17", "broken"))


def test_hostile_words_do_not_move_the_cursor() -> None:
    rows = card(Answer(Do.WAIT, node="\x1b[2J", message="a\r\nb" + "x" * 9000), FACTS, NIC, "10.77.0.17")
    assert all(row.isprintable() and len(row) < 300 for row in rows)


def test_the_notice_is_printed_when_it_changes_and_lines_go_both_ways() -> None:
    out: list[str] = []
    head: list[str] = []
    screen = Screen(out.append)
    screen.say("early")
    screen.card(Answer(Do.WAIT, number=1), FACTS, NIC, "10.77.0.1")
    printed = len(out)
    screen.card(Answer(Do.WAIT, number=1), FACTS, NIC, "10.77.0.1")
    assert len(out) == printed
    screen.connect(head.append)
    screen.say("late")
    assert head == ["early", "late"] and out[-1] == "gild: late"
    screen.card(Answer(Do.WAIT, number=2), FACTS, NIC, "10.77.0.1")
    assert len(out) > printed + 1
