"""A container image becomes a version: an OCI layout, or what `docker save` wrote."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any

from images import working
from images.errors import SourceInvalid
from images.manifest import Manifest
from images.options import Options
from images.sources.archive import Archive
from images.sources.choosing import Image, Layer, choose
from images.sources.compressed import Compressed, Readable
from images.sources.layers import LayerUnpacker
from images.sources.layout import Layout, check_blob, damaged, open_layout
from images.store import Store

PIECE = 1 << 20
MAX_AFTER = 64 << 20  # bytes of a layer after its end mark


def import_oci(
    store: Store,
    name: str,
    path: Path | IO[bytes],
    options: Options,
    *,
    reference: str = "",
    platform: str = "linux/amd64",
) -> Manifest:
    """Publish a container image as the next version of `name`. `path` is an OCI layout (a directory, or an archive of
    one), an archive of `docker save`, or an open stream of such an archive, which may be a pipe. `reference` says
    which image where there are several: a name, a tag or a digest. Every file of it is held against its digest before
    it is used, and every layer against the digest of its content. Needs root.
    Raises SourceInvalid, naming the file or the member of a layer that is missing, damaged or cannot be; Busy, NoSpace,
    CommandFailed."""
    if os.geteuid() != 0:
        raise SourceInvalid("importing a container image must set the owner of every file", "run this as root")
    if isinstance(path, Path) and not path.exists():
        raise SourceInvalid(f"{path} does not exist")
    file = path.name if isinstance(path, Path) else "stream"

    def fill(tree: Path) -> dict[str, Any]:
        with open_layout(path, tree.parent, options) as layout:
            image = choose(layout, reference, platform)
            unpack_image(layout, image, tree, options)
        return {**image.source, "file": file}

    return working.from_tree(store, name, fill, options)


def unpack_image(layout: Layout, image: Image, target: Path, options: Options) -> None:
    """Unpack the layers of an image, the lowest first, into the empty directory `target`. Needs root.
    Raises SourceInvalid, NoSpace, OSError."""
    unpacker = LayerUnpacker(target)
    for number, layer in enumerate(image.layers, 1):
        unpacker.begin()

        def tell(done: int, total: int, number: int = number) -> None:
            part = 100 * (number - 1) + 100 * done // max(total, 1)
            options.tell("unpack", min(part, 100 * number), 100 * len(image.layers))

        _layer(layout, layer, unpacker, tell)
    unpacker.finish()


class _Hashed:
    """A stream whose bytes are hashed as they are read."""

    def __init__(self, file: Readable) -> None:
        self._file = file
        self.found = hashlib.sha256()

    def read(self, size: int, /) -> bytes:
        data = self._file.read(size)
        self.found.update(data)
        return data


def _layer(layout: Layout, layer: Layer, unpacker: LayerUnpacker, tell: Callable[[int, int], None]) -> None:
    shown = f"layer {layer.name} of {layout.shown}"
    with layout.open(layer.name) as file:
        if layer.digest:
            check_blob(layout, layer.name, file, layer.digest, layer.size)
        total = file.seek(0, os.SEEK_END)
        file.seek(0)
        stream = Compressed(file, shown)
        hashed = _Hashed(stream)
        # A layer need not have an end mark: the digest of its content says whether it is whole.
        archive = Archive(hashed, shown, whole=False)
        for member in archive.members():
            unpacker.add(archive, member)
            if unpacker.count % 256 == 0:
                tell(stream.taken, total)
        after = 0
        while data := hashed.read(PIECE):
            after += len(data)
            if after > MAX_AFTER:
                raise SourceInvalid(f"{shown} goes on after its end")
    if f"sha256:{hashed.found.hexdigest()}" != layer.content:
        raise damaged(layer.name, layout)
    tell(total, total)
