"""Container images become versions: what their layers make, which of several is meant, and nothing on trust."""

from __future__ import annotations

import bz2
import gzip
import hashlib
import io
import json
import lzma
import os
import subprocess
import tarfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import zstandard

from images.errors import NoSpace, SourceInvalid
from images.ext4 import EPOCH
from images.namespace import in_private_namespace, mounted
from images.options import Options
from images.sources.choosing import choose
from images.sources.directory import import_directory
from images.sources.layout import DirectoryLayout, open_layout
from images.sources.oci import import_oci, unpack_image
from images.store import Store
from images.working import restore
from tests.images.handmade import DIR, OCI_INDEX, OCI_LAYER, SYM, Fields, Layout, archive, docker_save, sha
from tests.images.sametree import differences
from tests.images.sound import damaged
from tests.images.tinytree import tiny_tree

pytestmark = [pytest.mark.root, pytest.mark.skipif(os.geteuid() != 0, reason="needs root")]

NAMED = ("boot/grub/grub.cfg", "etc/fstab")  # name the filesystem, whose number is made of the lineage's name
ONE = archive(("a", {"data": b"1"}), ("d/x", {"data": b"x"}))
TWO = archive(("a", {"data": b"2"}), ("d/.wh.x", {}))


def tree_layer(path: Path) -> bytes:
    """A tiny system as one layer."""
    tree = tiny_tree(path)
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as tar:

        def member(info: tarfile.TarInfo) -> tarfile.TarInfo:
            place = tree / info.name
            records: dict[str, str] = {}
            info.pax_headers = records
            for name in os.listxattr(place, follow_symlinks=False):
                value = os.getxattr(place, name, follow_symlinks=False)
                records[f"SCHILY.xattr.{name}"] = value.decode("utf-8", "surrogateescape")
            info.mtime = int(info.mtime)
            return info

        tar.errors = "surrogateescape"
        tar.add(tree, ".", filter=member)
    return buffer.getvalue()


def unpacked(path: Path, tmp_path: Path, reference: str = "", platform: str = "linux/amd64") -> dict[str, str]:
    target = tmp_path / "target"
    target.mkdir()
    with open_layout(path, tmp_path, Options()) as layout:
        unpack_image(layout, choose(layout, reference, platform), target, Options())
    return {os.fspath(p.relative_to(target)): p.read_text() for p in target.rglob("*") if p.is_file()}


def test_a_container_image_becomes_a_version(tmp_path: Path) -> None:
    layout = Layout()
    capability = bytes.fromhex("0100000200200000000000000000000000000000").decode("utf-8", "surrogateescape")
    ping: Fields = {"data": b"ping", "mode": 0o755, "pax_headers": {"SCHILY.xattr.security.capability": capability}}
    second = archive(
        ("usr/bin/ping", ping),
        ("bin", {**SYM, "linkname": "usr/bin"}),
        ("bin/env3", {"type": tarfile.LNKTYPE, "linkname": "bin/env"}),
        ("etc/.wh.resolv.conf", {}),
        ("usr/lib/text", DIR),
    )
    config = {"created": "2024-01-02T03:04:05Z", "config": {"Env": ["PATH=/bin"], "Cmd": ["sh"]},
              "history": [{"created_by": "ADD / \x1b[31m"}, {"comment": "x" * 1000}]}  # fmt: skip
    image = layout.image([tree_layer(tmp_path / "tree"), second], name="system", config=config)
    layout.add(image).write(tmp_path / "layout")

    # What the second layer does, by hand.
    tree = tmp_path / "tree"
    times = {place: (tree / place).stat().st_mtime for place in (".", "etc", "usr/bin", "usr/lib")}
    (tree / "usr/bin/ping").write_bytes(b"ping")
    os.chmod(tree / "usr/bin/ping", 0o755)
    os.setxattr(tree / "usr/bin/ping", "security.capability", capability.encode("utf-8", "surrogateescape"))
    os.symlink("usr/bin", tree / "bin")
    os.link(tree / "usr/bin/env", tree / "usr/bin/env3")
    os.unlink(tree / "etc/resolv.conf")
    os.unlink(tree / "usr/lib/text")
    (tree / "usr/lib/text").mkdir()
    for path in (tree / "usr/bin/ping", tree / "usr/lib/text"):
        os.utime(path, (0, 0))
    os.utime(tree / "bin", (0, 0), follow_symlinks=False)
    for place, when in times.items():
        os.utime(tree / place, (when, when))

    store = Store(tmp_path / "store")
    told: list[tuple[str, int, int]] = []
    options = Options(message="first", progress=lambda *state: told.append(state))
    manifest = import_oci(store, "x", tmp_path / "layout", options)
    assert manifest.source == {
        "kind": "oci",
        "digest": image["digest"],
        "reference": "system",
        "platform": "linux/amd64",
        "created": "2024-01-02T03:04:05Z",
        "config": {"Env": ["PATH=/bin"], "Cmd": ["sh"]},
        "history": ["ADD /  [31m", "x" * 300],
        "file": "layout",
    }
    assert damaged(store, "x") == [] and manifest.message == "first"
    assert [s for s in told if s[0] == "unpack"][-1] == ("unpack", 200, 200)

    # The same tree, imported as it lies there, is the same version.
    other = import_directory(store, "y", tree, Options())
    for number, version in enumerate((manifest, other)):
        restore(store, version, 0, tmp_path / f"{number}.img")
        (tmp_path / f"mount{number}").mkdir()

    def compare() -> list[str]:
        with (
            mounted(tmp_path / "0.img", tmp_path / "mount0", read_only=True),
            mounted(tmp_path / "1.img", tmp_path / "mount1", read_only=True),
        ):
            return differences(tmp_path / "mount0", tmp_path / "mount1", ignore=NAMED)

    # What publishing itself writes has the time EPOCH, or was written in the very tick of the clock it began in.
    assert [line for line in in_private_namespace(compare) if str(EPOCH) not in line] == []


@pytest.mark.parametrize(
    ("pack", "media"),
    [
        (gzip.compress, "+gzip"),
        (lambda data: zstandard.ZstdCompressor().compress(data), "+zstd"),
        (lambda data: data, ""),
        (lambda data: gzip.compress(data[:700]) + gzip.compress(data[700:]), "+gzip"),
        (lambda data: zstandard.ZstdCompressor().compress(data), "+gzip"),
    ],
)
def test_layers_of_every_compression(tmp_path: Path, pack: Callable[[bytes], bytes], media: str) -> None:
    layout = Layout()
    layout.add(layout.image([ONE, TWO], pack=pack, media=OCI_LAYER + media)).write(tmp_path / "layout")
    assert unpacked(tmp_path / "layout", tmp_path) == {"a": "2"}


@pytest.mark.parametrize("pack", [bytes, gzip.compress, bz2.compress, lzma.compress, zstandard.compress])
def test_an_archive_of_a_layout(tmp_path: Path, pack: Callable[[bytes], bytes]) -> None:
    layout = Layout()
    data = pack(layout.add(layout.image([ONE, TWO])).tar())
    (tmp_path / "layout.tar").write_bytes(data)
    assert unpacked(tmp_path / "layout.tar", tmp_path) == {"a": "2"}
    (tmp_path / "again").mkdir()
    with open_layout(io.BytesIO(data), tmp_path, Options()) as opened:
        unpack_image(opened, choose(opened, "", "linux/amd64"), tmp_path / "again", Options())
    assert (tmp_path / "again/a").read_text() == "2"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["again", "layout.tar", "target"]


def test_docker_save_with_a_layer_that_is_a_link(tmp_path: Path) -> None:
    saved = docker_save((["one:latest"], [ONE]), (["example.org/two:3", "two:latest"], [ONE, TWO]), (None, [TWO]))
    (tmp_path / "saved.tar").write_bytes(saved)
    assert unpacked(tmp_path / "saved.tar", tmp_path, "two") == {"a": "2"}
    with open_layout(tmp_path / "saved.tar", tmp_path, Options()) as layout:
        one = choose(layout, "one", "linux/amd64")
        assert one.source["reference"] == "one:latest" and [layer.content for layer in one.layers] == [sha(ONE)]
        assert choose(layout, one.source["digest"], "linux/amd64") == one
        assert choose(layout, one.source["digest"][7:19], "linux/amd64") == one
        with pytest.raises(SourceInvalid, match=r"more than one image.*example\.org/two:3, one:latest"):
            choose(layout, "", "linux/amd64")
        with pytest.raises(SourceInvalid, match=r"no image 'three'.*there are: "):
            choose(layout, "three", "linux/amd64")
        with pytest.raises(SourceInvalid, match="is for linux/amd64, not for linux/arm64"):
            choose(layout, "one", "linux/arm64")


def test_which_image_is_meant(tmp_path: Path) -> None:
    layout = Layout()
    here, there = layout.image([ONE]), layout.image([TWO], machine="arm64")
    index = {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": [here, there]}
    notes = {"io.containerd.image.name": "docker.io/library/debian:12", "org.opencontainers.image.ref.name": "12"}
    both = layout.blob(json.dumps(index).encode(), OCI_INDEX, annotations=notes)
    built = {**layout.image([TWO]), "annotations": {"vnd.docker.reference.type": "attestation-manifest"}}
    other = layout.image([TWO, ONE], name="other", platform=False)
    layout.add(both, built, other).write(tmp_path / "layout")
    directory = DirectoryLayout(tmp_path / "layout")

    def content(reference: str, platform: str = "linux/amd64") -> list[str]:
        return [layer.content for layer in choose(directory, reference, platform).layers]

    for name in ("12", "debian:12", "docker.io/library/debian:12", both["digest"]):
        assert content(name) == [sha(ONE)]
    assert content("debian:12", "linux/arm64") == [sha(TWO)] == content(there["digest"], "linux/arm64")
    assert content("other") == [sha(TWO), sha(ONE)] == content(other["digest"])
    assert choose(directory, "debian:12", "linux/amd64").source["reference"] == "docker.io/library/debian:12"
    for reference, platform, reason in (
        ("", "linux/amd64", r"more than one image, say which \(there are: docker.io/library/debian:12, other\)"),
        ("13", "linux/amd64", "no image '13'.*there are: docker.io/library/debian:12, other"),
        ("12", "linux/s390x", "no image for linux/s390x.*there is: linux/amd64, linux/arm64"),
        ("other", "linux/arm64", "is for linux/amd64, not for linux/arm64"),
        ("12", "amd64", "is no platform"),
    ):
        with pytest.raises(SourceInvalid, match=reason):
            choose(directory, reference, platform)


def test_of_two_variants_the_plainest(tmp_path: Path) -> None:
    layout = Layout()
    images = []
    for variant, layer in (("v3", TWO), ("v2", ONE)):
        image = layout.image([layer])
        images.append({**image, "platform": {"os": "linux", "architecture": "amd64", "variant": variant}})
    directory = DirectoryLayout(layout.add(*images).write(tmp_path / "layout"))
    assert choose(directory, "", "linux/amd64").layers[0].content == sha(ONE)
    assert choose(directory, "", "linux/amd64/v3").layers[0].content == sha(TWO)


def nested(depth: int) -> Layout:
    layout = Layout()
    inner = layout.image([ONE])
    for _ in range(depth):
        inner = layout.blob(json.dumps({"manifests": [inner]}).encode(), OCI_INDEX)
    return layout.add(inner)


def with_layer(**fields: Any) -> Layout:
    """A layout whose manifest describes its layer otherwise."""
    layout = Layout()
    layer = {**layout.blob(gzip.compress(ONE), OCI_LAYER + "+gzip"), **fields}
    return layout.add(layout.image([ONE], manifest={"layers": [layer]}))


def without(part: str) -> Layout:
    layout = Layout()
    layout.add(layout.image([ONE]))
    wanted = {"layer": b"\x1f\x8b", "config": b'{"os"', "manifest": b'{"schema'}[part]
    layout.blobs = {digest: data for digest, data in layout.blobs.items() if not data.startswith(wanted)}
    return layout


def changed(**manifest: Any) -> Layout:
    layout = Layout()
    return layout.add(layout.image([ONE], manifest=manifest))


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (lambda: nested(6), "nested more than 4 deep"),
        (lambda: without("layer"), "has no 'blobs/sha256/.*not whole"),
        (lambda: without("config"), "has no 'blobs/sha256/.*not whole"),
        (lambda: without("manifest"), "has no 'blobs/sha256/.*not whole"),
        (lambda: with_layer(size=3), "is damaged"),
        (lambda: with_layer(digest=sha(b"other")), "has no 'blobs"),
        (lambda: with_layer(digest="sha512:" + "0" * 128), "no sha256"),
        (lambda: with_layer(digest="sha256:../../../../etc/passwd"), "no sha256"),
        (lambda: with_layer(size="3"), "the size '3'"),
        (lambda: with_layer(size=-1), "the size '-1'"),
        (lambda: with_layer(mediaType="application/vnd.cncf.helm.chart.v1.tar+gzip"), "is no layer of files"),
        (lambda: changed(layers=[]), "has 0 layers and names the content of 1"),
        (lambda: changed(layers="all"), "has no list"),
        (lambda: changed(layers=[1]), "no JSON object"),
        (lambda: changed(config={"mediaType": "application/x", "digest": sha(b""), "size": 0}), "is no image but"),
        (lambda: Layout().add({"mediaType": OCI_INDEX}), "no sha256"),
        (lambda: Layout(), "no image for linux/amd64"),
    ],
)
def test_a_layout_that_is_not_whole_says_what(tmp_path: Path, make: Callable[[], Layout], reason: str) -> None:
    store = Store(tmp_path / "store")
    (tmp_path / "x.tar").write_bytes(make().tar())
    for path in (make().write(tmp_path / "layout"), tmp_path / "x.tar"):
        with pytest.raises(SourceInvalid, match=reason):
            import_oci(store, "x", path, Options())
    assert store.images() == [] and not (store.work("x") / "tree").exists()


def test_a_damaged_blob_is_named(tmp_path: Path) -> None:
    layout = Layout()
    layout.add(layout.image([ONE])).write(tmp_path / "layout")
    for digest in layout.blobs:
        path = tmp_path / "layout/blobs" / digest.replace(":", "/")
        good = path.read_bytes()
        path.write_bytes(good[:40] + bytes([good[40] ^ 1]) + good[41:])
        with pytest.raises(SourceInvalid, match=rf"{digest[7:]}' in .* is damaged"):
            unpacked(tmp_path / "layout", tmp_path)
        path.write_bytes(good)
        if (tmp_path / "target").exists():
            (tmp_path / "target").rmdir()
    assert unpacked(tmp_path / "layout", tmp_path) == {"a": "1", "d/x": "x"}


def test_a_layer_with_another_content_than_its_config_says(tmp_path: Path) -> None:
    layout = Layout()
    config = {"rootfs": {"type": "layers", "diff_ids": [sha(TWO)]}}
    layout.add(layout.image([ONE], config=config)).write(tmp_path / "layout")
    with pytest.raises(SourceInvalid, match="is damaged"):
        unpacked(tmp_path / "layout", tmp_path)


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("index.json", b"[" * 100_000),
        ("index.json", b'{"manifests": [' + b"9" * 10_000 + b"]}"),
        ("index.json", b"\xff\xfe\x00"),
        ("index.json", b"[]"),
        ("index.json", b'{"manifests": {}}'),
        ("index.json", b" " * (5 << 20)),
        ("oci-layout", b'{"imageLayoutVersion": "2.0"}'),
        ("oci-layout", b"null"),
    ],
)
def test_json_that_is_none(tmp_path: Path, name: str, data: bytes) -> None:
    layout = Layout()
    layout.add(layout.image([ONE])).write(tmp_path / "layout")
    (tmp_path / "layout" / name).write_bytes(data)
    with pytest.raises(SourceInvalid, match=name):
        choose(DirectoryLayout(tmp_path / "layout"), "", "linux/amd64")


def test_a_directory_layout_is_not_left_by_a_link(tmp_path: Path) -> None:
    layout = Layout()
    layout.add(layout.image([ONE])).write(tmp_path / "layout")
    (tmp_path / "layout/index.json").rename(tmp_path / "outside.json")
    os.symlink(tmp_path / "outside.json", tmp_path / "layout/index.json")
    with pytest.raises(SourceInvalid, match="leads out"):
        choose(DirectoryLayout(tmp_path / "layout"), "", "linux/amd64")
    (tmp_path / "layout/index.json").unlink()
    os.mkfifo(tmp_path / "layout/index.json")
    with pytest.raises(SourceInvalid, match=r"neither index\.json"):
        choose(DirectoryLayout(tmp_path / "layout"), "", "linux/amd64")


def test_what_is_no_image_at_all(tmp_path: Path) -> None:
    store = Store(tmp_path / "store")
    (tmp_path / "x.tar").write_bytes(archive(("a", {})))
    for path, reason in ((tmp_path, "no container image"), (tmp_path / "x.tar", "no container image"),
                         (tmp_path / "none", "does not exist")):  # fmt: skip
        with pytest.raises(SourceInvalid, match=reason):
            import_oci(store, "x", path, Options())


def test_every_byte_of_the_layers_is_hashed(tmp_path: Path) -> None:
    """What stands behind a layer's end mark is part of its content too, up to a limit."""
    longer = ONE + bytes(100_000)
    assert hashlib.sha256(longer).digest() != hashlib.sha256(ONE).digest()
    layout = Layout()
    layout.add(layout.image([longer])).write(tmp_path / "layout")
    assert unpacked(tmp_path / "layout", tmp_path) == {"a": "1", "d/x": "x"}
    endless = Layout()
    endless.add(endless.image([ONE + bytes(65 << 20)])).write(tmp_path / "endless")
    (tmp_path / "target").rename(tmp_path / "old")
    with pytest.raises(SourceInvalid, match="goes on after its end"):
        unpacked(tmp_path / "endless", tmp_path)


def test_an_archive_through_a_pipe(tmp_path: Path) -> None:
    layout = Layout()
    data = layout.add(layout.image([tree_layer(tmp_path / "tree")])).tar()
    (tmp_path / "x.tar").write_bytes(data)
    store = Store(tmp_path / "store")
    with subprocess.Popen(["cat", tmp_path / "x.tar"], stdout=subprocess.PIPE) as program:
        assert program.stdout is not None
        manifest = import_oci(store, "x", program.stdout, Options())
    assert manifest.source["file"] == "stream" and damaged(store, "x") == []
    assert sorted(p.name for p in store.work("x").iterdir()) == ["current"]


def test_an_archive_larger_than_the_disk_gives_all_space_back(tmp_path: Path) -> None:
    """Compressed, so that it has to be copied: once too large by itself, once with what is unpacked from it."""
    (tmp_path / "disk").mkdir()
    files = [archive((f"usr/{n}", {"data": bytes(48 << 20)})) for n in range(4)]

    def body(count: int) -> int:
        size = ["-o", "size=200m", "gild-test", os.fspath(tmp_path / "disk")]
        subprocess.run(["mount", "-t", "tmpfs", *size], check=True)
        layout = Layout()
        layout.add(layout.image(files[:count], pack=bytes, media=OCI_LAYER))
        with pytest.raises(NoSpace, match="the disk has"):
            import_oci(Store(tmp_path / "disk/store"), "x", io.BytesIO(gzip.compress(layout.tar(), 1)), Options())
        status = os.statvfs(tmp_path / "disk")
        return (status.f_blocks - status.f_bfree) * status.f_bsize

    for count in (4, 2):
        assert in_private_namespace(partial(body, count)) < 1 << 20
