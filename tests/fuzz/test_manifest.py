"""Hostile manifests and runs: decoding returns what can be used, or one ManifestInvalid says why not."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path

import pytest

from images.chunk import chunk_count
from images.errors import ManifestInvalid
from images.manifest import HEADER, MAX_SIZE, Kind, decode_manifest, decode_runs, encode_manifest, encode_runs
from images.reassemble import plan_restore

CORPUS = Path(__file__).parent / "corpus"
MUTATIONS = 30_000  # of each kind of file; about a second
PACKS = 3
# Numbers that sit at the ends of fields, and what JSON is made of.
NASTY = [b"\0", b"\xff", b"\x7f", b"\x80", b"\xff" * 4, b"\0" * 8, b"\xff" * 8, b"\0\0\0\x80"]
NASTY += [b"-1", b"1e999", b"NaN", b"null", b"true", b"[]", b"{}", b'"', b"\\ud800", b"9" * 40, b",", b"[" * 300, b":"]


def check_manifest(data: bytes) -> bool:
    """The invariant: returns or raises ManifestInvalid; what returns can be written again and says the same."""
    try:
        manifest = decode_manifest(data)
    except ManifestInvalid as error:
        assert error.message.isprintable() and len(error.message) < 400
        return False
    assert decode_manifest(encode_manifest(manifest)) == manifest
    return True


def check_runs(data: bytes) -> bool:
    """The invariant, and that runs which decode can be carried out: every chunk once, in order."""
    size, chunk_size = (8 * 4096 - 5, 4096) if len(data) < HEADER.size else HEADER.unpack_from(data)[2:0:-1]
    try:
        runs = decode_runs(data, size=size, chunk_size=chunk_size or 4096, packs=PACKS)
    except ManifestInvalid as error:
        assert error.message.isprintable() and len(error.message) < 400
        return False
    assert encode_runs(runs, size, chunk_size) == data
    assert 0 < size <= MAX_SIZE and sum(run.count for run in runs) == chunk_count(size, chunk_size)
    if sum(run.count for run in runs if run.kind is not Kind.FREE) < 10_000:
        assert plan_restore(runs, size, chunk_size).to_write <= size
    return True


CHECKS: dict[str, Callable[[bytes], bool]] = {"manifest": check_manifest, "runs": check_runs}


def corpus(kind: str) -> list[Path]:
    return sorted((CORPUS / kind).iterdir())


@pytest.mark.parametrize(
    "path", [path for kind in CHECKS for path in corpus(kind)], ids=lambda p: f"{p.parent.name}-{p.stem}"
)
def test_the_corpus(path: Path) -> None:
    assert CHECKS[path.parent.name](path.read_bytes()) == path.name.startswith("good-")


@pytest.mark.parametrize("kind", CHECKS)
def test_mutations_of_the_corpus(kind: str) -> None:
    """Deterministic: the same mutations everywhere, so that a failure can be had again."""
    dice, check = random.Random(20), CHECKS[kind]
    seeds = [path.read_bytes() for path in corpus(kind) if path.stat().st_size < 4096]
    survived = 0
    for turn in range(MUTATIONS):
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
        try:
            survived += check(bytes(data))
        except BaseException:
            print(f"mutation {turn}: {bytes(data)!r}")
            raise
    assert survived, "no mutation is gentle enough: the good side of the invariant was never tried"
