"""Where packages come from: the head's own sources, whichever way they are written."""

from __future__ import annotations

from pathlib import Path

import pytest

from images.errors import RecipeInvalid
from images.sources.aptsources import (
    as_copies,
    host_sources,
    host_suite,
    local_sources_out,
    mirror_sources,
    sources_for,
)


@pytest.fixture
def etc_apt(tmp_path: Path) -> Path:
    (tmp_path / "sources.list.d").mkdir()
    (tmp_path / "sources.list").write_text(
        "# comment\n"
        "deb [arch=amd64 signed-by=/usr/share/keyrings/k.gpg] http://one.example/debian bookworm main contrib # why\n"
        "deb-src http://one.example/debian bookworm main\n"
        "deb http://tools.example/apt tools-bookworm main\n"
    )
    (tmp_path / "sources.list.d/debian.sources").write_text(
        "Types: deb deb-src\nURIs: http://two.example/debian\n# comment\nSuites: bookworm bookworm-updates sid\n"
        "Components: main\nSigned-By:\n -----BEGIN PGP PUBLIC KEY BLOCK-----\n .\n abc\n\n"
        "Types: deb\nURIs: http://off.example\nSuites: bookworm\nComponents: main\nEnabled: no\n\n"
        "Types: deb-src\nURIs: http://src.example\nSuites: bookworm\nComponents: main\n"
    )
    return tmp_path


def test_only_archives_of_the_suite_are_taken(etc_apt: Path) -> None:
    text = sources_for("bookworm", "bookworm", host_sources(etc_apt), [])
    assert text.count("Types: deb\n") == 2 and "tools.example" not in text and "off.example" not in text
    assert "Suites: bookworm bookworm-updates\n" in text and "src.example" not in text
    assert "Signed-By: /usr/share/keyrings/k.gpg\n" in text and "Components: main contrib\n" in text
    assert " -----BEGIN PGP PUBLIC KEY BLOCK-----\n .\n abc\n" in text, "a key inside the stanza stays whole"


def test_another_suite_takes_the_same_archives(etc_apt: Path) -> None:
    text = sources_for("trixie", "bookworm", host_sources(etc_apt), ["main", "non-free-firmware"])
    assert "Suites: trixie trixie-updates\n" in text and "bookworm" not in text
    assert text.count("Components: main non-free-firmware\n") == 2


def test_no_archive_is_an_error_with_a_way_out(tmp_path: Path) -> None:
    with pytest.raises(RecipeInvalid, match="mirror ="):
        sources_for("bookworm", "", host_sources(tmp_path), [])


def test_mirrors_of_a_recipe() -> None:
    assert mirror_sources("sid", ["http://m.example/debian"], []) == (
        "Types: deb\nUris: http://m.example/debian\nSuites: sid\nComponents: main\n"
    )
    text = mirror_sources("sid", ["deb [trusted=yes] file:/srv/debs ./"], ["main"])
    assert text == "Types: deb\nUris: file:/srv/debs\nSuites: ./\nTrusted: yes\n"
    for bad in ("mirror.example", "deb nonsense"):
        with pytest.raises(RecipeInvalid, match="mirror"):
            mirror_sources("sid", [bad], [])


def test_the_suite_of_this_machine(tmp_path: Path) -> None:
    (tmp_path / "os-release").write_text('ID=debian\nVERSION_CODENAME="trixie"\n')
    assert host_suite(tmp_path / "os-release") == "trixie" and host_suite(tmp_path / "none") == ""


def test_what_lies_on_the_disk_is_copied_in(tmp_path: Path) -> None:
    text = mirror_sources(
        "sid", [f"file:{tmp_path}", f"deb [trusted=yes] file://{tmp_path} ./", "http://m.example/file:x"], []
    )
    found = as_copies(text)
    assert f"Uris: copy:{tmp_path}\n" in found and f"Uris: copy://{tmp_path}\nSuites: ./\nTrusted: yes\n" in found
    assert "Uris: http://m.example/file:x\n" in found and "file:/t" not in found
    with pytest.raises(RecipeInvalid, match=f"mirror file:{tmp_path}/none: there is no such directory"):
        as_copies(mirror_sources("sid", [f"file:{tmp_path}/none"], []))


def test_a_key_inside_a_stanza_survives(etc_apt: Path) -> None:
    text = sources_for("bookworm", "bookworm", host_sources(etc_apt), [])
    assert as_copies(text).lower() == text.lower()


def test_sources_of_this_disk_do_not_stay_in_the_image(tmp_path: Path) -> None:
    folder = tmp_path / "etc/apt/sources.list.d"
    folder.mkdir(parents=True)
    remote = "Types: deb\nUris: http://m.example\nSuites: sid\nComponents: main\n"
    local = "Types: deb\nUris: copy:/srv/debs\nSuites: ./\n"
    (folder / "0000gild.sources").write_text(f"{remote}\n{local}")
    (folder / "only.sources").write_text(local)
    (folder / "other.sources").write_text(f"# as it was\n{remote}")
    (folder / "old.list").write_text("# kept\ndeb file:/srv/debs ./\ndeb http://m.example sid main\n")
    assert local_sources_out(tmp_path) == [
        "etc/apt/sources.list.d/0000gild.sources",
        "etc/apt/sources.list.d/old.list",
        "etc/apt/sources.list.d/only.sources",
    ]
    assert (folder / "0000gild.sources").read_text() == remote and not (folder / "only.sources").exists()
    assert (folder / "other.sources").read_text() == f"# as it was\n{remote}"
    assert (folder / "old.list").read_text() == "# kept\ndeb http://m.example sid main\n"
    assert local_sources_out(tmp_path) == []
