"""The readers of cpio archives, ELF files and a module's own description against damaged files: each returns, or
raises its one documented error, and never says there is more than the file holds.

The corpus is replayed as it is, then damaged with a fixed seed, so that a failure comes back.
"""

from __future__ import annotations

import lzma
import random
from collections.abc import Iterator
from pathlib import Path

from netboot import cpio, kmods
from netboot.agent import modules
from netboot.elf import Elf, ElfInvalid

CORPUS = Path(__file__).parent / "corpus"


def cases(target: str, count: int) -> Iterator[bytes]:
    """The corpus of `target`, then `count` files made from it by small damages."""
    seeds = [path.read_bytes() for path in sorted((CORPUS / target).glob("*.bin"))]
    assert seeds, f"no corpus for {target}"
    yield from seeds
    rng = random.Random(f"{target} 1")
    for _ in range(count):
        out = bytearray(rng.choice(seeds))
        for _ in range(rng.choice((1, 1, 2, 4))):
            at = rng.randrange(len(out) + 1)
            match rng.randrange(5):
                case 0 if at < len(out):
                    out[at] ^= 1 << rng.randrange(8)
                case 1:
                    out[at : at + 8] = rng.choice((b"FFFFFFFF", b"00000000", b"\xff" * 8, bytes(8), b"00001001"))
                case 2:
                    del out[at:]
                case 3:
                    del out[at : at + rng.randint(1, 8)]
                case _:
                    out[at:at] = out[at : at + rng.randint(1, 64)]
        yield bytes(out)


def test_cpio() -> None:
    whole = 0
    for data in cases("cpio", 4000):
        try:
            entries, end = cpio.read(data)
        except cpio.CpioInvalid:
            continue
        assert 0 <= end <= len(data), data
        assert sum(len(entry.data) for entry in entries) <= len(data), data
        whole += 1
    assert whole > 100  # the damages leave enough to be read


def test_elf() -> None:
    whole = 0
    for data in cases("elf", 4000):
        try:
            elf = Elf(data, "fuzz")
            told = elf.modinfo()
            assert all(len(name) <= len(data) for name in elf.needed()), data
            found = kmods.read_module("fuzz", "fuzz.ko", data)
        except ElfInvalid:
            continue
        assert sum(len(key) + len(value) for key, value in told) <= len(data), data
        assert all(kmods.NAME.fullmatch(n) for n in (*found.depends, *found.before, *found.after)), data
        # What the maker writes of it, the agent's loader can read back.
        texts = [text.decode() for text in kmods.index({"fuzz": found}).values()]
        index = modules.parse(*texts)
        assert set(index.needs) == {"fuzz"}, data
        assert sum(map(len, index.patterns.values())) == len(found.aliases), data
        whole += 1
    assert whole > 100


def test_compressed_module_that_is_none() -> None:
    for data in cases("elf", 50):
        try:
            kmods.read_module("fuzz", "fuzz.ko.xz", data)
        except (ElfInvalid, lzma.LZMAError):
            continue
        raise AssertionError(data)
