"""TFTP reads without a network: a client of our own on a channel that loses, doubles and reorders."""

from __future__ import annotations

import random
import struct
from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tftpy.TftpPacketFactory import TftpPacketFactory

from netboot.tftp import (
    ACCESS,
    ILLEGAL,
    MAX_RETRIES,
    ReadRequest,
    TftpInvalid,
    Transfer,
    error,
    netascii,
    parse_request,
    read_error,
)


def rrq(*fields: bytes, op: int = 1) -> bytes:
    return struct.pack("!H", op) + b"".join(field + b"\0" for field in fields)


def ack(number: int) -> bytes:
    return struct.pack("!HH", 4, number & 0xFFFF)


def transfer(content: bytes, **options: str) -> Transfer:
    return Transfer(ReadRequest("x", "octet", options), len(content), lambda at, size: content[at : at + size])


def numbers(packets: list[bytes]) -> list[int]:
    return [struct.unpack("!HH", packet[:4])[1] for packet in packets if packet[:2] == b"\0\3"]


def granted(t: Transfer) -> dict[str, str]:
    first = t.start(0)[0]
    if first[:2] != b"\0\6":
        return {}
    fields = first[2:].split(b"\0")[:-1]
    return {k.decode(): v.decode() for k, v in zip(fields[::2], fields[1::2], strict=True)}


def test_requests() -> None:
    got = parse_request(rrq(b"boot/x.efi", b"OCTET", b"BlkSize", b"1468", b"tsize", b"0"))
    assert got == ReadRequest("boot/x.efi", "octet", {"blksize": "1468", "tsize": "0"})
    assert parse_request(rrq(b"x", b"octet")).options == {}


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (rrq(b"x", b"octet", op=2), ACCESS),
        (rrq(b"\xc3\xa4", b"octet"), ILLEGAL),
        (rrq(b"x", b"\xff"), ILLEGAL),
        (rrq(b"x", b"mail"), ILLEGAL),
        (rrq(b"", b"octet"), ACCESS),
        (rrq(b"a\x1b[2J", b"octet"), ACCESS),
        (rrq(b"x", b"octet", b"tsize"), ILLEGAL),
        (rrq(b"x", b"octet", b"", b""), ILLEGAL),
        (rrq(b"x", b"octet", b"blksize", b"\xff"), ILLEGAL),
        (rrq(b"x"), ILLEGAL),
        (b"\0\1x\0octet", ILLEGAL),
        (b"\0\1", ILLEGAL),
        (b"\0", ILLEGAL),
        (b"", ILLEGAL),
        (ack(0), ILLEGAL),
        (rrq(b"x" * 600, b"octet"), ILLEGAL),
    ],
)
def test_what_is_no_read_request_says_so_in_one_error(data: bytes, code: int) -> None:
    with pytest.raises(TftpInvalid) as caught:
        parse_request(data)
    assert caught.value.code == code


def test_errors_are_read_by_another_implementation() -> None:
    for code, words, expected in (
        (1, "", b"File not found"),
        (0, "busy \u00e4", b"busy ?"),
        (8, "", b"Failed to negotiate options"),
    ):
        packet = TftpPacketFactory().parse(error(code, words))
        assert (packet.errorcode, packet.errmsg) == (code, expected)
        assert read_error(error(code, words)) == (code, expected.decode())
    assert error(1) == error(1, "File not found")  # one text does not leak into the next packet
    assert read_error(b"\0\5\0\x08no\x1b\0rest") == (8, "no?")
    assert read_error(b"\0\5") == (0, "")


@pytest.mark.parametrize(
    ("asked", "expected"),
    [
        ({}, {}),
        ({"blksize": "1468", "tsize": "0"}, {"blksize": "1468", "tsize": "5"}),
        ({"blksize": "65464"}, {"blksize": "1468"}),
        ({"blksize": "99999"}, {"blksize": "1468"}),
        ({"blksize": "8"}, {"blksize": "8"}),
        ({"blksize": "7"}, {}),
        ({"blksize": "abc"}, {}),
        ({"blksize": "-512"}, {}),
        ({"blksize": "\u0663\u0663\u0663"}, {}),
        ({"blksize": "9" * 400}, {}),
        ({"windowsize": "16"}, {"windowsize": "16"}),
        ({"windowsize": "65535"}, {"windowsize": "64"}),
        ({"windowsize": "0"}, {}),
        ({"windowsize": "65536"}, {}),
        ({"timeout": "3"}, {"timeout": "3"}),
        ({"timeout": "0"}, {}),
        ({"timeout": "256"}, {}),
        ({"multicast": "", "utimeout": "1"}, {}),
        ({"tsize": "zero"}, {}),
    ],
)
def test_options_granted_and_declined(asked: dict[str, str], expected: dict[str, str]) -> None:
    assert granted(transfer(b"12345", **asked)) == expected


def test_block_size_for_a_smaller_path() -> None:
    t = Transfer(ReadRequest("x", "octet", {"blksize": "1468"}), 5, lambda at, size: b"x" * size, max_blksize=1024)
    assert granted(t) == {"blksize": "1024"}


@pytest.mark.parametrize(("size", "blocks"), [(0, [0]), (1, [1]), (511, [511]), (512, [512, 0]), (1024, [512, 512, 0])])
def test_the_last_block_is_short_or_empty(size: int, blocks: list[int]) -> None:
    t = transfer(b"x" * size)
    sent, packets = [], t.start(0)
    for number in range(1, len(blocks) + 1):
        assert numbers(packets) == [number]
        sent.append(len(packets[0]) - 4)
        packets = t.on_packet(ack(number), 0)
    assert sent == blocks
    assert t.done and t.failed is None and t.bytes_sent == size


def test_block_numbers_roll_over_to_zero() -> None:
    size = 8 * 70_000
    content = random.Random(1).randbytes(size)
    t = transfer(content, blksize="8", windowsize="64")
    got, packets, last = [], [], 0
    t.start(0)
    packets = t.on_packet(ack(0), 0)
    while not t.done:
        got += [packet[4:] for packet in packets]
        last += len(packets)
        assert numbers(packets)[-1] == last & 0xFFFF
        packets = t.on_packet(ack(last), 0)
    assert b"".join(got) == content


def test_repeated_acks_do_not_repeat_the_data() -> None:
    t = transfer(b"x" * 5000)
    t.start(0)
    assert numbers(t.on_packet(ack(1), 0)) == [2]
    for _ in range(5):
        assert t.on_packet(ack(1), 0) == []
    assert numbers(t.on_packet(ack(2), 0)) == [3]
    assert t.on_packet(ack(1), 0) == []
    assert t.on_packet(ack(9), 0) == []  # not sent yet


def test_a_window_goes_back_to_the_first_lost_block_once() -> None:
    t = transfer(b"x" * 100_000, windowsize="8")
    t.start(0)
    assert numbers(t.on_packet(ack(0), 0)) == list(range(1, 9))
    assert numbers(t.on_packet(ack(3), 0)) == list(range(4, 12))  # block 4 was lost
    assert t.on_packet(ack(3), 0) == []  # the client says it again for 6, 7 and 8
    assert t.on_packet(ack(3), 0) == []
    assert numbers(t.on_packet(ack(11), 0)) == list(range(12, 20))
    assert numbers(t.on_packet(ack(11), 0)) == list(range(12, 20))  # block 12 was lost
    assert t.on_packet(ack(11), 0) == []


def test_silence_ends_after_six_repeats() -> None:
    t = transfer(b"x" * 5000, blksize="512")
    sent = len(t.start(0))
    now, pauses = 0.0, []
    assert t.on_timer(0.5) == []
    while not t.done:
        pauses.append(t.deadline - now)
        now = t.deadline
        sent += len(t.on_timer(now))
        assert sent <= 1 + MAX_RETRIES
    assert sent == 1 + MAX_RETRIES
    assert pauses == [1, 2, 4, 8, 8, 8, 8]
    assert t.failed == "client stopped answering at block 0 of 10"
    assert t.on_packet(ack(0), now) == t.on_timer(now + 99) == []


def test_a_negotiated_timeout_is_kept() -> None:
    t = transfer(b"x", timeout="3")
    t.start(10)
    assert t.deadline == 13
    t.on_timer(13)
    assert t.deadline == 16


def test_the_client_may_give_up() -> None:
    t = transfer(b"x" * 5000, tsize="0")
    t.start(0)
    assert t.on_packet(b"\0\5\0\x08User aborted the transfer\0", 0) == []
    assert t.done and t.probe and t.failed == "client gave up: error 8 User aborted the transfer"
    t = transfer(b"x" * 5000)
    t.start(0)
    t.on_packet(ack(1), 0)
    t.on_packet(b"\0\5\0\3disk full\0", 0)
    assert t.done and not t.probe and t.failed == "client gave up: error 3 disk full"


def test_nonsense_in_the_middle() -> None:
    t = transfer(b"x" * 5000)
    t.start(0)
    assert t.on_packet(b"", 0) == t.on_packet(b"\0\4\0", 0) == []
    assert not t.done
    assert t.on_packet(ack(1) + b"trailing", 0)  # sent by some ROMs
    assert t.on_packet(b"\0\3\0\1data", 0) == [error(ILLEGAL)]
    assert t.done and t.failed and "opcode 3" in t.failed


def test_acks_before_the_options_are_settled() -> None:
    t = transfer(b"x" * 5000, blksize="512")
    t.start(0)
    assert t.on_packet(ack(1), 0) == []
    assert numbers(t.on_packet(ack(0), 0)) == [1]


def test_a_file_that_shrinks_or_fails_is_not_passed_off_as_complete() -> None:
    t = Transfer(ReadRequest("x", "octet", {}), 2000, lambda at, size: b"x" * min(size, max(0, 700 - at)))
    t.start(0)
    with pytest.raises(TftpInvalid, match="shorter than 2000"):
        t.on_packet(ack(1), 0)


def test_text_mode() -> None:
    assert netascii(b"a\nb\r\nc\rd") == b"a\r\nb\r\x00\r\nc\r\x00d"


class Client:
    """Reads as RFC 7440 section 4 tells a client to: blocks in order, an ACK at a window's end or at a gap."""

    def __init__(self, blksize: int, window: int, oack: bool) -> None:
        self.blksize, self.window = blksize, window
        self.got: list[bytes] = []
        self.in_window = 0
        self.opened = not oack
        self.finished = False

    def on_packet(self, data: bytes) -> list[bytes]:
        if data[:2] == b"\0\6":
            self.opened = True
            return [ack(0)] if not self.got else []
        number = struct.unpack("!HH", data[:4])[1]
        if number != (len(self.got) + 1) & 0xFFFF:
            self.in_window = 0
            return [ack(len(self.got))]
        if not self.finished:
            self.got.append(data[4:])
            self.in_window += 1
            self.finished = len(data) - 4 < self.blksize
        if self.finished or self.in_window == self.window:
            self.in_window = 0
            return [ack(len(self.got))]
        return []


def channel(rng: random.Random, packets: list[bytes], loss: float) -> Iterator[bytes]:
    """Each packet lost, doubled or moved behind the next, each with probability `loss`."""
    held: list[bytes] = []
    for packet in packets:
        fate = rng.random()
        if fate < loss:
            continue
        if fate < 2 * loss:
            yield packet
        elif fate < 3 * loss:
            held.append(packet)
            continue
        yield packet
        yield from held
        held.clear()
    yield from held


@settings(max_examples=120, deadline=None)
@given(
    st.integers(0, 9000),
    st.sampled_from([(512, 1, False), (512, 1, True), (64, 4, True), (64, 16, True), (300, 64, True), (8, 7, True)]),
    st.integers(0, 2**32 - 1),
    st.sampled_from([0.0, 0.02, 0.1]),
)
def test_a_bad_wire_delivers_the_same_bytes(size: int, shape: tuple[int, int, bool], seed: int, loss: float) -> None:
    rng = random.Random(seed)
    blksize, window, oack = shape
    content = rng.randbytes(size)
    options = {"blksize": str(blksize), "windowsize": str(window)} if oack else {}
    t, client = transfer(content, **options), Client(blksize, window, oack)
    now, packets = 0.0, t.start(0.0)
    sent, blocks = 0, size // blksize + 1
    for _ in range(200_000):
        if t.done:
            break
        sent += len(packets)
        answers = [a for packet in channel(rng, packets, loss) for a in client.on_packet(packet)]
        packets = [p for answer in channel(rng, answers, loss) for p in t.on_packet(answer, now)]
        if not packets and not t.done:
            now = max(now, t.deadline)
            packets = t.on_timer(now)
    assert t.done
    if loss == 0:
        assert t.failed is None
        assert sent == blocks + oack
    if t.failed is None:
        assert b"".join(client.got) == content
    else:  # only for want of an answer, six times in a row, or because the very last ACK got lost
        assert "stopped answering" in t.failed
        assert client.finished or loss == 0.1
    # Repeats are bounded: no duplicate may set off an avalanche.
    assert sent <= (blocks + 1) * (2 + MAX_RETRIES) * max(window // 2, 1) + 64
