"""The readers of archives, container images, ELF files and a module's own description against damaged files: each
returns, or raises its one documented error, never says there is more than the file holds, and never writes outside of
the directory it was given.

The corpus is replayed as it is, then damaged with a fixed seed, so that a failure comes back.
"""

from __future__ import annotations

import contextlib
import io
import json
import lzma
import os
import random
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from images.errors import ImageError, SourceInvalid
from images.sources.archive import Archive
from images.sources.choosing import MAX_LAYERS, choose
from images.sources.kind import looks_like_stream
from images.sources.layers import LayerUnpacker
from images.sources.names import clean
from images.sources.tar import unpack
from netboot import cpio, kmods
from netboot.agent import modules
from netboot.elf import Elf, ElfInvalid
from tests.images.handmade import DIR, SYM, archive, sha

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


def sealed(data: bytes) -> bytes:
    """A damaged tar archive with the checksums of its headers set right, so that what is in them is looked at."""
    out = bytearray(data)
    for at in range(0, len(out) - 511, 512):
        if out[at + 257 : at + 262] == b"ustar":
            out[at + 148 : at + 156] = b"        "
            out[at + 148 : at + 156] = b"%06o\0 " % sum(out[at : at + 512])
    return bytes(out)


def test_tar() -> None:
    whole = 0
    for data in cases("tar", 3000):
        for form in {data, sealed(data)}:
            assert looks_like_stream(io.BytesIO(form))[0] in ("tar", "unknown", "oci", "docker", "disk:raw"), form
            total, reader = 0, Archive(io.BytesIO(form), "fuzz")
            try:
                for member in reader.members():
                    end = 0
                    for at, piece in reader.pieces():
                        assert end <= at and at + len(piece) <= member.size, form
                        end, total = at + len(piece), total + len(piece)
            except SourceInvalid:
                continue
            finally:
                assert total <= len(form), form
            whole += 1
    assert whole > 500


@pytest.fixture
def inside(tmp_path: Path) -> Iterator[Path]:
    """A place for trees beside which nothing may change."""
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside/file").write_text("mine")
    before = os.stat(tmp_path / "outside/file"), os.stat(tmp_path / "outside")
    (tmp_path / "trees").mkdir()
    yield tmp_path / "trees"
    assert (os.stat(tmp_path / "outside/file"), os.stat(tmp_path / "outside")) == before
    assert os.listdir(tmp_path / "outside") == ["file"] and sorted(os.listdir(tmp_path)) == ["outside", "trees"]


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
def test_unpacking(inside: Path) -> None:
    whole = 0
    for number, data in enumerate(cases("tar", 700)):
        form = sealed(data)
        target = inside / "tree"
        target.mkdir()
        with contextlib.suppress(ImageError):
            whole += unpack(io.BytesIO(form), target) > 0
        taken = sum(os.lstat(os.path.join(d, f)).st_blocks * 512 for d, _, files in os.walk(target) for f in files)
        assert taken <= 3 * len(form) + 4096 * 40, form
        assert os.listdir(inside) == ["tree"], number
        shutil.rmtree(target)
    assert whole > 100


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
def test_layers(inside: Path) -> None:
    """A damaged layer over a sound one whose links lead out."""
    lower = archive(
        ("usr/bin/env", {"data": b"x"}),
        ("bin", {**SYM, "linkname": "usr/bin"}),
        ("up", {**SYM, "linkname": "../../outside"}),
        ("out", {**SYM, "linkname": os.fspath(inside.parent / "outside")}),
        ("d", DIR),
        ("d/up", {**SYM, "linkname": "../../../../../../../../.." + os.fspath(inside.parent / "outside")}),
    )
    whole = 0
    for data in cases("layer", 350):
        target = inside / "tree"
        target.mkdir()
        unpacker = LayerUnpacker(target)
        try:
            for layer in (lower, sealed(data)):
                unpacker.begin()
                reader = Archive(io.BytesIO(layer), "fuzz", whole=False)
                for member in reader.members():
                    unpacker.add(reader, member)
            unpacker.finish()
            whole += 1
        except ImageError:
            pass
        assert os.listdir(inside) == ["tree"], data
        shutil.rmtree(target)
    assert whole > 50


class Files:
    """A layout in memory."""

    shown = "fuzz"

    def __init__(self, files: dict[str, bytes]) -> None:
        self._files = files

    def has(self, name: str) -> bool:
        return clean(name) in self._files

    def open(self, name: str) -> io.BytesIO:
        if clean(name) not in self._files:
            raise SourceInvalid(f"no {name!r}")
        return io.BytesIO(self._files[clean(name)])


def test_container_images() -> None:
    """Damaged JSON in each place where JSON is read, with digests that are right."""
    whole = 0
    for data in cases("oci", 3000):
        size, place = len(data), "blobs/" + sha(data).replace(":", "/")
        named = {"digest": sha(data), "size": size}
        manifest = json.dumps({
            "config": {**named, "mediaType": "application/vnd.oci.image.config.v1+json"},
            "layers": [{**named, "mediaType": "application/vnd.oci.image.layer.v1.tar"}] * 2,
        }).encode()  # fmt: skip
        index = {"mediaType": "application/vnd.oci.image.manifest.v1+json", "annotations": {"x": "y"}}
        above = {**index, "digest": sha(manifest), "size": len(manifest)}
        listed = [{"Config": place, "RepoTags": ["a:b"], "Layers": [place, place]}]
        for files in (
            {"index.json": data, place: data},
            {"index.json": json.dumps({"manifests": [{**index, **named}]}).encode(), place: data},
            {"index.json": json.dumps({"manifests": [above]}).encode(), place: data,
             "blobs/" + sha(manifest).replace(":", "/"): manifest},
            {"manifest.json": data, place: data},
            {"manifest.json": json.dumps(listed).encode(), place: data},
        ):  # fmt: skip
            try:
                image = choose(Files(files), "", "linux/amd64")
            except SourceInvalid as error:
                assert len(error.message) < 1000 and error.message.isprintable(), data
                continue
            assert 0 < len(image.layers) <= MAX_LAYERS, data
            assert len(json.dumps(image.source)) < 1 << 20, data
            whole += 1
    assert whole > 20
