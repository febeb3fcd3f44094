"""Layers of a container image over one another: what each leaves, and that none reaches out of the tree."""

from __future__ import annotations

import io
import os
import stat
from pathlib import Path

import pytest

from images.errors import SourceInvalid
from images.sources.archive import Archive
from images.sources.layers import LayerUnpacker
from tests.images.handmade import CHR, DIR, LINK, SYM, Members, archive

pytestmark = [pytest.mark.root, pytest.mark.skipif(os.geteuid() != 0, reason="needs root")]


def unpack(target: Path, *layers: Members) -> dict[str, str]:
    """Unpack the layers; path -> content, "dir", or "-> target"."""
    target.mkdir()
    unpacker = LayerUnpacker(target)
    for layer in layers:
        unpacker.begin()
        reader = Archive(io.BytesIO(archive(*layer)), "layer", whole=False)
        for member in reader.members():
            unpacker.add(reader, member)
    unpacker.finish()
    found = {}
    for path in target.rglob("*"):
        name = os.fspath(path.relative_to(target))
        if path.is_symlink():
            found[name] = f"-> {os.readlink(path)}"
        else:
            found[name] = "dir" if path.is_dir() else path.read_text() if path.is_file() else "device"
    return found


def f(text: str) -> dict[str, bytes]:
    return {"data": text.encode()}


def to(target: str) -> dict[str, object]:
    return {**SYM, "linkname": target}


CASES: dict[str, tuple[list[Members], dict[str, str]]] = {
    "a file is replaced": ([[("a", f("1"))], [("a", f("2"))]], {"a": "2"}),
    "a directory is added to": (
        [[("d", DIR), ("d/a", f("1"))], [("d", DIR), ("d/b", f("2"))]],
        {"d": "dir", "d/a": "1", "d/b": "2"},
    ),
    "a whiteout": ([[("d", DIR), ("d/a", f("1")), ("d/b", f("1"))], [("d/.wh.a", {})]], {"d": "dir", "d/b": "1"}),
    "a whiteout of a directory": ([[("d/e/a", f("1")), ("b", f("1"))], [(".wh.d", {})]], {"b": "1"}),
    "a whiteout of nothing": ([[("b", f("1"))], [("no/such/.wh.d", {})]], {"b": "1"}),
    "a whiteout does not hide its own layer": (
        [[("a", f("1")), ("d/old", f("1"))], [("a", f("2")), (".wh.a", {}), ("d/new", f("2")), (".wh.d", {})]],
        {"a": "2", "d": "dir", "d/new": "2"},
    ),
    "an opaque directory, the mark first": (
        [[("d/a", f("1")), ("d/e/b", f("1"))], [("d", DIR), ("d/.wh..wh..opq", {}), ("d/c", f("2"))]],
        {"d": "dir", "d/c": "2"},
    ),
    "an opaque directory, the mark last": (
        [[("d/a", f("1")), ("d/e/b", f("1"))], [("d", DIR), ("d/e/c", f("2")), ("d/.wh..wh..opq", {})]],
        {"d": "dir", "d/e": "dir", "d/e/c": "2"},
    ),
    "an opaque root": ([[("d/a", f("1"))], [(".wh..wh..opq", {}), ("b", f("2"))]], {"b": "2"}),
    "what aufs kept is nothing": ([[(".wh..wh.plnk/1.2", {}), (".wh..wh.aufs", {}), ("a", f("1"))]], {"a": "1"}),
    "a file becomes a directory": ([[("x", f("1"))], [("x", DIR), ("x/a", f("2"))]], {"x": "dir", "x/a": "2"}),
    "a directory becomes a file": ([[("x/a/b", f("1"))], [("x", f("2"))]], {"x": "2"}),
    "and back": ([[("x/a", f("1"))], [("x", f("2"))], [("x", DIR), ("x/b", f("3"))]],
                 {"x": "dir", "x/b": "3"}),
    "a directory becomes a link": (
        [[("x/a", f("1")), ("y", DIR)], [("x", to("y")), ("x/b", f("2"))]],
        {"x": "-> y", "y": "dir", "y/b": "2"},
    ),
    "a link to a directory becomes a directory": (
        [[("y/a", f("1")), ("x", to("y"))], [("x", DIR), ("x/b", f("2"))]],
        {"y": "dir", "y/a": "1", "x": "dir", "x/b": "2"},
    ),
    "a member below a link goes where the system would put it": (
        [[("usr/bin", DIR), ("bin", to("usr/bin")), ("lib", to("/usr/lib"))], [("bin/ls", f("1")), ("lib/so", f("1"))]],
        {"usr": "dir", "usr/bin": "dir", "bin": "-> usr/bin", "lib": "-> /usr/lib", "usr/bin/ls": "1",
         "usr/lib": "dir", "usr/lib/so": "1"},
    ),
    "a whiteout below a link": (
        [[("usr/bin/ls", f("1")), ("bin", to("usr/bin"))], [("bin/.wh.ls", {})]],
        {"usr": "dir", "usr/bin": "dir", "bin": "-> usr/bin"},
    ),
    "a link that leads up stops at the root": (
        [[("x", to("../../../../etc")), ("x/passwd", f("1"))]],
        {"x": "-> ../../../../etc", "etc": "dir", "etc/passwd": "1"},
    ),
    "a link to a place of this machine leads into the tree": (
        [[("x", to("/tmp")), ("x/gild-test-of-layers", f("1"))]],
        {"x": "-> /tmp", "tmp": "dir", "tmp/gild-test-of-layers": "1"},
    ),
    "a file over a link replaces the link": (
        [[("x", to("/etc/passwd"))], [("x", f("2"))]],
        {"x": "2"},
    ),
    "a hard link to a file of a lower layer": (
        [[("a", f("1"))], [("b", {**LINK, "linkname": "a"})], [("a", f("3"))]],
        {"a": "3", "b": "1"},
    ),
    "a hard link by a linked directory": (
        [[("usr/bin/a", f("1")), ("bin", to("usr/bin"))], [("bin/b", {**LINK, "linkname": "bin/a"})]],
        {"usr": "dir", "usr/bin": "dir", "usr/bin/a": "1", "usr/bin/b": "1", "bin": "-> usr/bin"},
    ),
    "a hard link over a directory": (
        [[("a", f("1")), ("d/x", f("1"))], [("d", {**LINK, "linkname": "a"})]],
        {"a": "1", "d": "1"},
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_layers(tmp_path: Path, case: str) -> None:
    layers, expected = CASES[case]
    assert unpack(tmp_path / "tree", *layers) == expected
    assert not os.path.lexists("/tmp/gild-test-of-layers")
    assert [p.name for p in tmp_path.iterdir()] == ["tree"]


@pytest.mark.parametrize(
    ("layers", "reason"),
    [
        ([[("../a", {})]], "leads out"),
        ([[("d/../../.wh.a", {})]], "leads out"),
        ([[(".wh.", {})]], "no name"),
        ([[("d", DIR)], [("d/.wh...", {})]], "no name"),
        ([[("a", f("1"))], [("a/b", f("2"))]], "lies below 'a', which is not a directory"),
        ([[("a", to("b")), ("b", to("a"))], [("a/x", f("2"))]], "more than 40 links"),
        ([[("a", {**LINK, "linkname": "/etc/passwd"})]], "not unpacked before"),
        ([[("e", to("/etc")), ("a", {**LINK, "linkname": "e/passwd"})]], "not unpacked before"),
        ([[("a", f("1"))], [(".wh.a", {}), ("b", {**LINK, "linkname": "a"})]], "not unpacked before"),
        ([[("disk", {**CHR, "devmajor": 8})]], "device outside dev"),
        ([[("dev", to("usr")), ("dev/disk", {**CHR, "devmajor": 8})]], "device outside dev"),
        ([[("long", to("x/" * 300)), ("long/a", {})]], "nested more than 256"),
    ],
)
def test_what_no_layer_may_do(tmp_path: Path, layers: list[Members], reason: str) -> None:
    with pytest.raises(SourceInvalid, match=reason):
        unpack(tmp_path / "tree", *layers)
    assert [p.name for p in tmp_path.iterdir()] == ["tree"]


def test_attributes_are_those_of_the_last_layer_that_names_the_file(tmp_path: Path) -> None:
    first = {**DIR, "mode": 0o700, "uid": 5, "mtime": 100, "pax_headers": {"SCHILY.xattr.user.a": "1"}}
    second = {**DIR, "mode": 0o1777, "gid": 6, "mtime": 200, "pax_headers": {"SCHILY.xattr.user.b": "2"}}
    capability = bytes.fromhex("0100000200200000000000000000000000000000").decode("latin-1")
    ping = {"mode": 0o4755, "uid": 7, "mtime": 9, "pax_headers": {"SCHILY.xattr.security.capability": capability}}
    unpack(tmp_path / "tree", [("d", first)], [("d", second), ("d/ping", ping)], [("d/other", {"mtime": 3})])
    status = os.stat(tmp_path / "tree/d")
    assert stat.S_IMODE(status.st_mode) == 0o1777 and (status.st_uid, status.st_gid) == (0, 6)
    assert status.st_mtime == 200 and os.listxattr(tmp_path / "tree/d") == ["user.b"]
    status = os.stat(tmp_path / "tree/d/ping")
    assert stat.S_IMODE(status.st_mode) == 0o4755 and status.st_uid == 7 and status.st_mtime == 9
    assert os.getxattr(tmp_path / "tree/d/ping", "security.capability").decode("latin-1") == capability


def test_a_default_acl_is_not_inherited_by_what_a_later_layer_brings(tmp_path: Path) -> None:
    acl = {"SCHILY.acl.default": "user::rwx,user:7:rwx,group::r-x,mask::rwx,other::r-x"}
    unpack(tmp_path / "tree", [("d", {**DIR, "pax_headers": acl})], [("d/a", {"mode": 0o640}), ("d/e", DIR)])
    assert os.listxattr(tmp_path / "tree/d") == ["system.posix_acl_default"]
    assert os.listxattr(tmp_path / "tree/d/a") == os.listxattr(tmp_path / "tree/d/e") == []
    assert stat.S_IMODE(os.stat(tmp_path / "tree/d/a").st_mode) == 0o640
