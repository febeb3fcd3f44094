"""The reader of lists of nodes against damaged lists: entries that can be written and read again, or its one error."""

from __future__ import annotations

import random

from netboot.nodelist import MAX_TOLD, NodelistInvalid, parse, render
from tests.fuzz.test_datagrams import mutate, seeds

COUNT = 4000


def test_damaged_lists() -> None:
    corpus, rng = seeds("nodelist"), random.Random("nodelist 1")
    for number in range(COUNT):
        data = corpus[number] if number < len(corpus) else mutate(rng, corpus[number % len(corpus)], corpus)
        try:
            entries = parse(data)
        except NodelistInvalid as error:
            told = error.message.split("\n")
            assert len(told) <= MAX_TOLD + 1 and all(line and line.isprintable() for line in told), data
            continue
        again = parse(render(entries).encode())
        assert [entry.name for entry in again] == [entry.name for entry in entries], data
        for one, other in zip(again, entries, strict=True):
            assert (one.macs, one.address, one.serial, one.uuid) == (
                other.macs,
                other.address,
                other.serial,
                other.uuid,
            )
