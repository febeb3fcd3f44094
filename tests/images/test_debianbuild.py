"""Debian's packages by the real mmdebstrap, with a package of the site's own from a directory; needs a mirror."""

from __future__ import annotations

import hashlib
import os
import shutil
from pathlib import Path

import pytest

from images.editing.packages import packages
from images.errors import CommandFailed, RecipeInvalid, ToolMissing
from images.run import run
from images.sources.aptsources import host_sources, host_suite
from images.sources.debianbuild import fill, require, sources
from images.sources.recipetext import parse_recipe
from tests.images.systems import put

POSTINST = "#!/bin/sh\nset -e\ncp /usr/sbin/policy-rc.d /sbin/start-stop-daemon /usr/share/site\n"


def local_archive(folder: Path, work: Path) -> Path:
    """A directory with one package, site-extras, which keeps what it saw while it was installed."""
    put(work, "usr/share/site/hello", "hello\n")
    control = "Package: site-extras\nVersion: 1.0\nArchitecture: all\nMaintainer: x <x@example.invalid>\n"
    put(work, "DEBIAN/control", control + "Description: files of the site\n")
    put(work, "DEBIAN/postinst", POSTINST, 0o755)
    folder.mkdir()
    package = folder / "site-extras_1.0_all.deb"
    run(["dpkg-deb", "--root-owner-group", "--build", os.fspath(work), os.fspath(package)])
    fields = run(["dpkg-deb", "--field", os.fspath(package)]).stdout.decode()
    data = package.read_bytes()
    listed = f"{fields}Filename: ./{package.name}\nSize: {len(data)}\nSHA256: {hashlib.sha256(data).hexdigest()}\n"
    (folder / "Packages").write_text(listed)
    return folder


@pytest.mark.lab
@pytest.mark.skipif(shutil.which("mmdebstrap") is None or not host_suite(), reason="no mmdebstrap, or no Debian")
def test_a_directory_of_packages_is_a_mirror(tmp_path: Path) -> None:
    archive = local_archive(tmp_path / "archive", tmp_path / "package")
    tmp_path.chmod(0o755)
    (tmp_path / "tree").mkdir()
    (tmp_path / "scratch").mkdir()
    uris = [
        source.fields["uris"].split()[0] for source in host_sources() if host_suite() in source.fields["suites"].split()
    ]
    recipe = parse_recipe(
        f'mirrors = ["deb [trusted=yes] file:{archive} ./", "{uris[0]}"]\npackages = ["site-extras"]\n'
        'exclude = ["/usr/share/doc/*"]\nkeep = ["/usr/share/doc/dpkg/*"]\n'
    )
    told: list[tuple[str, int, int]] = []
    fill(recipe, tmp_path / "tree", tmp_path / "scratch", "building x", lambda *at: told.append(at))
    tree = tmp_path / "tree"
    assert (packages(os.fspath(tree)) or {})["site-extras"] == "1.0"
    assert (tree / "usr/share/site/hello").read_text() == "hello\n"
    assert "exit 101" in (tree / "usr/share/site/policy-rc.d").read_text(), "no service was started"
    assert not (tree / "usr/sbin/policy-rc.d").exists()
    assert os.listdir(tree / "usr/share/doc") == ["dpkg"]
    kept = "".join(path.read_text() for path in (tree / "etc/apt/sources.list.d").iterdir())
    assert uris[0] in kept and str(archive) not in kept
    assert told[-1][1] == told[-1][2] > 50


@pytest.mark.skipif(shutil.which("mmdebstrap") is None, reason="mmdebstrap is not installed")
def test_a_source_that_cannot_be_used_is_named(tmp_path: Path) -> None:
    nobody = tmp_path / "nothing-here"
    for folder in ("nothing-here", "tree", "scratch"):
        (tmp_path / folder).mkdir()
    recipe = parse_recipe(f'suite = "bookworm"\nmirrors = ["deb file:{nobody} bookworm main"]\npackages = ["dash"]\n')
    with pytest.raises(CommandFailed, match=f"building x: E: .*{nobody}"):
        fill(recipe, tmp_path / "tree", tmp_path / "scratch", "building x", lambda *at: None)


def test_without_mmdebstrap_there_is_a_way_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ToolMissing, match="apt install mmdebstrap"):
        require()


def test_mirrors_of_the_recipe_come_before_the_heads_sources() -> None:
    suite, text = sources(parse_recipe('suite = "trixie"\nmirror = "http://m.example/debian"\n'))
    assert suite == "trixie" and text == (
        "Types: deb\nUris: http://m.example/debian\nSuites: trixie\nComponents: main\n"
    )
    with pytest.raises(RecipeInvalid, match="is not a URL"):
        sources(parse_recipe('suite = "trixie"\nmirror = "m.example"\n'))
