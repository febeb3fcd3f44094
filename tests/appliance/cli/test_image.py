"""Image verbs on a store of their own; nothing serves."""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from appliance.cli.main import run
from images.store import Store
from tests.images.tinytree import tiny_tree

Say = Callable[..., tuple[int, str, str]]
pytestmark = pytest.mark.root  # trees with owners and devices


@pytest.fixture
def say(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Say:
    """Run a verb on an empty state: exit code, output, error output."""

    def call(*arguments: str) -> tuple[int, str, str]:
        capsys.readouterr()
        code = run(["--state", str(tmp_path / "state"), "image", *arguments])
        said = capsys.readouterr()
        return code, said.out, said.err

    return call


def as_json(said: tuple[int, str, str]) -> Any:
    assert said[0] == 0, said[2]
    return json.loads(said[1])


def test_a_directory_and_a_tar_become_versions_that_can_be_handled(say: Say, tmp_path: Path) -> None:
    tree = tiny_tree(tmp_path / "tree")
    (tree / "usr/lib/os-release").write_text('ID=debian\nPRETTY_NAME="Tiny Linux 12"\n')
    code, out, err = say("import", str(tree), "--name", "compute", "-m", "the [first]")
    assert code == 0 and out.startswith("compute:1 is published (") and err.startswith("import: ")
    with tarfile.open(tmp_path / "root.tar.gz", "w:gz") as archive:
        (tree / "etc/motd").write_text("new")
        archive.add(tree, ".")
    code, out, _ = say("import", str(tmp_path / "root.tar.gz"), "--name", "compute", "--cmdline", "quiet")
    assert code == 0 and "nodes still get version 1" in out and "image tag compute:2" in out

    rows = as_json(say("list", "--json"))
    assert [(row["image"], row["version"], row["tagged"]) for row in rows] == [
        ("compute", 1, True),
        ("compute", 2, False),
    ]
    table = say("list")[1]
    assert "compute:1" in table and "the [first]" in table and "Tiny Linux 12" in table
    assert as_json(say("show", "compute:2", "--json"))["cmdline"] == "quiet"
    page = say("show", "compute")[1]
    assert rows[0]["digest"] in page and "the [first]" in page and "ext4" in page and "host keys" in page.lower()

    assert say("verify")[1] == "2 versions are sound\n"
    assert say("tag", "compute:2")[1] == "nodes get compute:2 from now on, and no more compute:1\n"
    assert Store(tmp_path / "state/store").tag("compute") == 2
    assert say("rm", "compute", "--yes")[0] == 1
    code, _, err = say("rm", "compute:1")
    assert code == 1 and "--yes" in err
    code, out, _ = say("rm", "compute:1", "--yes")
    assert code == 0 and out.startswith("compute:1 is removed")
    assert [row["version"] for row in as_json(say("list", "--json"))] == [2]


def test_damage_is_named_and_has_its_exit_code(say: Say, tmp_path: Path) -> None:
    assert say("import", str(tiny_tree(tmp_path / "tree")), "--name", "x")[0] == 0
    (pack,) = (tmp_path / "state/store/packs").glob("*.pack")
    data = bytearray(pack.read_bytes())
    data[100] ^= 1
    pack.chmod(0o600)
    pack.write_bytes(data)
    code, out, err = say("verify", "x:1")
    assert code == 10 and pack.stem[:12] in out and "damaged" in err


def test_an_empty_store_says_what_to_do(say: Say) -> None:
    assert say("list") == (0, "there is no image yet; see: gild.pyz help images\n", "")
    assert as_json(say("list", "--json")) == []
    assert say("verify")[:2] == (0, "0 versions are sound\n")


@pytest.mark.parametrize("name", ["debian", "debian-mpi", "debian-slurm"])
def test_shipped_recipes_are_listed_and_printed(say: Say, name: str) -> None:
    for arguments in (("recipe", "list"), ("recipe",)):
        assert name in say(*arguments)[1]
    code, out, _ = say("recipe", name)
    assert code == 0 and f'name = "{name}"' in out


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (("recipe", "gentoo"), 3, "debian-slurm"),
        (("show", "none"), 3, "images here: none"),
        (("show", "../x"), 3, "not a name"),
        (("show", "x[red]"), 3, "x[red]"),
        (("tag", "none:1"), 3, "none"),
        (("rm", "none:1", "--yes"), 3, "none"),
        (("verify", "none"), 3, "none"),
        (("import", "/nonexistent", "--name", "x"), 1, "/nonexistent"),
        (("import", "/proc/self/comm", "--name", "x"), 1, "not a whole archive"),
        (("import", "/dev", "--name", "x"), 1, "not the root of a system"),
    ],
)
def test_an_error_is_a_line_and_a_hint(say: Say, arguments: tuple[str, ...], code: int, words: str) -> None:
    found, out, err = say(*arguments)
    lines = [line for line in err.splitlines() if not line.startswith(("import: ", "verify "))]
    assert found == code and not out and words in err
    assert lines[0].startswith("gild: ") and len(lines) <= 2, err


@pytest.mark.parametrize(
    ("text", "word"),
    [(b"\xff\xfe", "UTF-8"), (b"name = ", "not TOML"), (b'name = "x"\ncolour = 1\n', "colour"), (b"", "name")],
)
def test_a_recipe_that_is_none(say: Say, tmp_path: Path, text: bytes, word: str) -> None:
    (tmp_path / "r.toml").write_bytes(text)
    code, _, err = say("build", str(tmp_path / "r.toml"))
    assert code == 9 and word in err and "Traceback" not in err
    assert say("build", str(tmp_path / "none.toml"))[0] == 2


def test_a_tar_from_the_input(say: Say, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as archive:
        archive.add(tiny_tree(tmp_path / "tree"), ".")
    packed.seek(0)
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(packed))
    assert say("import", "-", "--name", "piped")[0] == 0
    assert as_json(say("list", "--json"))[0]["image"] == "piped"
