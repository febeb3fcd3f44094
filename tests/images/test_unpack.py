"""Unpacking archives: what GNU tar packs comes out the same, and what would escape is named and refused."""

from __future__ import annotations

import contextlib
import io
import os
import shutil
import stat
import subprocess
import tarfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import images.sources.unpack
from images.errors import ImageError, NoSpace, SourceInvalid
from images.sources.tar import unpack
from tests.images.handmade import CHR, DIR, FIFO, LINK, SYM, Fields, Members, archive
from tests.images.richtree import ACL, GNU_TAR, LABEL, rich_tree
from tests.images.sametree import differences
from tests.images.test_treesync import grow

pytestmark = [pytest.mark.root, pytest.mark.skipif(os.geteuid() != 0, reason="needs root")]


def packed(source: Path, argv: list[str], target: Path) -> None:
    """Pack `source` with a program and unpack what comes out of its pipe."""
    target.mkdir()
    with subprocess.Popen([*argv, "-c", "."], cwd=source, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as program:
        assert program.stdout is not None
        unpack(program.stdout, target)
        program.stdout.read()


@pytest.mark.parametrize("sparse", ["--sparse-version=1.0", "--sparse-version=0.1", "--sparse-version=0.0"])
def test_everything_a_golden_client_has(tmp_path: Path, sparse: str) -> None:
    source = rich_tree(tmp_path / "source")
    packed(source, [*GNU_TAR, sparse], tmp_path / "target")
    assert differences(source, tmp_path / "target", ignore=["var/hole"]) == []
    hole = tmp_path / "target/var/hole"
    assert hole.stat().st_size == 3_000_000_000 and hole.stat().st_blocks < 100
    with hole.open("rb") as file:
        assert os.pread(file.fileno(), 10, 2_500_000_000 - 3) == b"\0\0\0data\0\0\0"


@pytest.mark.parametrize("form", ["gnu", "oldgnu"])
def test_formats_without_attributes(tmp_path: Path, form: str) -> None:
    source = rich_tree(tmp_path / "source")
    (source / "var/hole").unlink()
    os.utime(source / "var", (1_500_000_000, 1_500_000_000))
    packed(source, ["tar", f"--format={form}", "--numeric-owner", "--sparse"], tmp_path / "target")
    assert [line for line in differences(source, tmp_path / "target") if ": attribute " not in line] == []


def test_acls_in_words_only(tmp_path: Path) -> None:
    """Without --xattrs tar writes ACLs with the names of the client, which its own passwd explains."""
    source = rich_tree(tmp_path / "source")
    packed(source, ["tar", "--format=posix", "--acls", "--sparse"], tmp_path / "target")
    for name, attribute in (("attributes", "access"), ("acl", "access"), ("acl", "default"), ("acl/below", "default")):
        assert os.getxattr(tmp_path / "target/var" / name, f"system.posix_acl_{attribute}") == ACL
    assert os.listxattr(tmp_path / "target/var/acl/before") == []


@pytest.mark.skipif(shutil.which("bsdtar") is None, reason="needs bsdtar")
def test_bsdtar(tmp_path: Path) -> None:
    source = rich_tree(tmp_path / "source")
    (source / "var/hole").unlink()
    os.utime(source / "var", (1_500_000_000, 1_500_000_000))
    packed(source, ["bsdtar", "--format=pax", "--acls", "--xattrs", "--numeric-owner"], tmp_path / "target")
    # It packs neither trusted.* nor the "%" in an attribute's name as it is.
    allowed = ("attribute trusted.", "attribute user.=")
    assert [line for line in differences(source, tmp_path / "target") if not any(a in line for a in allowed)] == []


@pytest.mark.parametrize("seed", range(4))
def test_gnu_tar_and_back(tmp_path: Path, seed: int) -> None:
    source, target = grow(tmp_path / "source", seed), tmp_path / "target"
    for device in [p for p in source.rglob("*") if p.is_char_device() or p.is_block_device() or p.is_fifo()]:
        device.unlink()
    packed(source, GNU_TAR, target)
    assert differences(source, target) == []


@pytest.mark.parametrize(
    ("members", "reason"),
    [
        ([("../up", {})], "leads out"),
        ([("a/../../up", {})], "leads out"),
        ([("/..", DIR)], "leads out"),
        ([("n" * 256, {})], "impossible name"),
        ([("x/" * 2000, {})], "impossible name"),
        ([("x/" * 300, {})], "nested more than 256"),
        ([("", {})], "stands for the root"),
        ([("evil", {**SYM, "linkname": "/etc"}), ("evil/passwd", {})], "not a directory"),
        ([("evil", {**SYM, "linkname": "."}), ("evil/x", DIR)], "not a directory"),
        ([("d", DIR), ("d", {**SYM, "linkname": "/etc"}), ("d/passwd", {})], "later something else"),
        ([("d/x", {}), ("d", FIFO)], "later something else"),
        ([("d/x", {}), ("d", {**LINK, "linkname": "d/x"})], "later something else"),
        ([("file", {}), ("file/below", {})], "not a directory"),
        ([("h", {**LINK, "linkname": "/etc/passwd"})], "not unpacked before"),
        ([("h", {**LINK, "linkname": "h"})], "not unpacked before"),
        ([("h", {**LINK, "linkname": ""})], "not unpacked before"),
        ([("h", {**LINK, "linkname": "../x"})], "leads out"),
        ([("evil", {**SYM, "linkname": "/etc"}), ("h", {**LINK, "linkname": "evil/passwd"})], "not unpacked before"),
        ([("d", DIR), ("h", {**LINK, "linkname": "d"})], "not unpacked before"),
        ([("s", {**SYM, "linkname": ""})], "'s' cannot be"),
        ([("s", {**SYM, "linkname": "x" * 5000})], "'s' cannot be"),
        ([("usr/disk", {**CHR, "devmajor": 8, "devminor": 0})], "device outside dev/"),
        ([("usr/kmem", {**CHR, "devmajor": 1, "devminor": 2})], "device outside dev/"),
        ([("usr/null", {"type": tarfile.BLKTYPE, "devmajor": 1, "devminor": 3})], "device outside dev/"),
        ([("dev", {**SYM, "linkname": "usr"}), ("dev/sda", {**CHR, "devmajor": 8})], "not a directory"),
        ([("a", {"uid": -1})], "no number"),
        ([("a", {"uid": 0xFFFFFFFF})], "impossible owner"),
        ([("a", {"pax_headers": {"SCHILY.xattr.system.evil": "x"}})], "not allowed"),
        ([("a", {"pax_headers": {"SCHILY.xattr.user." + "x" * 250: "x"}})], "not allowed"),
        ([("a", {"pax_headers": {"SCHILY.xattr.security.capability": "x"}})], "cannot be kept"),
        ([("s", {**SYM, "linkname": "x", "pax_headers": {"SCHILY.xattr.user.x": "x"}})], "cannot be kept"),
        ([("a", {"pax_headers": {"SCHILY.acl.access": "user:bob:rwx"}})], "ACL entry"),
        ([("a", {"pax_headers": {"SCHILY.acl.access": "user:7:rwx"}})], "cannot be kept"),
        ([("a", {"pax_headers": {"SCHILY.acl.default": "user::rwx,group::r-x,other::r-x"}})], "cannot be kept"),
        ([("a", {"type": b"Z"})], "of a kind"),
    ],
)
def test_hostile_members_are_named_and_refused(tmp_path: Path, members: Members, reason: str) -> None:
    (tmp_path / "target").mkdir()
    with pytest.raises(SourceInvalid, match=reason):
        unpack(io.BytesIO(archive(*members)), tmp_path / "target")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["target"]


def test_a_link_of_an_archive_is_kept_but_never_followed(tmp_path: Path) -> None:
    (tmp_path / "target").mkdir()
    (tmp_path / "outside").write_text("mine")
    members: list[tuple[str, Fields]] = [
        ("l", {**SYM, "linkname": str(tmp_path / "outside"), "uid": 5}),
        ("l", {"uid": 6, "mode": 0o600}),
        ("m", {**SYM, "linkname": "l"}),
        ("n", {**LINK, "linkname": "m"}),
        ("o", {**SYM, "linkname": str(tmp_path / "outside"), "uid": 7, "mode": 0o7777, "mtime": 5}),
    ]
    before = os.stat(tmp_path / "outside")
    unpack(io.BytesIO(archive(*members, data=b"theirs")), tmp_path / "target")
    assert (tmp_path / "outside").read_text() == "mine" and (tmp_path / "target/l").read_text() == "theirs"
    assert os.stat(tmp_path / "outside") == before
    assert os.readlink(tmp_path / "target/n") == "l"


def test_who_lies_last_counts(tmp_path: Path) -> None:
    (tmp_path / "target").mkdir()
    acl = {"SCHILY.acl.default": "user::rwx,group::r-x,other::r-x", "SCHILY.xattr.user.x": "1"}
    members: list[tuple[str, Fields]] = [
        ("d", {**DIR, "mtime": 5, "pax_headers": acl}), ("d/a", {"data": b"1"}),
        ("d", {**DIR, "mtime": 6, "mode": 0o711}), ("d/a", {"data": b"2", "mode": 0o600}),
        ("x", {"data": b"x"}), ("x", {**DIR, "mtime": 7}), ("y", {**SYM, "linkname": "d"}), ("y", DIR), ("y/z", {}),
    ]  # fmt: skip
    unpack(io.BytesIO(archive(*members)), tmp_path / "target")
    status = os.stat(tmp_path / "target/d")
    assert (status.st_mtime, stat.S_IMODE(status.st_mode), os.listxattr(tmp_path / "target/d")) == (6, 0o711, [])
    assert (tmp_path / "target/d/a").read_bytes() == b"2" and os.listdir(tmp_path / "target/d") == ["a"]
    assert (tmp_path / "target/x").stat().st_mtime == 7 and os.listdir(tmp_path / "target/y") == ["z"]


def test_what_is_not_told_is_the_same_every_time(tmp_path: Path) -> None:
    """Directories that the archive does not name, the root among them."""
    for number in range(2):
        (tmp_path / str(number)).mkdir(mode=0o700)
        unpack(io.BytesIO(archive(("a/b/c", {}))), tmp_path / str(number))
    assert differences(tmp_path / "0", tmp_path / "1") == []
    assert stat.S_IMODE((tmp_path / "0").stat().st_mode) == stat.S_IMODE((tmp_path / "0/a").stat().st_mode) == 0o755


def test_attributes_of_another_filesystem_are_left_out(tmp_path: Path) -> None:
    (tmp_path / "target").mkdir()
    headers = {"SCHILY.xattr.btrfs.compression": "zstd", "RHT.security.selinux": LABEL[:-1].decode()}
    unpack(io.BytesIO(archive(("a", {"pax_headers": headers}))), tmp_path / "target")
    assert os.listxattr(tmp_path / "target/a") == ["security.selinux"]
    assert os.getxattr(tmp_path / "target/a", "security.selinux") == LABEL


def claimed(size: int) -> bytes:
    entry = tarfile.TarInfo("big")
    entry.size = size
    return entry.tobuf(tarfile.GNU_FORMAT) + bytes(10240)


def holes(size: int) -> bytes:
    words = {"GNU.sparse.major": "1", "GNU.sparse.minor": "0", "GNU.sparse.realsize": str(size)}
    return archive(("big", {"data": b"0\n".ljust(512, b"\0"), "pax_headers": words}))


@pytest.mark.parametrize(
    ("data", "error", "reason"),
    [
        (claimed(1 << 40), NoSpace, "'big': it needs more room"),
        (claimed(1 << 60), NoSpace, "'big': it needs more room"),
        (claimed((1 << 63) - 1), NoSpace, "'big': it needs more room"),
        (claimed(1 << 63), SourceInvalid, "'big' has an impossible size"),
        (holes((1 << 63) - 1), SourceInvalid, "'big' says it has 9223372036854775807 bytes"),
        (holes(1 << 44), SourceInvalid, "'big': the files have more than 2 TiB of holes"),
    ],
)
def test_sizes_that_no_disk_has(tmp_path: Path, data: bytes, error: type[ImageError], reason: str) -> None:
    (tmp_path / "target").mkdir()
    with pytest.raises(error, match=reason):
        unpack(io.BytesIO(data), tmp_path / "target")


def test_members_without_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "target").mkdir()
    monkeypatch.setattr(images.sources.unpack, "MAX_MEMBERS", 20)
    with pytest.raises(SourceInvalid, match="more than 20 members"):
        unpack(io.BytesIO(archive(*(("a", {}) for _ in range(21)))), tmp_path / "target")
    monkeypatch.setattr(images.sources.unpack, "MAX_LATER", 2000)
    with pytest.raises(SourceInvalid, match="more directories than any system has"):
        unpack(io.BytesIO(archive(*((f"{n}", DIR) for n in range(19)))), tmp_path / "target")


@given(st.binary(min_size=1, max_size=60), st.integers(0, 6000))
@settings(max_examples=150, deadline=None)
def test_any_bytes_unpack_or_give_one_error(tmp_path_factory: pytest.TempPathFactory, noise: bytes, at: int) -> None:
    whole = archive(
        ("usr/a", {}), ("l", {**SYM, "linkname": "usr"}), ("h", {**LINK, "linkname": "usr/a"}), data=b"x" * 600
    )
    data = bytearray(whole)
    data[at : at + len(noise)] = noise
    target = tmp_path_factory.mktemp("t")
    with contextlib.suppress(ImageError):
        unpack(io.BytesIO(bytes(data)), target)
