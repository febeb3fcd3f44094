"""One restore, as the agent does it, standard library alone: BASE-URL MANIFEST RUNS DEVICE."""

from __future__ import annotations

import sys

from images.fetch import HttpSource
from images.manifest import decode_manifest, decode_runs
from images.target import restore


def main(base: str, manifest_file: str, runs_file: str, device: str) -> None:
    """Manifest and runs are read from files; every chunk comes over the network."""
    with open(manifest_file, "rb") as file:
        manifest = decode_manifest(file.read())
    part = manifest.partitions[0]
    with open(runs_file, "rb") as file:
        runs = decode_runs(file.read(), size=part.size, chunk_size=manifest.chunk_size, packs=len(manifest.packs))
    restore(device, part.role, runs, part.size, manifest.chunk_size, manifest.packs, HttpSource([base]))


if __name__ == "__main__":
    main(*sys.argv[1:])
