"""How large the one file is, and what a machine has to load before it can say hello."""

from __future__ import annotations

import zipfile
from collections.abc import Iterator

from tests.bench.rig import PYZ, Rig, Row, at_most


def run(rig: Rig) -> Iterator[Row]:
    """In MB (10^6 bytes)."""
    yield at_most("size", "gild.pyz", PYZ.stat().st_size / 1e6, 60, "MB")
    with zipfile.ZipFile(PYZ) as archive:
        boot = sum(archive.getinfo(f"payload/{name}").file_size for name in ("vmlinuz", "initrd.img"))
    yield at_most("size", "kernel + initramfs", boot / 1e6, 34, "MB")
