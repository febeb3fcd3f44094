from __future__ import annotations

import os
import tempfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from appliance import overlays
from appliance.overlays import Entry, OverlayInvalid, overlay, read, read_piece, scripts


def put(folder: Path, name: str, content: str | bytes = "x", mode: int = 0o644) -> Path:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    path.chmod(mode)
    return path


def by_path(entries: list[Entry]) -> dict[str, Entry]:
    return {entry.path: entry for entry in entries}


def test_a_plain_tree_says_most_by_itself(tmp_path: Path) -> None:
    put(tmp_path, "c/overlay/etc/motd", "hello")
    put(tmp_path, "c/overlay/etc/hosts.j2", "{{ x }}", 0o640)
    put(tmp_path, "c/overlay/usr/local/bin/tool", "#!/bin/sh", 0o4755)
    (tmp_path / "c/overlay/etc/localtime").symlink_to("/usr/share/zoneinfo/UTC")
    (tmp_path / "c/overlay/srv/data").mkdir(parents=True)
    for left in ("etc/motd~", "etc/.motd.swp", "etc/.#motd", "etc/#motd#"):
        put(tmp_path, f"c/overlay/{left}")
    found = by_path(overlay(tmp_path, ["c"]))
    assert {path: (entry.kind, entry.mode) for path, entry in found.items()} == {
        "etc/motd": ("file", 0o644), "etc/hosts": ("template", 0o640), "usr/local/bin/tool": ("file", 0o755),
        "etc/localtime": ("link", 0o777), "srv/data": ("folder", 0o755),
    }  # fmt: skip
    assert found["etc/localtime"].target == "/usr/share/zoneinfo/UTC"
    assert (found["etc/motd"].owner, found["etc/motd"].size, found["etc/motd"].profile) == ("root", 5, "c")
    assert list(found) == sorted(found)
    assert overlay(tmp_path, ["none"]) == [] == overlay(tmp_path / "nowhere", ["c"])


def test_what_a_tree_cannot_say_stands_in_overlay_toml(tmp_path: Path) -> None:
    put(tmp_path, "c/overlay/etc/slurm/a.conf")
    put(tmp_path, "c/overlay/etc/slurm/b.conf")
    put(tmp_path, "c/overlay/etc/x.j2", "{{ kept as it is }}")
    put(tmp_path, "c/overlay/etc/not", "y")
    (tmp_path / "c/overlay/var/spool").mkdir(parents=True)
    put(tmp_path, "c/overlay/var/spool/y")
    put(
        tmp_path,
        "c/overlay.toml",
        """
        ["etc/slurm/*"]
        owner = "slurm"
        mode = "0640"
        ["etc/slurm/b.conf"]
        mode = "0600"
        ["/etc/munge/munge.key"]
        secret = "munge.key"
        mode = "0400"
        owner = "munge"
        group = "120"
        ["etc/x.j2"]
        template = false
        ["etc/not"]
        skip = true
        ["var/spool"]
        group = "slurm"
    """,
    )
    found = by_path(overlay(tmp_path, ["c"]))
    assert set(found) == {
        "etc/slurm/a.conf", "etc/slurm/b.conf", "etc/munge/munge.key", "etc/x.j2", "var/spool", "var/spool/y",
    }  # fmt: skip
    a, b, key = found["etc/slurm/a.conf"], found["etc/slurm/b.conf"], found["etc/munge/munge.key"]
    assert (a.owner, a.group, a.mode, b.owner, b.mode) == ("slurm", "root", 0o640, "slurm", 0o600)
    assert (key.kind, key.secret, key.mode, key.owner, key.group) == ("secret", "munge.key", 0o400, "munge", "120")
    assert found["etc/x.j2"].kind == "file" and found["var/spool"].group == "slurm"


def test_a_nearer_profile_counts(tmp_path: Path) -> None:
    for name in ("base/overlay/etc/a", "base/overlay/etc/b.j2", "base/overlay/etc/c", "near/overlay/etc/a.j2",
                 "near/overlay/etc/b"):  # fmt: skip
        put(tmp_path, name)
    put(tmp_path, "near/overlay.toml", '["etc/c"]\nskip = true\n')
    found = by_path(overlay(tmp_path, ["base", "near"]))
    assert {path: (entry.kind, entry.profile) for path, entry in found.items()} == {
        "etc/a": ("template", "near"), "etc/b": ("file", "near"),
    }  # fmt: skip
    assert set(by_path(overlay(tmp_path, ["base"]))) == {"etc/a", "etc/b", "etc/c"}


def test_a_file_cannot_stand_where_a_folder_is_wanted(tmp_path: Path) -> None:
    put(tmp_path, "base/overlay/etc/x")
    put(tmp_path, "near/overlay/etc/x/y")
    with pytest.raises(OverlayInvalid, match=r"base/overlay/etc/x is a file, and .*near/overlay/etc/x/y wants"):
        overlay(tmp_path, ["base", "near"])


@pytest.mark.parametrize(
    ("toml", "words"),
    [
        ("x", "Expected"), ('"etc/x" = 5', "'etc/x' is not a table"), ('["etc/x"]\nuser = "a"', "has no 'user'"),
        ('["etc/x"]\nmode = "9"', "mode cannot be '9'"), ('["etc/x"]\nmode = 644', "mode cannot be '644'"),
        ('["etc/x"]\nowner = "a b"', "owner cannot be 'a b'"), ('["etc/x"]\nskip = 1', "skip is true or false"),
        ('["../x"]\nsecret = "a"', "'../x'"), ('["run/x"]\nsecret = "a"', "made anew whenever"),
        ('["etc/motd"]\nsecret = "a"', "etc/motd is there, and overlay.toml says that it is a secret"),
        ('["x"]\nsecret = ""', "secret is not the name of one"), ("#" * 300_000, "more than"),
    ],
)  # fmt: skip
def test_an_overlay_toml_that_is_wrong(tmp_path: Path, toml: str, words: str) -> None:
    put(tmp_path, "c/overlay/etc/motd")
    put(tmp_path, "c/overlay.toml", toml)
    with pytest.raises(OverlayInvalid) as caught:
        overlay(tmp_path, ["c"])
    assert words in caught.value.message and "\n" not in caught.value.message


@given(st.text(alphabet='[]"=*/ \netcmodswnrskip.truefals0123456789', max_size=60))
def test_an_overlay_toml_is_read_or_refused(text: str) -> None:
    with tempfile.TemporaryDirectory() as folder:
        put(Path(folder), "c/overlay/etc/motd")
        put(Path(folder), "c/overlay.toml", text)
        try:
            found = overlay(Path(folder), ["c"])
        except OverlayInvalid as error:
            assert "\n" not in error.message
        else:
            assert {entry.path for entry in found} <= {"etc/motd"} or "secret" in text


def test_what_no_node_can_get(tmp_path: Path) -> None:
    for name in ("proc/x", "run/y/z"):
        put(tmp_path, f"{name[0]}/overlay/{name}")
        with pytest.raises(OverlayInvalid, match="made anew whenever a system starts"):
            overlay(tmp_path, [name[0]])
    put(tmp_path, "n/overlay/etc/a\nb")
    with pytest.raises(OverlayInvalid, match="cannot be the path of a file") as caught:
        overlay(tmp_path, ["n"])
    assert "\n" not in caught.value.message
    (tmp_path / "f/overlay").mkdir(parents=True)
    os.mkfifo(tmp_path / "f/overlay/pipe")
    with pytest.raises(OverlayInvalid, match="neither a file"):
        overlay(tmp_path, ["f"])
    put(tmp_path, "d/overlay/" + "/".join("d" * 40))
    with pytest.raises(OverlayInvalid, match="folders deep"):
        overlay(tmp_path, ["d"])
    put(tmp_path, "t/overlay/etc/a")
    put(tmp_path, "t/overlay/etc/a.j2")
    with pytest.raises(OverlayInvalid, match="stands beside"):
        overlay(tmp_path, ["t"])


def test_it_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(5):
        put(tmp_path, f"c/overlay/etc/{number}", "x" * 100)
    monkeypatch.setattr(overlays, "MAX_COPIED", 400)
    with pytest.raises(OverlayInvalid, match="MiB"):
        overlay(tmp_path, ["c"])
    monkeypatch.setattr(overlays, "MAX_ENTRIES", 4)
    with pytest.raises(OverlayInvalid, match="more than 4 entries"):
        overlay(tmp_path, ["c"])


def test_a_file_that_changes_is_not_read_by_halves(tmp_path: Path) -> None:
    path = put(tmp_path, "c/overlay/etc/x", b"0123456789")
    (entry,) = overlay(tmp_path, ["c"])
    assert read(entry, 100) == b"0123456789" and read_piece(entry, 8, 5) == b"89" and read_piece(entry, 10, 5) == b""
    with pytest.raises(OverlayInvalid, match="at most 5"):
        read(entry, 5)
    path.write_bytes(b"0123456789a")
    with pytest.raises(OverlayInvalid, match="changed while it was being read"):
        read(entry, 100)
    path.unlink()
    path.symlink_to("/etc/passwd")
    with pytest.raises(OverlayInvalid, match="cannot be read"):
        read(entry, 1 << 20)


def test_scripts_run_by_name_and_the_nearer_of_one_name_counts(tmp_path: Path) -> None:
    put(tmp_path, "base/post.d/20-b", "#!/bin/sh\necho base\n", 0o755)
    put(tmp_path, "base/post.d/10-a", "#!/usr/bin/env perl\n", 0o755)
    put(tmp_path, "near/post.d/20-b", "#!/bin/sh\necho near\n", 0o700)
    put(tmp_path, "near/post.d/20-b~", "old", 0o755)
    put(tmp_path, "near/pre.d/01", "#!/usr/bin/env python3\n", 0o755)
    found = scripts(tmp_path, ["base", "near"], "post.d", 60)
    assert [(one.name, one.profile, one.seconds) for one in found] == [
        ("post.d/10-a", "base", 60), ("post.d/20-b", "near", 60),
    ]  # fmt: skip
    assert "near" in found[1].content
    assert [one.name for one in scripts(tmp_path, ["base", "near"], "pre.d", 60)] == ["pre.d/01"]


@pytest.mark.parametrize(
    ("stage", "name", "content", "mode", "words"),
    [
        ("post.d", "a", "#!/bin/sh\n", 0o644, "is not executable"), ("post.d", "a", "echo\n", 0o755, "interpreter"),
        ("post.d", "a", "", 0o755, "interpreter"), ("post.d", "a b", "#!/bin/sh\n", 0o755, "name no script can have"),
        ("post.d", "a", b"#!/bin/sh\n\xff", 0o755, "not text"),
        ("post.d", "a", "#!/bin/sh\n" + "x" * 70_000, 0o755, "at most"),
        ("pre.d", "a", "#!/bin/bash\n", 0o755, "the installer has sh"),
        ("pre.d", "a", "#!/usr/bin/env perl\n", 0o755, "perl"),
    ],
)  # fmt: skip
def test_scripts_that_would_fail_are_refused_before(
    tmp_path: Path, stage: str, name: str, content: str | bytes, mode: int, words: str
) -> None:
    path = put(tmp_path, f"c/{stage}/{name}", content, mode)
    with pytest.raises(OverlayInvalid) as caught:
        scripts(tmp_path, ["c"], stage, 60)
    assert words in str(caught.value) and str(path) in caught.value.message
