"""Archives: what GNU tar packs comes out the same, and what would escape is named and refused."""

from __future__ import annotations

import contextlib
import gzip
import io
import os
import subprocess
import tarfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from images.errors import ImageError, NoSpace, SourceInvalid
from images.options import Options
from images.sources.acl import encode_acl
from images.sources.tar import import_tar, unpack
from images.store import Store
from tests.images.test_treesync import grow, picture
from tests.images.tinytree import tiny_tree

pytestmark = [pytest.mark.root, pytest.mark.skipif(os.geteuid() != 0, reason="needs root")]


Fields = dict[str, Any]


def archive(*members: tuple[str, Fields], data: bytes = b"") -> io.BytesIO:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for name, fields in members:
            entry = tarfile.TarInfo(name)
            body = data if fields.get("type", tarfile.REGTYPE) == tarfile.REGTYPE else b""
            entry.size = len(body)
            for key, value in fields.items():
                setattr(entry, key, value)
            tar.addfile(entry, io.BytesIO(body))
    return io.BytesIO(buffer.getvalue())


LINK: Fields = {"type": tarfile.LNKTYPE}
SYM: Fields = {"type": tarfile.SYMTYPE}
DIR: Fields = {"type": tarfile.DIRTYPE}
CHR: Fields = {"type": tarfile.CHRTYPE}


@pytest.mark.parametrize(
    ("members", "reason"),
    [
        ([("../up", {})], "leads out"),
        ([("a/../../up", {})], "leads out"),
        ([("n" * 256, {})], "impossible name"),
        ([("evil", {**SYM, "linkname": "/etc"}), ("evil/passwd", {})], "not a directory"),
        ([("d", DIR), ("d", {**SYM, "linkname": "/etc"}), ("d/passwd", {})], "later something else"),
        ([("file", {}), ("file/below", {})], "not a directory"),
        ([("h", {**LINK, "linkname": "/etc/passwd"})], "not unpacked before"),
        ([("h", {**LINK, "linkname": "../x"})], "leads out"),
        ([("evil", {**SYM, "linkname": "/etc"}), ("h", {**LINK, "linkname": "evil/passwd"})], "not unpacked before"),
        ([("d", DIR), ("h", {**LINK, "linkname": "d"})], "not unpacked before"),
        ([("usr/disk", {**CHR, "devmajor": 8, "devminor": 0})], "device outside dev/"),
        ([("a", {"uid": -1})], "no number"),
        ([("a", {"uid": 0xFFFFFFFF})], "impossible owner"),
        ([("a", {"pax_headers": {"SCHILY.xattr.system.evil": "x"}})], "not allowed"),
        ([("a", {"pax_headers": {"SCHILY.acl.access": "user:bob:rwx"}})], "ACL entry"),
        ([("a", {"type": b"Z"})], "of a kind"),
    ],
)
def test_hostile_members_are_named_and_refused(tmp_path: Path, members: list[tuple[str, Fields]], reason: str) -> None:
    (tmp_path / "target").mkdir()
    with pytest.raises(SourceInvalid, match=reason):
        unpack(archive(*members), tmp_path / "target")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["target"]


def test_a_link_of_an_archive_is_kept_but_never_followed(tmp_path: Path) -> None:
    (tmp_path / "target").mkdir()
    (tmp_path / "outside").write_text("mine")
    members = [("l", {**SYM, "linkname": str(tmp_path / "outside")}), ("l", {}), ("m", {**SYM, "linkname": "l"})]
    members.append(("n", {**LINK, "linkname": "m"}))
    unpack(archive(*members, data=b"theirs"), tmp_path / "target")
    assert (tmp_path / "outside").read_text() == "mine" and (tmp_path / "target/l").read_text() == "theirs"
    assert os.readlink(tmp_path / "target/n") == "l"


def test_declared_sizes_are_held_against_the_disk(tmp_path: Path) -> None:
    (tmp_path / "target").mkdir()
    with pytest.raises(NoSpace, match="'big'"):
        entry = tarfile.TarInfo("big")
        entry.size = 1 << 60
        unpack(io.BytesIO(entry.tobuf(tarfile.GNU_FORMAT) + bytes(10240)), tmp_path / "target")


@pytest.mark.parametrize("seed", range(4))
def test_gnu_tar_and_back(tmp_path: Path, seed: int) -> None:
    source, target = grow(tmp_path / "source", seed), tmp_path / "target"
    for device in [p for p in source.rglob("*") if p.is_char_device() or p.is_block_device()]:
        device.unlink()
    target.mkdir()
    argv = ["tar", "-C", str(source), "--xattrs", "--xattrs-include=*", "--numeric-owner", "-c", "."]
    unpack(io.BytesIO(subprocess.run(argv, capture_output=True, check=True).stdout), target)
    assert picture(target) == picture(source)


def test_acls_and_capabilities_come_through(tmp_path: Path) -> None:
    (tmp_path / "source").mkdir()
    (tmp_path / "target").mkdir()
    path = tmp_path / "source/file"
    path.write_text("x")
    (tmp_path / "source/etc").mkdir()
    (tmp_path / "source/etc/passwd").write_text("root:x:0:0::/:\nlp:x:7:7::/:\n")
    acl = encode_acl("user::rw-,user:7:r-x,group::r--,mask::rwx,other::---", {})
    os.setxattr(path, "system.posix_acl_access", acl)
    capability = bytes.fromhex("0100000200200000000000000000000000000000")
    os.setxattr(path, "security.capability", capability)
    argv = [
        "tar",
        "-C",
        str(tmp_path / "source"),
        "--acls",
        "--xattrs",
        "--xattrs-include=*",
        "--numeric-owner",
        "-c",
        ".",
    ]
    unpack(io.BytesIO(subprocess.run(argv, capture_output=True, check=True).stdout), tmp_path / "target")
    assert os.getxattr(tmp_path / "target/file", "system.posix_acl_access") == acl
    assert os.getxattr(tmp_path / "target/file", "security.capability") == capability


def test_an_archive_becomes_a_version(tmp_path: Path) -> None:
    tree = tiny_tree(tmp_path / "tree")
    argv = ["tar", "-C", str(tree), "--xattrs", "--numeric-owner", "-cz", "."]
    (tmp_path / "t.tar.gz").write_bytes(subprocess.run(argv, capture_output=True, check=True).stdout)
    store = Store(tmp_path / "store")
    manifest = import_tar(store, "x", tmp_path / "t.tar.gz", Options())
    assert manifest.source == {"kind": "tar", "file": "t.tar.gz"} and store.verify("x") == []
    with (tmp_path / "t.tar.gz").open("rb") as stream:
        assert import_tar(store, "x", stream, Options()).version == 2


@pytest.mark.parametrize("damage", ["junk", "cut", "cut gzip", "no system", "nothing"])
def test_broken_archives_say_so_and_leave_nothing(tmp_path: Path, damage: str) -> None:
    whole = archive(("usr", DIR), ("etc", DIR), ("etc/file", {}), data=os.urandom(50_000)).getvalue()
    data = {
        "junk": b"junk" * 5000,
        "cut": whole[:30_000],
        "cut gzip": gzip.compress(whole)[:20_000],
        "no system": archive(("home/file", {})).getvalue(),
        "nothing": b"",
    }[damage]
    (tmp_path / "t.tar").write_bytes(data)
    store = Store(tmp_path / "store")
    with pytest.raises(SourceInvalid):
        import_tar(store, "x", tmp_path / "t.tar", Options())
    assert store.images() == [] and not (store.work("x") / "tree").exists()


@given(st.binary(min_size=1, max_size=60), st.integers(0, 6000))
@settings(max_examples=150, deadline=None)
def test_any_bytes_unpack_or_give_one_error(tmp_path_factory: pytest.TempPathFactory, noise: bytes, at: int) -> None:
    whole = archive(
        ("usr/a", {}), ("l", {**SYM, "linkname": "usr"}), ("h", {**LINK, "linkname": "usr/a"}), data=b"x" * 600
    )
    data = bytearray(whole.getvalue())
    data[at : at + len(noise)] = noise
    target = tmp_path_factory.mktemp("t")
    with contextlib.suppress(ImageError, tarfile.TarError, OSError, EOFError, UnicodeError):
        unpack(io.BytesIO(bytes(data)), target)
