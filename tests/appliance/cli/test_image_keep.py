"""Keeping and carrying images on the command line: two heads' states side by side."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from appliance.cli.image_carry import import_bundle, is_bundle
from appliance.cli.main import Site, run
from appliance.errors import exit_code
from images.errors import ChunkMissing, Untrusted
from images.store import Store
from tests.appliance.process import CHECKOUT, rack_of_one
from tests.images.smallstore import add, flip
from tests.netboot.lan import HEAD_IP

Say = Callable[..., tuple[int, str, str]]


@pytest.fixture
def say(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Say:
    """Run a verb on the state of head `one` or `two`: exit code, output, error output."""

    def call(head: str, *arguments: str) -> tuple[int, str, str]:
        capsys.readouterr()
        code = run(["--state", str(tmp_path / head), "image", *arguments])
        said = capsys.readouterr()
        return code, said.out, said.err

    return call


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """The store of head `one`, with x:1, x:2 and y:1."""
    made = Store(tmp_path / "one/store")
    first = add(made, "x", {"boot": [1, 2], "root": [3, 4, 5, 6]})
    add(made, "x", {"boot": [1, 7], "root": [3, 4, 5, 8]}, share=first.packs)
    add(made, "y", {"root": [20, 21]})
    return made


def first_pack(store: Store) -> Path:
    return store.pack_path(store.load("x:1")[0].packs[0])


def test_damage_is_told_in_a_table_and_as_json(say: Say, store: Store) -> None:
    assert say("one", "verify")[:2] == (0, "3 versions are sound\n")
    pack = first_pack(store)
    flip(pack, 60)
    code, out, err = say("one", "verify")
    assert code == 10 and pack.stem[:12] in out and "x:1, x:2" in out and "byte" in out
    assert "1 places are damaged: x:1, x:2" in err and "image repair" in err
    code, out, _ = say("one", "verify", "--json")
    told: dict[str, Any] = json.loads(out)
    (damage,) = told["damage"]
    assert code == 10 and not told["sound"] and told["checked"] == ["x:1", "x:2", "y:1"]
    assert damage["versions"] == ["x:1", "x:2"] and damage["file"] == f"packs/{pack.name}" and damage["length"] > 0
    assert say("one", "verify", "y", "--json")[0] == 0
    assert say("one", "verify", "z")[0] == 3


def test_repair_from_a_directory_and_from_a_bundle(say: Say, store: Store, tmp_path: Path) -> None:
    shutil.copytree(tmp_path / "one", tmp_path / "two")
    assert say("two", "export", "x:2", "y", str(tmp_path / "b.gild"))[0] == 0
    for source in (str(tmp_path / "two"), str(tmp_path / "b.gild")):
        flip(first_pack(store), 60)
        assert say("one", "repair")[0] == 10, "there is nothing to repair it from"
        code, out, _ = say("one", "repair", "--from", source)
        assert code == 0 and f"healed: packs/{first_pack(store).name}" in out and "3 versions are sound" in out
        assert say("one", "verify")[0] == 0
    first_pack(store).unlink()
    code, out, _ = say("one", "repair", "y", "--from", source, "--json")
    assert code == 0 and json.loads(out)["healed"] == []
    code, out, _ = say("one", "repair", "--from", source, "--json")
    assert code == 0 and json.loads(out)["healed"] == [f"packs/{first_pack(store).name}"]
    code, _, err = say("one", "repair", "--from", "/nowhere")
    assert code == 1 and "/nowhere" in err and "http://" in err
    assert say("one", "repair", "--from", "http://127.0.0.1:1", "y")[0] == 0, "there is nothing to ask it for"


def test_garbage_is_shown_then_asked_about(say: Say, store: Store) -> None:
    assert say("one", "gc")[:2] == (0, "there is nothing to remove\n")
    (store.packs / ".tmp-left").write_bytes(b"x" * 10_000)
    code, out, err = say("one", "gc")
    assert code == 1 and ".tmp-left" in out and "cut off" in out and "--yes" in err
    assert say("one", "gc", "--dry-run")[0] == 0 and (store.packs / ".tmp-left").exists()
    told = json.loads(say("one", "gc", "--dry-run", "--json")[1])
    assert [item["path"] for item in told["items"]] == ["packs/.tmp-left"] and told["free"] >= 10_000
    code, out, _ = say("one", "gc", "--yes")
    assert code == 0 and "given back" in out and not (store.packs / ".tmp-left").exists()
    store.set_tag("x", 2)
    store.remove("x:1")
    store.remove("y")
    code, out, _ = say("one", "gc", "--dry-run")
    assert code == 0 and "1 unused packs are younger than a day" in out and "1 packs stay whole, though" in out
    assert "no version needs it" in say("one", "gc", "--dry-run", "--now")[1]


def test_versions_and_whole_images_are_removed(say: Say, store: Store) -> None:
    assert say("one", "rm", "x", "--yes")[0] == 1 and say("one", "rm", "x:1", "--all", "--yes")[0] == 1
    code, out, err = say("one", "rm", "x", "--all")
    assert code == 1 and "x:1" in out and "x:2" in out and "--yes" in err and store.versions("x") == [1, 2]
    store.manifest_path("x", 2).write_bytes(b"damaged")
    code, out, _ = say("one", "rm", "x:2", "--yes")
    assert code == 0 and out.startswith("x:2 is removed\n") and store.versions("x") == [1]
    assert say("one", "rm", "x", "y", "--all", "--yes")[0] == 0
    assert store.images() == [] and not list(store.packs.iterdir())


def test_a_version_goes_though_its_space_cannot_yet(say: Say, store: Store) -> None:
    with store.lineage_lock("other"):
        code, out, _ = say("one", "rm", "y:1", "--yes")
    assert code == 0 and "image gc (the store is in use" in out and store.images() == ["x"]


def test_from_head_to_head(say: Say, store: Store, tmp_path: Path) -> None:
    file = tmp_path / "b.gild"
    code, out, _ = say("one", "export", "x:1", "y", str(file))
    assert code == 0 and out.startswith("x:1, y:1: ")
    assert say("one", "export", "x:1", str(file))[0] == 1, "it is there already"
    assert is_bundle(file.open("rb")) and not is_bundle((store.root / "tags/x").open("rb"))

    two = Site(str(tmp_path / "two"))
    with pytest.raises(Untrusted) as failure:
        import_bundle(two, str(file))
    assert exit_code(failure.value) == 11 and two.store.images() == []
    _, key, told = say("one", "trust", "show")
    fingerprint = told.strip()
    assert fingerprint in failure.value.message
    line = failure.value.hint.partition("trust add '")[2].rstrip("'")
    assert line.split()[:2] == key.split()[:2]
    assert say("two", "trust")[1].startswith("no other head is trusted")
    code, out, _ = say("two", "trust", "add", line, "--name", "one")
    assert code == 0 and fingerprint in out
    assert json.loads(say("two", "trust", "list", "--json")[1])[0]["fingerprint"] == fingerprint
    assert "one" in say("two", "trust")[1]

    import_bundle(two, str(file))
    assert two.store.load("x:1")[1] == store.load("x:1")[1] and two.store.images() == ["x", "y"]
    assert say("two", "verify")[:2] == (0, "2 versions are sound\n")

    # the next version, as a difference: by the list, and by what is known to be there
    (tmp_path / "have").write_text(say("two", "have")[1])
    code, out, _ = say("one", "export", "x:2", str(tmp_path / "part.gild"), "--have", str(tmp_path / "have"))
    assert code == 0 and "1 packs left out" in out
    assert say("one", "export", "x:2", str(tmp_path / "since.gild"), "--since", "x:1")[0] == 0
    assert os.path.getsize(tmp_path / "part.gild") == os.path.getsize(tmp_path / "since.gild") < os.path.getsize(file)
    assert say("three", "trust", "add", line)[0] == 0
    with pytest.raises(ChunkMissing, match="1 packs that are not here"):
        import_bundle(Site(str(tmp_path / "three")), str(tmp_path / "part.gild"))
    import_bundle(two, "a stream", (tmp_path / "part.gild").open("rb"), json=True)
    assert two.store.versions("x") == [1, 2] and say("two", "verify")[0] == 0
    assert say("two", "trust", "remove", "one")[0] == 0 and say("two", "trust", "remove", "one")[0] == 3


def test_the_own_bundle_needs_no_trust(say: Say, store: Store, tmp_path: Path) -> None:
    assert say("one", "export", "x:2", str(tmp_path / "b.gild"))[0] == 0
    store.set_tag("x", 1)
    digest = store.load("x:2")[1]
    store.remove("x:2")
    import_bundle(Site(str(tmp_path / "one")), str(tmp_path / "b.gild"))
    assert store.load("x:2")[1] == digest and store.tag("x") == 1


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (("export", "z:1", "FILE"), 3, "no image"),
        (("export", "x:1", "FILE", "--have", "/nowhere"), 1, "/nowhere"),
        (("export", "x:1", "FILE", "--have", "/etc/passwd"), 9, "line 1"),
        (("export", "x:1", "FILE", "--since", "x:9"), 3, "no version 9"),
        (("export", "x:1", "/nowhere/b"), 1, "/nowhere/b"),
        (("trust", "add", "/nowhere"), 3, "neither a key nor a file"),
        (("trust", "add", "/etc/passwd"), 9, "not the public key"),
        (("trust", "add", "ssh-ed25519", "AAAA"), 9, "not the public key"),
    ],
)
def test_an_error_is_a_line_and_leaves_no_file(
    say: Say, store: Store, tmp_path: Path, arguments: tuple[str, ...], code: int, words: str
) -> None:
    found, _, err = say("one", *(str(tmp_path / "b.gild") if word == "FILE" else word for word in arguments))
    lines = [line for line in err.splitlines() if not line.startswith("export: ")]
    assert found == code and words in err and lines[0].startswith("gild: ") and len(lines) <= 2, err
    assert [path.name for path in tmp_path.iterdir()] == ["one"]


def test_a_damaged_version_leaves_no_file(say: Say, store: Store, tmp_path: Path) -> None:
    flip(first_pack(store), 60)
    assert say("one", "export", "x:1", str(tmp_path / "b.gild"))[0] == 10
    assert [path.name for path in tmp_path.iterdir()] == ["one"]


def test_through_a_pipe(say: Say, store: Store, tmp_path: Path) -> None:
    argv = [sys.executable, "-m", "appliance", "--state", str(tmp_path / "one"), "image", "export", "x:1", "x:2", "-"]
    writer = subprocess.Popen(argv, cwd=CHECKOUT, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    line = say("one", "trust", "show")[1].strip()
    assert say("two", "trust", "add", line)[0] == 0
    two = Site(str(tmp_path / "two"))
    assert writer.stdout is not None
    assert is_bundle(writer.stdout)
    import_bundle(two, "-", writer.stdout)
    _, err = writer.communicate(timeout=30)
    assert writer.returncode == 0 and b"x:1, x:2: " in err
    assert two.store.versions("x") == [1, 2] and say("two", "verify")[0] == 0

    writer = subprocess.Popen(argv, cwd=CHECKOUT, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert writer.stdout is not None
    writer.stdout.read(100)
    writer.stdout.close()
    assert writer.wait(30) in (0, 1), "a reader that leaves is one line, or the bundle was in the pipe already"
    assert writer.stderr is not None and b"Traceback" not in writer.stderr.read()
    writer.stderr.close()


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
def test_repair_from_a_head_that_serves(store: Store, tmp_path: Path, say: Say) -> None:
    with rack_of_one() as served:
        shutil.copytree(store.root, served.paths.images)
        served.start()
        first_pack(store).unlink()
        flip(store.pack_path(store.load("y")[0].packs[0]), 40)
        store.manifest_path("x", 2).write_bytes(b"{}")
        store.runs_path("x", 1).unlink()
        with served.lan.at_node():
            code, out, err = say("one", "repair", "--from", f"http://{HEAD_IP}")
        assert code == 0 and "4 files are right again" in out, out + err
        assert say("one", "verify")[:2] == (0, "3 versions are sound\n")
        # what the serving head is told to spare
        site = Site(str(served.state))
        assert run(["--state", str(served.state), "image", "gc", "--dry-run"]) == 0
        assert site.client.get("status")["installing"] == []
