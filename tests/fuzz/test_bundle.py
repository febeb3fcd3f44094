"""Hostile bundles: a header is used or one BundleDamaged says why not; a whole bundle never leaves half of itself."""

from __future__ import annotations

import io
import random
from pathlib import Path

import pytest

from images.errors import BundleDamaged, GildError
from images.keeping.bundle import MAX_HEADER, START, decode_header, decode_start, encode_header
from images.keeping.garbage import collect
from images.keeping.importing import import_bundle
from images.keeping.verify import verify
from images.store import NAME, Store
from tests.images.bundles import bundle
from tests.images.smallstore import add, contents

CORPUS = Path(__file__).parent / "corpus" / "bundle"
MUTATIONS = 20_000  # of headers; two seconds
WHOLE = 400  # of whole bundles
NASTY = [
    b"\0",
    b"\xff",
    b"-1",
    b"1e999",
    b"NaN",
    b"null",
    b"true",
    b"[]",
    b"{}",
    b'"',
    b"\\ud800",
    b"9" * 40,
    b",",
    b":",
]
NASTY += [b"../../x", b"/etc/x", b".", b"\\u0000", b"[" * 300, b"1.5", b"false"]


def check(data: bytes) -> bool:
    """The invariant: returns or raises BundleDamaged; what returns can be written again and says the same."""
    try:
        header = decode_header(data)
    except BundleDamaged as error:
        assert error.message.isprintable() and len(error.message) < 400
        return False
    assert decode_header(encode_header(header)) == header
    assert all(NAME.fullmatch(version.name) and 0 < version.number < 1 << 31 for version in header.versions)
    assert header.body >= 0 and header.head.isprintable()
    return True


@pytest.mark.parametrize("path", sorted(CORPUS.iterdir()), ids=lambda p: p.stem)
def test_the_corpus(path: Path) -> None:
    assert check(path.read_bytes()) == path.name.startswith("good-")


@pytest.mark.parametrize(
    "start",
    [b"", b"gildbdl1", b"gildbdl2" + bytes(4), START.pack(b"gildbdl1", 0), START.pack(b"gildbdl1", MAX_HEADER + 1)],
)
def test_a_start_that_is_none(start: bytes) -> None:
    with pytest.raises(BundleDamaged):
        decode_start(start)


def mutated(dice: random.Random, seeds: list[bytes]) -> bytes:
    data = bytearray(dice.choice(seeds))
    for _ in range(dice.randint(1, 4)):
        at = dice.randrange(len(data) + 1)
        match dice.randrange(5):
            case 0:
                data[at : at + 1] = dice.randbytes(1)
            case 1:
                nasty = dice.choice(NASTY)
                data[at : at + len(nasty)] = nasty
            case 2:
                data[at:at] = dice.choice(NASTY)
            case 3:
                del data[at : at + dice.randint(1, 40)]
            case _:
                other = dice.choice(seeds)
                start = dice.randrange(len(other) + 1)
                data[at : at + 60] = other[start : start + dice.randint(1, 60)]
    return bytes(data)


def test_mutated_headers() -> None:
    dice, survived = random.Random(21), 0
    seeds = [path.read_bytes() for path in sorted(CORPUS.iterdir()) if path.stat().st_size < 4096]
    for turn in range(MUTATIONS):
        data = mutated(dice, seeds)
        try:
            survived += check(data)
        except BaseException:
            print(f"mutation {turn}: {data!r}")
            raise
    assert survived, "no mutation is gentle enough: the good side of the invariant was never tried"


def test_mutated_bundles_leave_whole_versions_or_nothing(tmp_path: Path) -> None:
    """Signed by whoever they are: everybody is believed here."""
    one = Store(tmp_path / "one")
    add(one, "x", {"boot": [1], "root": [2, 3]})
    add(one, "y", {"root": [4]})
    whole = bundle(one, ["x", "y"])
    size = START.size + START.unpack(whole[: START.size])[1]
    header, rest = whole[START.size : size], whole[size:]
    two = Store(tmp_path / "two")
    before, dice, taken = contents(two.root), random.Random(22), 0
    around = sorted(path.name for path in tmp_path.iterdir())
    for turn in range(WHOLE):
        new, tail = (mutated(dice, [header]), rest) if turn % 2 else (header, mutated(dice, [rest]))
        if turn % 20 == 0:  # nothing that counts
            new, tail = header.replace(b'"one"', b'"%03d"' % turn), rest
        data = START.pack(b"gildbdl1", len(new)) + new + tail
        try:
            done = import_bundle(two, io.BytesIO(data), lambda *_: "anybody")
        except GildError as error:
            assert error.message.isprintable()
            assert contents(two.root) == before, f"mutation {turn}: {data!r}"
        else:
            taken += 1
            assert done.added and verify(two).damage == ()
            for name in two.images():
                two.remove(name)
            collect(two, grace=0)
            before = contents(two.root)
        assert sorted(path.name for path in tmp_path.iterdir()) == around
    assert 0 < taken < WHOLE
