"""Every message of the node API against damaged ones: `decode` gives a value whose own encoding decodes to the same,
or raises WireInvalid.

The corpus is replayed as it is, then damaged with a fixed seed, so that a failure comes back.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path

from netboot.capture import Ask, CapturePlan, Choice, End, Lacking, Offer
from netboot.plan import InstallPlan
from netboot.report import Ack, Answer, FileAsk, Hello, Next, PlanAsk, Report
from netboot.wire import WireInvalid, decode, encode

CORPUS = Path(__file__).parent / "corpus" / "wire"
KINDS = (Hello, Answer, Next, PlanAsk, FileAsk, Report, Ack, InstallPlan, CapturePlan, Offer, Choice, Ask, Lacking, End)
# What JSON is made of, and values at the edges of every type.
PIECES = (
    b"{", b"}", b"[", b"]", b",", b":", b'"', b"null", b"true", b"-1", b"0.5", b"1e999", b"NaN", b"-Infinity",
    b"9223372036854775808", b"1e18", b'""', b"[]", b"{}", b"\xff", b"\\ud800", b"\\u0000", b'"rest"', b'"wait"',
)  # fmt: skip


def cases(count: int) -> Iterator[bytes]:
    """The corpus, then `count` messages made from it by small damages."""
    seeds = [path.read_bytes() for path in sorted(CORPUS.glob("*.bin"))]
    assert seeds
    yield from seeds
    rng = random.Random("wire 1")
    for _ in range(count):
        out = bytearray(rng.choice(seeds))
        for _ in range(rng.choice((1, 1, 1, 2, 4))):
            at = rng.randrange(len(out) + 1)
            match rng.randrange(4):
                case 0 if at < len(out):
                    out[at] ^= 1 << rng.randrange(8)
                case 1:
                    del out[at : at + rng.randint(1, 12)]
                case 2:
                    out[at:at] = rng.choice(PIECES)
                case _:
                    out[at : at + rng.randint(1, 8)] = rng.choice(PIECES)
        yield bytes(out)


def test_every_message() -> None:
    whole = 0
    for data in cases(5000):
        for kind in KINDS:
            try:
                value = decode(kind, data)
            except WireInvalid as error:
                assert len(str(error)) < 1000, data
                continue
            assert decode(kind, encode(value)) == value, data
            whole += 1
    assert whole > 500  # the damages leave enough to be read
