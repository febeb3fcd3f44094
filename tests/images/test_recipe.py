"""Building a recipe: a stand-in for mmdebstrap, since the real one needs a mirror and a minute."""

from __future__ import annotations

import os
import stat
import tarfile
from pathlib import Path

import pytest

from images.errors import CommandFailed, RecipeInvalid, ToolMissing
from images.ext4 import EPOCH
from images.options import Options
from images.sources.recipe import SHIPPED, build_recipe, installed_packages, shipped_recipes
from images.sources.recipetext import parse_recipe
from images.store import Store
from tests.images.tinytree import tiny_tree

RECIPE = """name = "x"
suite = "bookworm"
mirror = "file:/nowhere"
packages = ["hello"]
exclude = ["/usr/share/man/*"]
message = "built"
scripts = ["echo one\\necho two"]
[files]
"/etc/motd" = { content = "hi", mode = "0600", owner = "man" }
"/usr/local/bin/tool" = { source = "tool.sh", mode = "0755" }
"""
# Records how it was called, answers as mmdebstrap does, and delivers the tree that TREE names.
STAND_IN = """#!/bin/sh
for argument; do printf '%s\\n' "$argument"; done > "$LOG/arguments"
env > "$LOG/environment"
for argument; do case $argument in
--customize-hook=tar-in*) set -- $argument; cp "$(echo $2 | tr -d "'")" "$LOG/files.tar";;
--customize-hook=*/bin/sh*) cp "$(echo ${argument##*< } | tr -d "'")" "$LOG/script";;
*/gild.sources) cp $argument "$LOG/sources"; ;;
*/tree) tree=$argument;;
esac; done
echo "0 upgraded, 2 newly installed, 0 to remove"
echo "Unpacking one"; echo "Setting up one"
if [ -n "$FAIL" ]; then echo "$FAIL"; exit 1; fi
cp -a "$TREE" "$tree"
"""

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")


@pytest.fixture
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin/mmdebstrap").write_text(STAND_IN)
    (tmp_path / "bin/mmdebstrap").chmod(0o755)
    (tmp_path / "tool.sh").write_text("#!/bin/sh\n")
    tree = tiny_tree(tmp_path / "built")
    (tree / "var/lib/dpkg").mkdir(parents=True)
    (tree / "var/lib/dpkg/status").write_text(
        "Package: hello\nStatus: install ok installed\nVersion: 2.10-3\n\n"
        "Package: gone\nStatus: deinstall ok config-files\nVersion: 1\n"
    )
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{os.environ['PATH']}")
    monkeypatch.setenv("LOG", str(tmp_path))
    monkeypatch.setenv("TREE", str(tree))
    return tmp_path


@needs_root
def test_a_recipe_becomes_a_version(bench: Path) -> None:
    store = Store(bench / "store")
    heard: list[tuple[str, int, int]] = []
    manifest = build_recipe(store, RECIPE, "", Options(progress=lambda *at: heard.append(at)), base=bench)
    assert manifest.ref == "x:1" and manifest.message == "built" and store.verify("x") == []
    assert manifest.source["recipe"] == RECIPE and manifest.source["packages"] == {"hello": "2.10-3"}
    assert ("build", 2, 4) in heard and heard[-1][0] == "store"
    arguments = (bench / "arguments").read_text().splitlines()
    assert "--include=hello" in arguments and "--dpkgopt=path-exclude=/usr/share/man/*" in arguments
    assert arguments[-3] == "bookworm" and any(a.endswith("chown -h man /etc/motd") for a in arguments)
    assert "URIs: file:/nowhere\n".lower() in (bench / "sources").read_text().lower()
    assert f"SOURCE_DATE_EPOCH={EPOCH}\n" in (bench / "environment").read_text()
    assert (bench / "script").read_text() == "echo one\necho two"
    with tarfile.open(bench / "files.tar") as tar:
        found = {m.name: (stat.S_IMODE(m.mode), m.mtime, m.uid) for m in tar}
    assert found == {"etc/motd": (0o600, EPOCH, 0), "usr/local/bin/tool": (0o755, EPOCH, 0)}
    assert sorted(p.name for p in store.work("x").iterdir()) == ["current"]


@needs_root
def test_building_again_stores_nothing_new_but_the_superblock(bench: Path) -> None:
    store = Store(bench / "store")
    build_recipe(store, RECIPE, base=bench)
    before = sum(p.stat().st_size for p in store.packs.glob("*.pack"))
    assert build_recipe(store, RECIPE, base=bench).version == 2
    assert sum(p.stat().st_size for p in store.packs.glob("*.pack")) - before < 20_000


@needs_root
@pytest.mark.parametrize(
    ("said", "wanted", "text"),
    [
        ("E: Unable to locate package helo", RecipeInvalid, "no package helo"),
        ("E: Package 'non-free-thing' has no installation candidate", RecipeInvalid, "no package non-free-thing"),
        ("E: the sky fell", CommandFailed, "the sky fell"),
    ],
)
def test_what_apt_complains_about_is_named(
    bench: Path, monkeypatch: pytest.MonkeyPatch, said: str, wanted: type[Exception], text: str
) -> None:
    monkeypatch.setenv("FAIL", said)
    store = Store(bench / "store")
    with pytest.raises(wanted, match=text):
        build_recipe(store, RECIPE, base=bench)
    assert store.images() == [] and not any(store.work("x").glob("*/*"))


def test_without_mmdebstrap_there_is_a_way_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ToolMissing, match="apt install mmdebstrap"):
        build_recipe(Store(tmp_path / "store"), RECIPE, base=tmp_path)


@needs_root
def test_a_source_file_that_is_missing_is_named(bench: Path) -> None:
    (bench / "tool.sh").unlink()
    with pytest.raises(RecipeInvalid, match=r"/usr/local/bin/tool: .*tool\.sh cannot be read"):
        build_recipe(Store(bench / "store"), RECIPE, base=bench)


def test_the_shipped_recipes_are_recipes() -> None:
    texts = shipped_recipes()
    assert tuple(texts) == SHIPPED
    for name, text in texts.items():
        recipe = parse_recipe(text)
        assert recipe.name == name and "linux-image-amd64" in recipe.packages and recipe.message


def test_packages_of_a_tree_without_dpkg(tmp_path: Path) -> None:
    assert installed_packages(tmp_path) == {}
