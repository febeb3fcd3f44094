"""Bundles from store to store: whole, in part, damaged, too large, killed."""

from __future__ import annotations

import io
import os
import random
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from images.errors import BundleDamaged, Busy, ChunkInvalid, ChunkMissing, ImageError, NoSpace, NotFound, Untrusted
from images.keeping.bundle import END, MAGIC, START, Version, decode_header, encode_header, message
from images.keeping.garbage import collect
from images.keeping.importing import import_bundle
from images.keeping.verify import verify
from images.namespace import in_private_namespace
from images.store import Store
from tests.images.bundles import KEY, PUBLIC, bundle, trusting
from tests.images.smallstore import add, contents, flip


@pytest.fixture
def one(tmp_path: Path) -> Store:
    store = Store(tmp_path / "one")
    first = add(store, "x", {"boot": [1, 2], "root": [3, 4, 5, 6]})
    add(store, "x", {"boot": [1, 7], "root": [3, 4, 5, 8]}, share=first.packs)
    add(store, "y", {"root": [20, 21]})
    return store


@pytest.fixture
def two(tmp_path: Path) -> Store:
    return Store(tmp_path / "two")


def take(store: Store, data: bytes) -> tuple[tuple[str, ...], tuple[str, ...]]:
    done = import_bundle(store, io.BytesIO(data), trusting)
    return done.added, done.present


def test_what_is_carried_is_the_same_there(one: Store, two: Store) -> None:
    heard: list[tuple[str, int, int]] = []
    data = bundle(one, ["x:1", "x:2", "y"])
    done = import_bundle(two, io.BytesIO(data), trusting, lambda *at: heard.append(at))
    assert (done.added, done.present, done.signer) == (("x:1", "x:2", "y:1"), (), "one")
    assert heard[-1] == ("read", len(data), len(data))
    assert verify(two).damage == () and verify(two).strays == ()
    same = {file: sha for file, sha in contents(one.root).items() if not file.startswith("tags/")}
    assert {file: sha for file, sha in contents(two.root).items() if not file.startswith("tags/")} == same
    assert two.tag("x") == 2 and two.next_version("x") == 3, "a new image: nodes get the newest"
    assert take(two, data) == ((), ("x:1", "x:2", "y:1")), "again: nothing happens"


def test_only_what_the_other_lacks(one: Store, two: Store) -> None:
    whole = bundle(one, ["x:2"])
    take(two, bundle(one, ["x:1"]))
    part = bundle(one, ["x:2"], without=one.load("x:1")[0].packs)
    assert len(part) < len(whole) - 5000
    assert take(two, part) == (("x:2",), ()) and verify(two).damage == ()
    assert two.tag("x") == 1, "what nodes get stays"
    three = Store(two.root.parent / "three")
    before = contents(three.root)
    with pytest.raises(ChunkMissing, match=f"leaves out 1 packs that are not here: {one.load('x:1')[0].packs[0][:12]}"):
        take(three, part)
    assert contents(three.root) == before and three.images() == []


def test_a_number_that_means_something_else_here(one: Store, two: Store) -> None:
    add(two, "x", {"root": [40]})
    before = contents(two.root)
    with pytest.raises(ImageError, match="x:1 is another version here") as failure:
        take(two, bundle(one, ["y", "x:1"]))
    assert failure.value.hint and contents(two.root) == before
    assert take(two, bundle(one, ["x:2", "y"])) == (("x:2", "y:1"), ())


def test_a_lower_number_that_comes_later_does_not_turn_the_count_back(one: Store, two: Store) -> None:
    take(two, bundle(one, ["x:2"]))
    take(two, bundle(one, ["x:1"]))
    two.set_tag("x", 1)
    two.remove("x:2")
    assert two.next_version("x") == 3


def test_a_spoilt_pack_here_is_replaced_by_the_one_that_comes(one: Store, two: Store) -> None:
    take(two, bundle(one, ["x:1"]))
    flip(two.pack_path(one.load("x:1")[0].packs[0]), 60)
    verify(two)
    with pytest.raises(ChunkMissing):
        take(two, bundle(one, ["x:2"], without=one.load("x:1")[0].packs))
    take(two, bundle(one, ["x:2"]))
    assert verify(two).damage == ()


def test_nothing_is_written_for_a_stranger_or_for_a_changed_header(one: Store, two: Store) -> None:
    data = bundle(one, ["x:1"])
    before = contents(two.root)
    size = START.unpack(data[: START.size])[1]
    key = START.size + size
    other = bytearray(data)
    other[key : key + 32] = bytes(32)
    for spoilt in (bytes(other), data.replace(b'"version":1', b'"version":3', 1), data.replace(b'"one"', b'"two"', 1)):
        with pytest.raises(BundleDamaged, match="signature"):
            take(two, spoilt)

    def stranger(raw: bytes, text: bytes, signature: bytes, who: str) -> str:
        assert raw == PUBLIC and who == "one" and len(signature) == 64
        assert text == message(data[START.size : key])
        raise Untrusted("no")

    with pytest.raises(Untrusted):
        import_bundle(two, io.BytesIO(data), stranger)
    assert contents(two.root) == before and not list((two.root / "images").iterdir())


def test_damage_on_the_way_is_named_and_nothing_is_kept(one: Store, two: Store) -> None:
    data = bundle(one, ["x:1", "x:2", "y"])
    before = contents(two.root)
    dice, named = random.Random(3), set()
    body = len(START.pack(MAGIC, 0)) + START.unpack(data[: START.size])[1] + 96
    for at in (0, 9, *sorted(dice.sample(range(body), 40)), *sorted(dice.sample(range(body, len(data)), 80))):
        spoilt = bytearray(data)
        spoilt[at] ^= 1 << dice.randrange(8)
        with pytest.raises(BundleDamaged) as failure:
            take(two, bytes(spoilt))
        named.add(" ".join(failure.value.message.split()[:2]))
        assert contents(two.root) == before
    assert {"the manifest", "the runs", "the index"} <= named and any(name.startswith("pack ") for name in named)
    for length in (0, 5, 12, 300, body, *sorted(dice.sample(range(body, len(data)), 30)), len(data) - 1):
        with pytest.raises(BundleDamaged, match=r"ends at byte|not a bundle"):
            take(two, data[:length])
        assert contents(two.root) == before
    with pytest.raises(BundleDamaged, match="does not end"):
        take(two, data + b"\n")
    assert two.images() == [] and contents(two.root) == before


def test_a_signed_bundle_that_contradicts_itself(one: Store, two: Store) -> None:
    """Who signs may still be wrong: a manifest of another name, runs beyond the pack."""
    data = bundle(one, ["y"])
    size = START.unpack(data[: START.size])[1]
    header = decode_header(data[START.size : START.size + size])
    rest = data[START.size + size + 96 :]
    version, pack = header.versions[0], header.packs[0]
    for changed in (
        replace(header, versions=(Version("z", 1, version.digest, version.manifest, version.runs),)),
        replace(header, packs=(replace(pack, size=pack.size - 1),)),
        replace(header, packs=()),
    ):
        encoded = encode_header(changed)
        signed = START.pack(MAGIC, len(encoded)) + encoded + PUBLIC + KEY.sign(message(encoded)) + rest
        with pytest.raises(BundleDamaged, match="in the bundle: "):
            take(two, signed)
    assert two.images() == [] and not list(two.packs.iterdir())


def test_a_damaged_version_is_not_exported(one: Store, two: Store) -> None:
    flip(one.pack_path(one.load("y")[0].packs[0]), 20)
    with pytest.raises(ChunkInvalid, match="is damaged"):
        bundle(one, ["y"])
    verify(one)
    out = io.BytesIO()
    with pytest.raises(ChunkInvalid, match="y:1 is damaged"):
        from images.keeping.exporting import export
        from tests.images.bundles import SIGNING

        export(one, ["y"], out, SIGNING)
    assert out.getvalue() == b"", "what is known to be damaged is refused at once"
    with pytest.raises(NotFound):
        bundle(one, ["x", "z:3"])


def test_what_a_killed_import_left_goes_with_the_next_one(one: Store, two: Store) -> None:
    (two.packs / ".tmp-half").write_bytes(b"x" * 1000)
    take(two, bundle(one, ["y"]))
    assert not list(two.packs.glob(".tmp-*"))
    (two.packs / ".tmp-half").write_bytes(b"x" * 1000)
    with two.lineage_lock("other"):
        take(two, bundle(one, ["x:1"]))
        assert (two.packs / ".tmp-half").exists(), "it may be somebody's work"
    with two.lineage_lock("x"), pytest.raises(Busy, match="image x is in use"):
        take(two, bundle(one, ["x:2"]))


WORKER = """
import sys
from pathlib import Path
from images.errors import NoSpace
from images.keeping.importing import import_bundle
from images.store import Store
from tests.images.bundles import trusting
class Slow:
    def __init__(self, file): self.file = file
    def read(self, size):
        return self.file.read(min(size, 4096))
try:
    with open(sys.argv[2], "rb") as file:
        print(import_bundle(Store(Path(sys.argv[1])), Slow(file), trusting).added)
except NoSpace as error:
    print("no space:", error)
"""


def worker(store: Path, file: Path) -> subprocess.Popen[str]:
    argv = [sys.executable, "-c", WORKER, os.fspath(store), os.fspath(file)]
    return subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def large(tmp_path: Path) -> tuple[Store, Path]:
    """A store with two versions of about 3 MB each, and a bundle of them."""
    store = Store(tmp_path / "large")
    for start in (0, 2000):
        add(store, "big", {"root": range(start, start + 1400)})
    file = tmp_path / "big.gild"
    file.write_bytes(bundle(store, ["big:1", "big:2"]))
    return store, file


KILLED = """
import os, signal, sys
left = int(sys.argv[3])
def counted(function):
    def call(*arguments, **options):
        global left
        left -= 1
        if left == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        return function(*arguments, **options)
    return call
for name in ("replace", "fsync", "fchmod", "unlink", "mkdir"):
    setattr(os, name, counted(getattr(os, name)))
class Counted(Slow):
    read = counted(Slow.read)
Slow = Counted
"""


def test_killed_at_any_step_there_is_no_half_version(one: Store, tmp_path: Path) -> None:
    """The process kills itself at its n-th read, rename, fsync, chmod, unlink or mkdir."""
    file = tmp_path / "b.gild"
    file.write_bytes(bundle(one, ["x:1", "x:2"]))
    start, end = WORKER.split("try:\n", 1)
    program = f"{start}{KILLED}try:\n{end}"
    seen: list[list[int]] = []
    for step in range(1, 200):
        target = Store(tmp_path / f"target{step % 2}")
        argv = [sys.executable, "-c", program, os.fspath(target.root), os.fspath(file), str(step)]
        process = subprocess.run(argv, capture_output=True, text=True, timeout=30)
        assert process.returncode in (0, -signal.SIGKILL), process.stderr
        have = target.versions("x")
        seen.append(have)
        assert all(not verify(target, [f"x:{number}"]).damage for number in have)
        assert take(target, file.read_bytes())[0] == tuple(f"x:{number}" for number in (1, 2) if number not in have)
        assert verify(target).damage == () == verify(target).strays, "the next one works and clears up"
        target.remove("x")
        collect(target, grace=0)
        assert list(target.packs.iterdir()) == []
        if process.returncode == 0:
            break
    assert seen == sorted(seen) and {tuple(have) for have in seen} == {(), (1,), (1, 2)}
    assert len(seen) > 40


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
@pytest.mark.parametrize("percent", [3, 40, 60, 95, 200])
def test_on_a_full_disk_all_space_is_given_back(tmp_path: Path, percent: int) -> None:
    """The disk has `percent` of the room that the bundle takes."""
    _, file = large(tmp_path)
    kilobytes = file.stat().st_size * percent // 100 >> 10
    disk = tmp_path / "disk"
    disk.mkdir()

    def body() -> tuple[str, dict[str, str], dict[str, str], list[int]]:
        subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={kilobytes}k", "gild-test", disk], check=True)
        store = Store(disk / "store")
        before = contents(store.root)
        process = worker(store.root, file)
        out, err = process.communicate(timeout=60)
        assert process.returncode == 0, err
        if store.versions("big"):
            assert verify(store).damage == ()
        return out, before, contents(store.root), store.versions("big")

    out, before, after, have = in_private_namespace(body)
    if out.startswith("no space"):
        assert have == [] and {path: sha for path, sha in after.items() if not path.endswith("/last")} == before
    else:
        assert have == [1, 2]
    assert out.startswith("no space") == (percent < 100)


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
@pytest.mark.parametrize("left", [0, 1, 700, 1400, 1500, 2500])
def test_a_disk_that_fills_up_meanwhile(tmp_path: Path, left: int) -> None:
    """Somebody else takes the room, but for `left` pages, once the import has begun."""
    _, file = large(tmp_path)
    disk = tmp_path / "disk"
    disk.mkdir()

    def body() -> tuple[str, dict[str, str], dict[str, str], int]:
        subprocess.run(["mount", "-t", "tmpfs", "-o", "size=12000k", "gild-test", disk], check=True)
        store = Store(disk / "store")
        before = contents(store.root)
        told = ""
        hog = disk / "hog"

        def fill(phase: str, done: int, total: int) -> None:
            if not hog.exists() and done > total // 10:
                room = os.statvfs(disk).f_bavail * os.statvfs(disk).f_frsize
                with hog.open("wb") as out:
                    out.write(bytes(max(0, room - left * 4096)))

        try:
            with file.open("rb") as stream:
                import_bundle(store, stream, trusting, fill)
        except NoSpace as error:
            told = error.message
        hog.unlink()
        return told, before, contents(store.root), len(store.versions("big"))

    told, before, after, have = in_private_namespace(body)
    if told:
        assert have == 0 and {path: sha for path, sha in after.items() if not path.endswith("/last")} == before
    else:
        assert have == 2
    assert bool(told) == (left < 2500)


def test_the_end_is_the_end() -> None:
    assert len(END) == len(MAGIC) == 8
