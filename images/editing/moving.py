"""What a version costs: to a node that has another one, and to the store beside its parent."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from images.manifest import Kind, Manifest, Run
from images.reassemble import plan_restore
from images.store import Store


@dataclass(frozen=True, slots=True)
class Cost:
    """Bytes: `fetch` compressed over the network, `write` and `zero` onto the disk, `kept` of what is there already."""

    fetch: int = 0
    write: int = 0
    zero: int = 0
    kept: int = 0


def cost(store: Store, before: Manifest, after: Manifest) -> Cost:
    """What it takes to bring a node from one version to another, in bytes, if its disk holds the first one unchanged;
    what the node wrote since comes on top. A chunk is kept where the same one stands at the same place of the
    partition of the same role. Raises NotFound, ManifestInvalid."""
    found = Cost()
    for index, partition in enumerate(after.partitions):
        runs = store.runs(after, index)
        held: frozenset[int] = frozenset()
        for number, other in enumerate(before.partitions):
            if (other.role, before.chunk_size) == (partition.role, after.chunk_size):
                held = same_place(store.runs(before, number), runs)
        work = plan_restore(runs, partition.size, after.chunk_size, held=held)
        found = Cost(
            found.fetch + work.to_fetch, found.write + work.to_write, found.zero + work.to_zero, found.kept + work.kept
        )
    return found


def same_place(before: Sequence[Run], after: Sequence[Run]) -> frozenset[int]:
    """Numbers of the chunks of `after` that stand at the same place in `before`, zeros among them; free ones never do,
    since nobody knows what stands there. Both tile their partition, in order."""
    found: list[int] = []
    old, new = iter(before), iter(after)
    one, two = next(old, None), next(new, None)
    while one is not None and two is not None:
        start, end = max(one.start, two.start), min(one.start + one.count, two.start + two.count)
        if one.kind is two.kind is Kind.ZERO:
            found.extend(range(start, end))
        elif one.kind is two.kind is Kind.DATA:
            found.extend(n for n in range(start, end) if one.chunks[n - one.start][0] == two.chunks[n - two.start][0])
        if one.start + one.count <= end:
            one = next(old, None)
        if two.start + two.count <= end:
            two = next(new, None)
    return frozenset(found)


def grown(store: Store, name: str) -> Iterator[tuple[Manifest, int]]:
    """Every version of a lineage, oldest first, and the compressed bytes of its chunks that its parent has not; of the
    first, and of one whose parent was removed, of all. Raises NotFound, ManifestInvalid."""
    known: tuple[int, dict[bytes, int]] = (0, {})
    have = store.versions(name)
    for number in have:
        manifest, _ = store.load(f"{name}:{number}")
        chunks = stored_chunks(store, manifest)
        if manifest.parent != known[0]:  # the version before it is not its parent
            there = manifest.parent in have
            known = (0, stored_chunks(store, store.load(f"{name}:{manifest.parent}")[0]) if there else {})
        yield manifest, sum(length for chunk, length in chunks.items() if chunk not in known[1])
        known = (number, chunks)


def stored_chunks(store: Store, manifest: Manifest) -> dict[bytes, int]:
    """The chunks of a version, each once: hash -> compressed bytes. Raises NotFound, ManifestInvalid."""
    return {
        name: frame
        for index in range(len(manifest.partitions))
        for run in store.runs(manifest, index)
        for name, frame in run.chunks
    }
