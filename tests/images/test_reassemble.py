"""What to do: every chunk that is wanted once, from exactly its own bytes of its pack, the first chunk last."""

from __future__ import annotations

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from images.chunk import chunk_length
from images.errors import ManifestInvalid
from images.manifest import Kind, Run
from images.reassemble import MAX_RAW, MAX_ZERO, Fetch, Zero, plan_restore, raw_length

STEP = 4096


def names(start: int, lengths: list[int]) -> tuple[tuple[bytes, int], ...]:
    return tuple(((start + n).to_bytes(32, "big"), length) for n, length in enumerate(lengths))


def data(start: int, lengths: list[int], pack: int = 0, offset: int = 0) -> Run:
    return Run(Kind.DATA, start, len(lengths), pack, offset, names(start, lengths))


@st.composite
def layouts(draw: st.DrawFn) -> tuple[list[Run], int, dict[int, tuple[int, int, int]]]:
    """Runs, size, and where each data chunk's frame is: pack, offset, length."""
    runs: list[Run] = []
    places: dict[int, tuple[int, int, int]] = {}
    at = 0
    for kind in draw(st.lists(st.sampled_from(Kind), min_size=1, max_size=8)):
        count = draw(st.integers(1, 12))
        if kind is Kind.DATA:
            lengths = draw(st.lists(st.integers(1, STEP), min_size=count, max_size=count))
            run = data(at, lengths, draw(st.integers(0, 3)), draw(st.integers(0, 1 << 40)))
            offset = run.offset
            for number, length in enumerate(lengths, at):
                places[number] = (run.pack, offset, length)
                offset += length
            runs.append(run)
        else:
            runs.append(Run(kind, at, count))
        at += count
    return runs, (at - 1) * STEP + draw(st.integers(1, STEP)), places


def numbers(item: Fetch | Zero) -> range:
    return range(item.start, item.start + (len(item.chunks) if isinstance(item, Fetch) else item.count))


@given(layouts(), st.sets(st.integers(0, 96)), st.sampled_from([1, STEP, 3 * STEP, MAX_RAW]))
@example(([data(0, [5, 6, 7])], 3 * STEP, {0: (0, 0, 5), 1: (0, 5, 6), 2: (0, 11, 7)}), {1}, MAX_RAW)
@settings(deadline=None, max_examples=300)
def test_every_wanted_chunk_once_from_its_own_bytes(
    case: tuple[list[Run], int, dict[int, tuple[int, int, int]]], held: set[int], max_raw: int
) -> None:
    runs, size, places = case
    work = plan_restore(runs, size, STEP, held=held, max_raw=max_raw)
    items = [*work.items, *work.last]
    kinds = {n: run.kind for run in runs for n in range(run.start, run.start + run.count)}
    wanted = {n for n, kind in kinds.items() if kind is not Kind.FREE and n not in held}
    done = [n for item in items for n in numbers(item)]
    assert sorted(done) == sorted(wanted), "each once, nothing else"
    for item in items:
        if isinstance(item, Zero):
            assert all(kinds[n] is Kind.ZERO for n in numbers(item)) and item.count >= 1
            continue
        assert len(item.chunks) <= max(1, max_raw // STEP)
        offset = item.offset
        for number, (name, length) in zip(numbers(item), item.chunks, strict=True):
            assert int.from_bytes(name, "big") == number
            assert (item.pack, offset, length) == places[number]
            offset += length
        assert offset == item.offset + item.length, "the range holds its frames and not a byte more"
    assert [item.start for item in work.items] == sorted(item.start for item in work.items), "in the order of the disk"
    assert [numbers(item) for item in work.last] in ([], [range(1)])
    assert 0 not in [n for item in work.items for n in numbers(item)], "the first chunk is last"

    def raw(chunks: set[int]) -> int:
        return sum(chunk_length(n, size, STEP) for n in chunks)

    assert work.to_fetch == sum(places[n][2] for n in wanted if kinds[n] is Kind.DATA)
    assert work.to_write == raw({n for n in wanted if kinds[n] is Kind.DATA})
    assert work.to_zero == raw({n for n in wanted if kinds[n] is Kind.ZERO})
    assert work.kept == raw({n for n, kind in kinds.items() if n in held and kind is not Kind.FREE})


def test_neighbours_are_fetched_together_up_to_the_limit() -> None:
    count = 2 * MAX_RAW // STEP + 2
    work = plan_restore([data(0, [10] * count, offset=100)], count * STEP, STEP)
    assert [(f.start, len(f.chunks)) for f in work.items if isinstance(f, Fetch)] == [
        (1, MAX_RAW // STEP),
        (1 + MAX_RAW // STEP, MAX_RAW // STEP),
        (count - 1, 1),
    ]
    assert work.last == (Fetch(0, 100, 10, 0, names(0, [10])),)


def test_a_chunk_larger_than_the_limit_is_fetched_alone() -> None:
    big = 16 << 20
    work = plan_restore([data(0, [10, 20, 30])], 3 * big, big)
    assert [(f.start, len(f.chunks)) for f in work.items if isinstance(f, Fetch)] == [(1, 1), (2, 1)]


def test_packs_are_not_mixed_in_one_fetch() -> None:
    runs = [data(0, [10, 10]), data(2, [10, 10], pack=1, offset=20), data(4, [10, 10], pack=1, offset=40)]
    work = plan_restore(runs, 6 * STEP, STEP)
    assert [(f.pack, f.offset, f.length) for f in work.items if isinstance(f, Fetch)] == [
        (0, 10, 10),
        (1, 20, 20),
        (1, 40, 20),
    ]


def test_long_zero_runs_are_cut_so_that_cancelling_stays_alive() -> None:
    count = 2 * MAX_ZERO // STEP + 1
    work = plan_restore([Run(Kind.ZERO, 0, count)], count * STEP - 5, STEP)
    assert work.last == (Zero(0, 1),)
    assert [item.count for item in work.items if isinstance(item, Zero)] == [MAX_ZERO // STEP] * 2
    assert (work.to_zero, work.to_fetch, work.to_write) == (count * STEP - 5, 0, 0)


def test_all_held_is_nothing_to_do() -> None:
    runs = [data(0, [10] * 4), Run(Kind.ZERO, 4, 2), Run(Kind.FREE, 6, 3)]
    work = plan_restore(runs, 9 * STEP, STEP, held=range(6))
    assert (work.items, work.last, work.kept) == ((), (), 6 * STEP)


@pytest.mark.timeout(20)
def test_a_scattered_reimage_of_a_long_run_is_planned_in_one_pass() -> None:
    """Every second of 200,000 chunks held: adding up frame lengths anew for every stretch would take an hour."""
    count = 200_000
    work = plan_restore([data(0, [7] * count)], count * STEP, STEP, held=set(range(0, count, 2)))
    assert len(work.items) == count // 2
    last = work.items[-1]
    assert isinstance(last, Fetch) and last.offset == 7 * (count - 1)


@pytest.mark.parametrize(
    "runs",
    [
        [],
        [data(1, [10] * 3)],
        [data(0, [10] * 3)],
        [data(0, [10] * 5)],
        [data(0, [10] * 2), Run(Kind.ZERO, 3, 1)],
        [data(0, [10] * 2), Run(Kind.FREE, 1, 3)],
        [Run(Kind.ZERO, 0, 0), data(0, [10] * 4)],
        [Run(Kind.ZERO, 0, -1), Run(Kind.ZERO, -1, 5)],
        [Run(Kind.DATA, 0, 4, 0, 0, names(0, [10] * 3))],
    ],
)
def test_runs_that_do_not_tile_are_refused(runs: list[Run]) -> None:
    with pytest.raises(ManifestInvalid, match=r"runs (do not tile|cover)"):
        plan_restore(runs, 4 * STEP, STEP)


def test_raw_lengths_end_with_the_partition() -> None:
    assert raw_length(0, 3, 3 * STEP - 1, STEP) == 3 * STEP - 1
    assert raw_length(1, 1, 3 * STEP - 1, STEP) == STEP
    assert raw_length(2, 1, 3 * STEP - 1, STEP) == STEP - 1
