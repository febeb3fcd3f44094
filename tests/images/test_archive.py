"""The reader of tar streams: headers that lie are refused before they cost anything."""

from __future__ import annotations

import io
import stat
import struct
import tarfile
import tracemalloc
from collections.abc import Callable, Iterator

import pytest

import images.sources.archive
import images.sources.sparse
from images.errors import SourceInvalid
from images.sources.archive import Archive, Member
from images.sources.pax import read_pax
from tests.images.handmade import DIR, LINK, SYM, archive

END = bytes(1024)


def header(name: bytes = b"a", size: int | bytes = 0, kind: bytes = b"0", **more: bytes) -> bytes:
    """One block; `more` has bytes for at386 (old maps), prefix, uid, mtime, major."""
    block = bytearray(512)
    block[0 : len(name)] = name
    block[100:108], block[108:116], block[116:124] = b"0000644\0", more.get("uid", b"0000000\0"), b"0000000\0"
    block[124:136] = size if isinstance(size, bytes) else b"%011o\0" % size
    block[136:148] = more.get("mtime", b"00000000005\0")
    block[156:157] = kind
    block[257:265] = more.get("magic", b"ustar\x0000")
    block[329:337] = more.get("major", b"0000000\0")
    if "at386" in more:
        block[386 : 386 + len(more["at386"])] = more["at386"]
    block[148:156] = b"        "
    block[148:156] = b"%06o\0 " % sum(block)
    return bytes(block)


def padded(data: bytes) -> bytes:
    return data + bytes(-len(data) % 512)


def pax(records: bytes, kind: bytes = b"x") -> bytes:
    return header(b"PaxHeaders/a", len(records), kind) + padded(records)


def record(key: bytes, value: bytes) -> bytes:
    length = len(key) + len(value) + 3
    while len(b"%d" % length) + len(key) + len(value) + 3 != length:
        length = len(b"%d" % length) + len(key) + len(value) + 3
    return b"%d %s=%s\n" % (length, key, value)


def read(data: bytes, whole: bool = True) -> list[Member]:
    return list(Archive(io.BytesIO(data), "it", whole=whole).members())


def content(data: bytes) -> list[tuple[Member, bytes]]:
    """Every file with its content, holes as zeros."""
    found = []
    reader = Archive(io.BytesIO(data), "it")
    for member in reader.members():
        body = bytearray(member.size)
        for at, piece in reader.pieces():
            body[at : at + len(piece)] = piece
        found.append((member, bytes(body)))
    return found


class Dripping(io.RawIOBase):
    """A pipe that gives a few bytes at a time."""

    def __init__(self, data: bytes) -> None:
        self._data, self._at = data, 0

    def read(self, size: int = -1) -> bytes:
        piece = self._data[self._at : self._at + min(size, 7)]
        self._at += len(piece)
        return piece


LONG = "d" * 90 + "/" + "e" * 150 + "/" + "f" * 90


@pytest.mark.parametrize("form", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_members_as_python_writes_them(form: int) -> None:
    name = LONG[:90] + "/" + LONG[100:200] if form == tarfile.USTAR_FORMAT else LONG
    big = 2_000_000 if form == tarfile.USTAR_FORMAT else 3_000_000_000
    members = [
        (name, {"data": b"one", "mode": 0o4711, "uid": big, "gid": 7, "mtime": 77}),
        ("dir", DIR),
        ("sym", {**SYM, "linkname": LONG[:100] if form == tarfile.USTAR_FORMAT else LONG}),
        ("hard", {**LINK, "linkname": name if form != tarfile.USTAR_FORMAT else "dir"}),
        ("dev", {"type": tarfile.BLKTYPE, "devmajor": 8, "devminor": 65}),
        ("\udcff\udcfe", {"data": b"x" * 1025}),
    ]
    for stream in (io.BytesIO(archive(*members, form=form)), Dripping(archive(*members, form=form))):
        reader = Archive(stream, "it")
        found = [(member, b"".join(piece for _, piece in reader.pieces())) for member in reader.members()]
        assert [m.name.rstrip("/") for m, _ in found] == [m[0] for m in members]
        kinds = [stat.S_IFREG, stat.S_IFDIR, stat.S_IFLNK, 0, stat.S_IFBLK, stat.S_IFREG]
        assert [m.kind for m, _ in found] == kinds
        first = found[0][0]
        assert (first.mode, first.uid, first.gid, first.mtime) == (0o4711, big, 7, 77)
        assert found[0][1] == b"one" and found[5][1] == b"x" * 1025
        assert [m.target for m, _ in found[2:4]] == [members[2][1]["linkname"], members[3][1]["linkname"]]
        assert found[4][0].device == (8, 65)


def test_what_only_other_programs_write() -> None:
    assert read(header(b"d/", kind=b"\0") + END)[0].kind == stat.S_IFDIR  # before there were types
    assert read(header(b"a", kind=b"D", size=5) + padded(b"Yabc\0") + header(b"b") + END)[1].name == "b"
    assert read(header(b"volume", kind=b"V") + header(b"b") + END)[0].name == "b"
    assert read(header(b"a", mtime=b"\xff" * 12) + END)[0].mtime == -1
    assert read(header(b"a", uid=b"\x80\0\0\0\xb2\xd0\x5e\0") + END)[0].uid == 3_000_000_000
    signed = bytearray(header(b"\xff"))
    signed[148:156] = b"        "
    signed[148:156] = b"%06o\0 " % (sum(signed) - 256)
    assert read(bytes(signed) + END)[0].name == "\udcff"
    assert [m.mtime for m in read(pax(record(b"mtime", b"-1.5")) + header() + header(b"b") + END)] == [-2, 5]
    both = pax(record(b"SCHILY.devmajor", b"259") + record(b"SCHILY.devminor", b"70000")) + header(kind=b"3")
    assert read(both + END)[0].device == (259, 70000)


def test_global_records_count_until_taken_back() -> None:
    data = pax(record(b"uid", b"5") + record(b"gid", b"6"), b"g") + header(b"a")
    data += pax(record(b"uid", b"7") + record(b"gid", b"")) + header(b"b") + header(b"c") + END
    assert [(m.uid, m.gid) for m in read(data)] == [(5, 6), (7, 0), (5, 6)]


def old_entry(at: int, length: int) -> bytes:
    return b"%011o\0%011o\0" % (at, length)


def sparse_files() -> Iterator[tuple[str, bytes]]:
    """The same file, "ab" at 1024 and "cd" at 9000 of 10000 bytes, in every way."""
    old = old_entry(1024, 2) + old_entry(9000, 2) + old_entry(10000, 0) + bytes(24)
    yield "old", header(size=4, kind=b"S", at386=old + b"\0" + b"%011o\0" % 10000) + padded(b"abcd")
    start, rest = old_entry(1024, 2), old_entry(9000, 2) + old_entry(10000, 0)
    more = start + old_entry(1026, 0) * 3 + b"\1" + b"%011o\0" % 10000
    yield "old, continued", header(size=4, kind=b"S", at386=more) + padded(rest) + padded(b"abcd")
    pairs = [(b"GNU.sparse.offset", b"1024"), (b"GNU.sparse.numbytes", b"2"), (b"GNU.sparse.offset", b"9000"),
             (b"GNU.sparse.numbytes", b"2")]  # fmt: skip
    size, count = record(b"GNU.sparse.size", b"10000"), record(b"GNU.sparse.numblocks", b"2")
    yield "0.0", pax(size + count + b"".join(record(*pair) for pair in pairs)) + header(size=4) + padded(b"abcd")
    listed = record(b"GNU.sparse.map", b"1024,2,9000,2") + record(b"GNU.sparse.name", b"a")
    yield "0.1", pax(size + count + listed) + header(b"GNUSparseFile.1/a", 4) + padded(b"abcd")
    new = [(b"major", b"1"), (b"minor", b"0"), (b"name", b"a"), (b"realsize", b"10000")]
    words = b"".join(record(b"GNU.sparse." + key, value) for key, value in new)
    yield "1.0", pax(words) + header(b"x", 516) + padded(b"2\n1024\n2\n9000\n2\n") + padded(b"abcd")


@pytest.mark.parametrize(("form", "data"), list(sparse_files()))
def test_sparse_files(form: str, data: bytes) -> None:
    (member, body), (after, _) = content(data + header(b"b") + END)
    assert (member.name, member.size, member.stored, after.name) == ("a", 10000, 4, "b")
    expected = bytearray(10000)
    expected[1024:1026], expected[9000:9002] = b"ab", b"cd"
    assert body == bytes(expected)


def new_sparse(lines: bytes, realsize: bytes = b"10000", size: int = 512) -> bytes:
    words = record(b"GNU.sparse.major", b"1") + record(b"GNU.sparse.realsize", realsize)
    return pax(words) + header(size=size) + padded(lines) + END


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "is empty"),
        (b"junk" * 500, "no header at its beginning"),
        (header() + b"junk" * 500, "no header after 'a'"),
        (header()[:300], "without its end mark"),
        (header(), "ends after 'a' without its end mark"),
        (header(size=9) + b"x", "ends inside 'a'"),
        (header(size=9) + bytes(512), "without its end mark"),
        (header(size=b"99999999999\0"), "for a number"),
        (header(size=b"\xff" * 12) + END, "impossible size"),
        (header(size=b"\x80" + b"\xff" * 11) + END, "impossible size"),
        (header(uid=b"\xff" * 8) + END, "impossible owner"),
        (header(kind=b"3", major=b"0077777\0") + END, "impossible device"),
        (header(kind=b"M", size=5) + END, "continues another archive"),
        (header(kind=b"N") + END, r"of a kind \(b'N'\)"),
        (header(b"big", 1 << 30, b"x") + END, "'big' is a header of 1073741824 bytes"),
        (header(b"big", 1 << 33, b"g") + END, "'big' is a header of 8589934592 bytes"),
        (header(b"big", 1 << 20, b"L") + END, "'big' is a header of 1048576 bytes"),
        (header(b"neg", b"\xff" * 12, b"x") + END, "'neg' is a header of -1 bytes"),
        ((header(b"again", 2, b"L") + padded(b"a\0")) * 20 + header() + END, "headers without end"),
        (pax(b"999999999 a=b\n") + header() + END, "damaged record"),
        (pax(b"0 a=b\n") + header() + END, "damaged record"),
        (pax(b"6 ab=\n" + b"x") + header() + END, "damaged record"),
        (pax(record(b"size", b"-5")) + header() + END, "says size is b'-5'"),
        (pax(record(b"size", b"9" * 19)) + header() + END, "impossible size"),
        (pax(record(b"uid", b"1" * 5000)) + header() + END, "says uid is"),
        (pax(record(b"mtime", b"nan")) + header() + END, "has the time b'nan'"),
        (pax(record(b"SCHILY.xattr.user.x", b"v" * 65537)) + header() + END, "attribute of 65537 bytes"),
        (
            pax(b"".join(record(b"SCHILY.xattr.user.%d" % n, b"") for n in range(4097))) + header() + END,
            "more than 4096",
        ),
        (pax(record(b"GNU.sparse.size", b"1") + record(b"GNU.sparse.numbytes", b"5")) + header() + END, "map of holes"),
        (pax(record(b"GNU.sparse.size", b"9") + record(b"GNU.sparse.map", b"0,x")) + header() + END, "map of holes"),
        (pax(record(b"GNU.sparse.size", b"9") + record(b"GNU.sparse.map", b"0")) + header() + END, "with 1 numbers"),
        (new_sparse(b"1\n0\n5\n", realsize=b"9223372036854775807"), "more than a file can have"),
        (new_sparse(b"1\n0\n5\n"), "has 0 bytes where its map of holes has 5"),
        (new_sparse(b"2\n5\n5\n0\n5\n", size=522), "contradicts itself at byte 0"),
        (new_sparse(b"1\n9999\n5\n", size=517), "contradicts itself at byte 9999"),
        (new_sparse(b"9999999\n"), "9999999 holes"),
        (new_sparse(b"9" * 600), "map of holes"),
        (new_sparse(b"300\n" + b"1\n" * 254), "that is cut off"),
        (new_sparse(b"1\n-1\n5\n"), "map of holes"),
        (header(kind=b"S", at386=old_entry(0, 5) + bytes(72) + b"\0" + b"%011o\0" % 3) + END, "contradicts itself"),
        (header(kind=b"S", at386=b"x" * 24 + bytes(72) + b"\0" + b"%011o\0" % 3) + END, "map of holes"),
        (header(kind=b"S", at386=old_entry(0, 0) * 4 + b"\1" + b"%011o\0" % 3), "ends inside 'a'"),
    ],
)
def test_headers_that_cannot_be_believed(data: bytes, reason: str) -> None:
    with pytest.raises(SourceInvalid, match=reason):
        content(data)


ENTRIES = old_entry(0, 0) * 4


class Endless:
    """A stream that is large and costs nothing: some bytes, then one block for ever."""

    def __init__(self, start: bytes, block: bytes) -> None:
        self._start, self._block, self.given = start, block, 0

    def read(self, size: int, /) -> bytes:
        data, self._start = self._start[:size], self._start[size:]
        phase, left = self.given % len(self._block), size - len(data)
        self.given += left
        return data + (self._block * (left // len(self._block) + 2))[phase : phase + left]


@pytest.mark.parametrize(
    ("stream", "reason"),
    [
        (
            lambda: Endless(
                header(kind=b"S", at386=ENTRIES + b"\1" + b"%011o\0" % 3), old_entry(1, 0) * 21 + b"\1" * 8
            ),
            "more than 50000 holes",
        ),
        (lambda: Endless(new_sparse(b"1000000\n")[:-1024][:1024] + header(size=1 << 40), b"1" * 512), "map of holes"),
        (lambda: Endless(b"", header(b"v", kind=b"V")), "headers without end"),
        (lambda: Endless(b"", header(b"d", size=1 << 20, kind=b"D") + bytes(1 << 20)), "MiB of headers"),
        (lambda: Endless(b"", pax(record(b"SCHILY.xattr.user.x", b"y" * 60000)) + header()), None),
    ],
)
def test_a_stream_without_end_costs_no_memory(
    monkeypatch: pytest.MonkeyPatch, stream: Callable[[], Endless], reason: str | None
) -> None:
    monkeypatch.setattr(images.sources.archive, "MAX_SKIPPED", 64 << 20)
    monkeypatch.setattr(images.sources.sparse, "MAX_SEGMENTS", 50_000)
    tracemalloc.start()
    try:
        members = Archive(stream(), "it").members()
        if reason is None:
            assert all(next(members).attributes for _ in range(500))
        else:
            with pytest.raises(SourceInvalid, match=reason):
                for _ in range(100_000):
                    next(members)
        assert tracemalloc.get_traced_memory()[1] < 64 << 20
    finally:
        tracemalloc.stop()


def test_what_comes_between_is_passed_over() -> None:
    data = archive(("a", {"data": b"x" * 5000}), ("b", {"data": b"y"}))
    file = io.BytesIO(data)
    places = {m.name: reader.position for reader in [Archive(file, "it", seekable=file)] for m in reader.members()}
    assert data[places["a"] : places["a"] + 5000] == b"x" * 5000 and data[places["b"] : places["b"] + 1] == b"y"
    with pytest.raises(SourceInvalid, match="without its end mark"):
        list(Archive(cut := io.BytesIO(data[:2000]), "it", seekable=cut).members())


def test_attributes_in_records() -> None:
    value = struct.pack("<I", 5) + b"\n=\xff\0"
    data = record(b"SCHILY.xattr.user.a%3Db%2525", value) + record(b"RHT.security.selinux", b"u:r:t:s0")
    found = read_pax(data + record(b"SCHILY.acl.access", b"user::rwx") + record(b"atime", b"5"), "a")
    assert found.attributes == {"user.a=b%25": value, "security.selinux": b"u:r:t:s0\0"}
    assert found.acls == {"system.posix_acl_access": "user::rwx"} and found.words == {}
