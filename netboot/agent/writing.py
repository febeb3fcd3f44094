"""One partition's content from the network onto the disk."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from threading import Event

from images.fetch import HttpSource
from images.manifest import Manifest, Partition, Run
from images.target import restore


def write(
    device: str,
    partition: Partition,
    runs: Sequence[Run],
    manifest: Manifest,
    sources: Sequence[str],
    *,
    held: bool,
    verify: str,
    cancel: Event,
    progress: Callable[[int, int], None],
    log: Callable[[str], None],
) -> int:
    """Bring `partition` onto `device`; returns the bytes that came over the network. `progress` hears (bytes that are
    right, bytes that came). Raises what images.target.restore raises."""
    came = [0]

    def tell(done: int, fetched: int) -> None:
        came[0] = fetched
        progress(done, fetched)

    work = restore(
        device,
        partition.role,
        runs,
        partition.size,
        manifest.chunk_size,
        manifest.packs,
        HttpSource(sources),
        held=held,
        verify=verify,
        cancel=cancel,
        progress=tell,
    )
    log(
        f"{partition.role}: {work.to_write / 1e6:.0f} MB written, {work.to_zero / 1e6:.0f} MB zeroed, "
        f"{work.kept / 1e6:.0f} MB kept; {came[0] / 1e6:.0f} MB came over the network"
    )
    return came[0]
