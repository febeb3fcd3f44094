"""The wire: what goes in comes out, and whatever does not fit is refused with a word about where."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from netboot import wire
from netboot.plan import Edit, InstallPlan
from netboot.report import Answer, Disk, Do, Facts, Hello, Nic, Phase, Report
from netboot.wire import WireInvalid, decode, encode

texts = st.text(max_size=40)
sizes = st.integers(0, (1 << 63) - 1)
facts = st.builds(
    Facts,
    vendor=texts,
    memory=sizes,
    disks=st.lists(st.builds(Disk, path=texts, size=sizes, content=texts), max_size=3).map(tuple),
    nics=st.lists(st.builds(Nic, name=texts, mac=texts, link=st.booleans()), max_size=3).map(tuple),
)
hellos = st.builds(Hello, mac=texts, facts=facts, token=texts)
reports = st.builds(
    Report,
    session=texts,
    phase=st.sampled_from([None, *Phase]),
    done=sizes,
    lines=st.lists(texts, max_size=5).map(tuple),
    seconds=st.floats(0, 1e6),
)


@given(hellos | reports)
def test_round_trip(message: Hello | Report) -> None:
    assert decode(type(message), encode(message)) == message


def test_unknown_fields_are_ignored_and_missing_ones_take_defaults() -> None:
    answer = decode(Answer, b'{"do":"wait","from_the_future":[1,2]}')
    assert answer == Answer(Do.WAIT)


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b"", "not JSON"),
        (b"[" * 100_000, "not JSON"),
        (b"[]", "Answer is not an object"),
        (b"{}", "lacks 'do'"),
        (b'{"do":"erase"}', "not one of wait, install"),
        (b'{"do":["wait"]}', "not one of"),
        (b'{"do":"wait","wait":"5"}', "Answer.wait is not of type int"),
        (b'{"do":"wait","wait":true}', "Answer.wait is not of type int"),
        (b'{"do":"wait","wait":1e3}', "not of type int"),
        (b'{"do":"wait","wait":99999999999999999999}', "64-bit"),
        (b'{"do":"wait","node":7}', "Answer.node is not of type str"),
        (b'{"do":"wait","node":"' + b"x" * 70_000 + b'"}', "longer than"),
    ],
)
def test_what_is_refused(body: bytes, words: str) -> None:
    with pytest.raises(WireInvalid, match=words):
        decode(Answer, body)


def test_lists_numbers_and_sizes_are_bounded() -> None:
    with pytest.raises(WireInvalid, match="list of at most"):
        decode(Report, json.dumps({"session": "s", "lines": ["x"] * (wire.MAX_ITEMS + 1)}).encode())
    with pytest.raises(WireInvalid, match=r"Report\.lines\[1\]"):
        decode(Report, b'{"session":"s","lines":["a",2]}')
    with pytest.raises(WireInvalid, match="larger than"):
        decode(Report, b" " * (wire.MAX_MESSAGE + 1))
    for number in ("NaN", "Infinity", "1e400"):
        with pytest.raises(WireInvalid, match="usable number"):
            decode(Report, b'{"session":"s","seconds":%s}' % number.encode())


def test_edit_options_carry_any_json() -> None:
    edit = Edit("network", {"names": ["a", "b"], "deep": {"x": None}})
    assert wire.from_object(Edit, json.loads(encode(edit))) == edit
    with pytest.raises(WireInvalid, match="lacks"):
        decode(InstallPlan, b'{"order":"1"}')


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (b"[" * 40 + b"]" * 40, "nested"),
        (b"[" + b"0," * wire.MAX_ITEMS + b"0]", "more than 4096 entries"),
        (b"1e999", "usable number"),
        (b'"' + b"x" * (wire.MAX_TEXT + 1) + b'"', "longer than"),
        (b'"\\ud800"', "not JSON"),
        (b'"\xed\xa0\x80"', "not JSON"),
        (b"9" * 5000, "not JSON|64-bit"),
    ],
    ids=["deep", "long", "infinite", "text", "surrogate", "half a character", "number"],
)
def test_edit_options_are_bounded_too(options: bytes, words: str) -> None:
    with pytest.raises(WireInvalid, match=words):
        decode(Edit, b'{"edit":"x","options":{"a":%s}}' % options)
