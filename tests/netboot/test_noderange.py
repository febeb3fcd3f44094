"""Noderanges, against what ClusterShell's documentation says they mean."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from netboot.noderange import NoderangeInvalid, check_group, expand, fold, select, words

NODES = [f"node{n:02}" for n in range(1, 21)] + ["login", "store1"]
GROUPS = {"rack1": NODES[:8], "rack2": NODES[8:16], "state:up": ["login"], "empty": []}


def chosen(*texts: str) -> list[str]:
    def find(name: str) -> str:
        if name not in NODES:
            raise LookupError(name)
        return name

    return select(texts, lambda: NODES, find, lambda group: GROUPS[group])


@pytest.mark.parametrize(
    ("word", "names"),
    [
        ("node07", ["node07"]),
        ("n[08-10]", ["n08", "n09", "n10"]),
        ("n[8-10]", ["n8", "n9", "n10"]),
        ("n[98-102]", ["n98", "n99", "n100", "n101", "n102"]),
        ("n[1,3,5-6]x", ["n1x", "n3x", "n5x", "n6x"]),
        ("n[0-10/5]", ["n0", "n5", "n10"]),
        ("r[1-2]-[01-02]", ["r1-01", "r1-02", "r2-01", "r2-02"]),
    ],
)
def test_a_word_stands_for(word: str, names: list[str]) -> None:
    assert list(expand(word)) == names


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("n[1-", "brackets"), ("n1]", "brackets"), ("n[[1]]", "brackets"), ("n[]", "not a number"),
        ("n[a-b]", "not a number"), ("n[5-3]", "backwards"), ("n[1-9/0]", "backwards"), ("n[1-999999]", "100000"),
        ("[1-999][1-999]", "998001"), ("[1][1][1][1][1]", "four brackets"), ("x" * 10_001, "10001"),
        ("\x1b[2J[1", "brackets"),
    ],
)  # fmt: skip
def test_what_is_no_selection_is_said(text: str, says: str) -> None:
    with pytest.raises(NoderangeInvalid) as raised:
        [list(expand(word)) for word in words(text)]
    assert says in raised.value.message and "\x1b" not in raised.value.message


def test_words_add_and_take_away_from_left_to_right() -> None:
    assert chosen("node[01-03]", "!node02", "login") == ["node01", "node03", "login"]
    assert chosen("node[01-03],!node02,node02") == ["node01", "node03", "node02"]
    assert chosen("!node*") == ["login", "store1"]
    assert chosen("!@rack1,!@rack2,!node*") == ["login", "store1"]
    assert chosen("node01 node01,node[01]") == ["node01"]


def test_groups_and_patterns() -> None:
    assert chosen("@rack[1-2]") == NODES[:16]
    assert chosen("@rack1,!node0[2-8]") == ["node01"]
    assert chosen("@state:up") == ["login"] and chosen("@empty") == []
    assert chosen("node1?") == NODES[9:19] and chosen("*[1]") == ["node01", "node11", "store1"]
    with pytest.raises(NoderangeInvalid, match="no node fits 'gpu\\*'"):
        chosen("gpu*")


def test_who_does_not_exist_is_an_error_also_when_left_out() -> None:
    with pytest.raises(LookupError):
        chosen("node[01-99]")
    with pytest.raises(LookupError):
        chosen("@rack1,!node99")


@pytest.mark.parametrize("name", ["rack1", "a", "gpu_a100.b-2"])
def test_names_of_groups(name: str) -> None:
    assert check_group(name) == name


@pytest.mark.parametrize("name", ["", "all", "Rack", "a b", "a]", "state:up", "-a", "x" * 64])
def test_what_cannot_be_a_group(name: str) -> None:
    with pytest.raises(NoderangeInvalid):
        check_group(name)


def test_folding() -> None:
    assert fold(["n01", "n02", "n03", "x"]) == "n[01-03],x"
    assert fold(["node09", "node10", "node11"]) == "node[09-11]"
    assert fold(["node8", "node9", "node10"]) == "node[8-10]"
    assert fold(["n1", "n3"]) == "n[1,3]" and fold(["n1"]) == "n1" and fold([]) == ""


@given(st.lists(st.from_regex(r"[a-z]{1,2}[0-9]{0,4}", fullmatch=True), max_size=30))
def test_what_was_folded_stands_for_the_same(names: list[str]) -> None:
    unfolded = [name for word in words(fold(names)) for name in expand(word)]
    assert sorted(unfolded) == sorted(set(names))
