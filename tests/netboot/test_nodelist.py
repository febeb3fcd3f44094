from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from netboot.nodelist import Entry, NodelistInvalid, parse, render

UUID = "4c4c4544-0042-3510-8051-000000000001"
MAC = "52:54:00:00:00:01"


def test_csv_in_any_order_with_what_spreadsheets_add() -> None:
    text = '\ufeffMAC;Name;groups;profile\r\n52-54-00-00-00-01;node01;"rack1 gpu";compute\r\n;node02;;\r\n'
    assert parse(text.encode()) == [
        Entry(2, "node01", (MAC,), profile="compute", groups=("gpu", "rack1")), Entry(3, "node02", groups=()),
    ]  # fmt: skip
    assert parse(b"# rack one\nname\n\nnode01\n")[0].is_place


def test_a_hosts_file_and_an_ethers_file() -> None:
    hosts = b"127.0.0.1 localhost\n::1 localhost\nfe80::1 x\n10.1.0.7\tNode07.cluster.internal n7  # the loud one\n"
    assert parse(hosts) == [Entry(4, "node07", address="10.1.0.7")]
    assert parse(b"52:54:00:00:00:01 node01\n") == [Entry(1, "node01", (MAC,))]


def test_every_bad_line_is_named_and_nothing_comes_of_the_good_ones() -> None:
    lines = [
        "name,mac,address,serial,uuid", "node01,52:54:00:00:00:01,,,", "node02,52:54:00:00:00:01,,,", "Node 3,,,,",
        "node04,zz,,,",
        "node05,,10.1.0.300,,", "node06,,,To be filled by O.E.M.,", "node07,,,,ffffffff-ffff-ffff-ffff-ffffffffffff",
        "node01,,,,", "node09,,,", 'node10,"x,,,', "node\x1b[2J,,,,", "all,,,,", "node11,,,," + "x" * 5000,
    ]  # fmt: skip
    with pytest.raises(NodelistInvalid) as raised:
        parse("\n".join(lines).encode())
    told = raised.value.message.splitlines()
    expected = {
        3: "the MAC '52:54:00:00:00:01' is in line 2 already", 4: "cannot be the name", 5: "no address of a network",
        6: "no IPv4 address", 7: "no serial number", 8: "no UUID", 9: "the name 'node01' is in line 2",
        10: "4 values for 5",
        11: "unexpected end", 12: "cannot be the name", 13: "taken by gild", 14: "too many for a line",
    }  # fmt: skip
    for number, text in expected.items():
        assert any(line.startswith(f"line {number}:") and text in line for line in told), (number, told)
    assert len(told) == len(expected) and raised.value.message.replace("\n", "").isprintable()
    assert raised.value.hint == "nothing was changed"


@pytest.mark.parametrize(
    ("data", "match"),
    [
        (b"", "no node is in the list"), (b"name,colour\nx,red\n", "'colour' is no column"),
        (b"name,name\n", "a column twice"),
        (b"name\nn\xff1\n", "line 2 is not UTF-8"), (b"x" * (9 << 20), "more than"),
        (b"hello\n", "is not ADDRESS NAME"),
        (b"name\n" + b"\n".join(b"n%d" % n for n in range(20001)), "20001 nodes are more than"),
        (b"name\n" + b"!\n" * 30, "and 10 more"),
    ],
)  # fmt: skip
def test_what_is_no_list(data: bytes, match: str) -> None:
    with pytest.raises(NodelistInvalid, match=match):
        parse(data)


def test_what_is_written_is_read_back() -> None:
    entries = [
        Entry(2, "node01", (MAC, "52:54:00:00:00:02"), "10.1.0.7", "compute", ("a", "b"), "S,1\"x", UUID),
        Entry(3, "node02", groups=()),
    ]  # fmt: skip
    assert parse(render(entries).encode()) == entries


LIKELY = st.text(alphabet='name,mac;\n0123456789abcdef:.-"# \x00\x1b\u202e', max_size=200)


@given(st.binary(max_size=400) | LIKELY.map(str.encode))
def test_anything_is_read_or_refused(data: bytes) -> None:
    for begin in (b"", b"name,mac,address,serial,uuid,groups,profile\n"):
        try:
            entries = parse(begin + data)
        except NodelistInvalid as error:
            assert error.message.replace("\n", "").isprintable()
        else:
            assert parse(render(entries).encode()) is not None
