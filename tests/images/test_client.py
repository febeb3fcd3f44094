"""What a golden client says of itself, what it lacks, and the scripts its shell runs."""

from __future__ import annotations

import re
import shlex
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from images.errors import SourceInvalid
from images.sources.client import Client, choose, new_mark, probe, read_facts, reading
from images.sources.leftout import Left, Mount, Selection, Wishes

SAID = b"""== root
 /
== system
 Linux
== host
 gold
== kernel
 6.1.0-9-amd64
== machine
 x86_64
== user
 0
== tar
 tar (GNU tar) 1.34
== check
 exit 0
== release
 "debian"
== used
 4096 1000 400
== boot
 0a-1b
== mounts
 20 1 8:1 / / rw,relatime - ext4 /dev/sda1 rw
 == not a section
== swaps
 Filename Type Size Used Priority
== running
 bash
 mysqld
== end
"""
CLIENT = read_facts(SAID)


def test_facts_are_read() -> None:
    assert replace(CLIENT, mounts=(), swaps=(), check=()) == Client(
        "/", "Linux", "gold", "6.1.0-9-amd64", "x86_64", "0", "tar (GNU tar) 1.34", (), "debian", 4096 * 600, "0a-1b",
        (), (), ("bash", "mysqld"),
    )  # fmt: skip
    assert CLIENT.mounts == (Mount("/", "/", "ext4", "rw"),)
    selection = choose(CLIENT, Wishes())
    assert selection.taken == ("/",) and "mysqld runs" in selection.warnings[0]


@pytest.mark.parametrize(
    ("change", "words", "hint"),
    [
        ({"system": "FreeBSD"}, "gold runs FreeBSD", ""),
        ({"user": "1000"}, "needs root", "sudo"),
        ({"tar": "bsdtar 3.6.2 - libarchive 3.6.2"}, "gold has bsdtar 3.6.2", "apt install tar"),
        ({"tar": "tar (busybox) 1.36.1", "release": "alpine"}, "has tar .busybox", "apk add tar"),
        ({"tar": "sh: 1: tar: not found", "release": "fedora"}, "has no tar", "dnf install tar"),
        ({"tar": "", "release": "arch"}, "has no tar", "pacman -S tar"),
        ({"check": ("tar: unrecognized option '--xattrs'", "exit 64")}, "too old: tar: unrecognized", "1.27"),
        ({"check": ()}, "too old", "1.27"),
    ],
)
def test_what_a_client_lacks_is_named(change: dict[str, object], words: str, hint: str) -> None:
    with pytest.raises(SourceInvalid, match=words) as caught:
        choose(replace(CLIENT, **change), Wishes())  # type: ignore[arg-type]
    assert hint in caught.value.hint


def test_what_tar_cannot_keep_is_a_warning() -> None:
    client = replace(CLIENT, check=("tar: XATTR support is not available", "exit 0"))
    assert "tar: XATTR support is not available" in choose(client, Wishes()).warnings


def test_an_answer_that_is_cut_off_is_no_answer() -> None:
    for length in range(0, len(SAID) - 4, 7):
        with pytest.raises(SourceInvalid, match="ended before"):
            read_facts(SAID[:length])


@given(st.binary(max_size=400))
def test_any_answer_is_read_or_refused(noise: bytes) -> None:
    try:
        client = read_facts(noise + b"\n== end\n")
        choose(client, Wishes())
    except SourceInvalid:
        return
    assert client.host.isprintable()


@pytest.mark.parametrize("shell", ["sh", "bash"])
def test_this_machine_can_be_asked(shell: str, tmp_path: Path) -> None:
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc/os-release").write_text("NAME=x\nID=gentoo\nID_LIKE=y\n")
    done = subprocess.run([shell, "-s"], input=probe(str(tmp_path)).encode(), capture_output=True, check=True)
    client = read_facts(done.stdout)
    assert (client.root, client.system, client.release) == (str(tmp_path), "Linux", "gentoo")
    assert client.check == ("exit 0",) and "GNU tar" in client.tar and client.used > 0 and client.running
    assert not done.stderr


def test_the_reading_script_quotes_what_it_is_given() -> None:
    evil = "/a'; touch /tmp/evil; '/$(id) MARK"
    script = reading(Selection(("/",), (Left(evil, "x"),)), evil, "m4rk")
    assert shlex.quote(f"--exclude=.{evil}") in script and f"cd {shlex.quote(evil)} ||" in script
    assert script.count("m4rk") == 2


def test_marks_are_new_and_plain() -> None:
    assert new_mark() != new_mark() and re.fullmatch(r"gild-[0-9a-f]{32}", new_mark())
