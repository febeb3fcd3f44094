from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from netboot.identity import Sighting, identify, real_mac, real_serial, real_uuid
from netboot.node import Node, State
from netboot.report import Facts

A, B, C = "52:54:00:00:00:0a", "52:54:00:00:00:0b", "52:54:00:00:00:0c"
U, V = "4c4c4544-0042-3510-8051-b2c04f4d5231", "4c4c4544-0042-3510-8051-b2c04f4d5232"


@pytest.mark.parametrize(
    "text",
    [
        "", "None", "Default string", "To be filled by O.E.M.", "TO BE FILLED BY O.E.M.", "0123456789", "00000000",
        "xxxxxxxx", "System Serial Number", "Not Specified", "   ", "........", "FFFFFFFF", "\x00\x01", "N/A",
    ],
)  # fmt: skip
def test_placeholder_serials(text: str) -> None:
    assert real_serial(text) == ""


@pytest.mark.parametrize(
    "text",
    [
        "", "00000000-0000-0000-0000-000000000000", "ffffffff-ffff-ffff-ffff-ffffffffffff", "not a uuid",
        "03000200-0400-0500-0006-000700080009", "FFFFFFFF-FFFF-FFFF-FFFF-FFFFFFFFFFFF", U + "0",
    ],
)  # fmt: skip
def test_placeholder_uuids(text: str) -> None:
    assert real_uuid(text) == ""


def test_real_ones() -> None:
    assert real_uuid(U.upper()) == U
    assert real_serial(" 1B5Q2M2 ") == "1B5Q2M2"
    assert real_mac("52-54-00-00-00-0A") == A


@pytest.mark.parametrize("text", ["", "00:00:00:00:00:00", "ff:ff:ff:ff:ff:ff", "01:00:5e:00:00:01", "52:54", "x" * 17])
def test_what_is_no_card(text: str) -> None:
    assert real_mac(text) == ""


@given(st.text())
def test_cleaning_never_raises(text: str) -> None:
    assert real_mac(text) in ("", text.strip().lower().replace("-", ":"))
    assert len(real_serial(text)) <= 64
    real_uuid(text)


def known(
    number: int, *macs: str, uuid: str = "", serial: str = "", facts: bool = False, approved: bool = False
) -> Node:
    state = State.READY if approved else State.WAITING
    return Node(number, state, macs=macs, uuid=uuid, serial=serial, facts=Facts() if facts else None)


CASES = [
    # what is seen, who is known, who it is (None: nobody), part of the conflict ("" for none)
    ("a new machine", Sighting((A,), U), [], None, ""),
    ("by its card alone", Sighting((A,)), [known(1, A, uuid=U)], 1, ""),
    ("card and UUID agree", Sighting((A,), U), [known(1, A, uuid=U), known(2, B, uuid=V)], 1, ""),
    ("a card moved to another board", Sighting((A,), V), [known(1, A, uuid=U)], 1, "another UUID"),
    ("a card of the other slot, before hello", Sighting((B,), U), [known(1, A, uuid=U)], 1, ""),
    ("a foreign card, cards are known", Sighting((C,), U), [known(1, A, B, uuid=U, facts=True)], None, "none of its"),
    ("two boards with one UUID", Sighting((C,), U), [known(1, A, uuid=U), known(2, B, uuid=U)], None, "#1 and like #2"),
    ("a serial alone is not enough", Sighting((C,), "", "S1"), [known(1, A, serial="S1")], None, ""),
    ("UUID agrees, serial does not", Sighting((C,), U, "S2"), [known(1, A, uuid=U, serial="S1")], None, "another"),
    ("the oldest of two with one card", Sighting((A,)), [known(2, A, facts=True), known(1, A)], 1, "card of #2"),
]  # fmt: skip


@pytest.mark.parametrize(("what", "sighting", "nodes", "who", "conflict"), CASES, ids=[case[0] for case in CASES])
def test_who_it_is(what: str, sighting: Sighting, nodes: list[Node], who: int | None, conflict: str) -> None:
    verdict = identify(sighting, nodes)
    assert (verdict.node.id if verdict.node else None) == who
    assert conflict in verdict.conflict and bool(conflict) == bool(verdict.conflict)


def test_one_machine_seen_by_two_cards_becomes_one() -> None:
    verdict = identify(Sighting((A, B), U), [known(1, A, uuid=U), known(2, B, uuid=U)])
    assert verdict.node is not None and verdict.node.id == 1
    assert [node.id for node in verdict.absorbed] == [2] and not verdict.conflict


def test_an_approved_node_is_never_absorbed() -> None:
    verdict = identify(Sighting((A, B), U), [known(1, A, uuid=U), replace(known(2, B, uuid=U), state=State.READY)])
    assert not verdict.absorbed and "#2" in verdict.conflict
