"""The binary body of captured chunks: there and back, and nothing but WireInvalid for what is none."""

from __future__ import annotations

import random
import struct
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from netboot.capture import FRAME, HEAD, MAX_BODY, MAX_FRAME, decode_frames, encode_frames
from netboot.wire import WireInvalid

CORPUS = Path(__file__).parents[1] / "fuzz" / "corpus" / "frames"
FRAMES = st.lists(st.tuples(st.integers(0, 2**64 - 1), st.binary(min_size=1, max_size=50)), min_size=1, max_size=20)


@given(st.integers(0, 2**32 - 1), FRAMES)
def test_frames_come_back(part: int, frames: list[tuple[int, bytes]]) -> None:
    number, found = decode_frames(encode_frames(part, frames))
    assert number == part and [(index, bytes(frame)) for index, frame in found] == frames


@pytest.mark.parametrize(
    "body",
    [
        b"",
        HEAD.pack(1, 0),
        HEAD.pack(1, 2) + FRAME.pack(0, 1) + b"x",
        HEAD.pack(1, 2**32 - 1),
        HEAD.pack(1, 1) + FRAME.pack(0, 0),
        HEAD.pack(1, 1) + FRAME.pack(0, MAX_FRAME + 1) + bytes(MAX_FRAME + 1),
        HEAD.pack(1, 1) + FRAME.pack(0, 5) + b"four",
        HEAD.pack(1, 1) + FRAME.pack(0, 1) + b"xy",
        bytes(MAX_BODY + 1),
    ],
)
def test_what_is_no_body_is_refused(body: bytes) -> None:
    with pytest.raises(WireInvalid):
        decode_frames(body)


def test_damaged_bodies() -> None:
    seeds = [path.read_bytes() for path in sorted(CORPUS.glob("*.bin"))]
    assert seeds
    rng, whole = random.Random("frames 1"), 0
    for _ in range(5000):
        body = bytearray(rng.choice(seeds))
        for _ in range(rng.choice((0, 1, 1, 2))):
            at = rng.randrange(len(body) or 1)
            body[at : at + rng.randrange(5)] = rng.choice((b"", b"\xff", b"\0\0\0\0", struct.pack("<I", len(body))))
        try:
            part, frames = decode_frames(bytes(body))
        except WireInvalid:
            continue
        assert encode_frames(part, [(index, bytes(frame)) for index, frame in frames]) == bytes(body)
        whole += 1
    assert whole > 500
