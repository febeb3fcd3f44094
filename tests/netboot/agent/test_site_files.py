"""The site's own files and scripts through a whole installation: in place, in order, and stopping it when they fail."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from subprocess import run

import pytest

from netboot.agent import disk
from netboot.plan import Edit, Script
from netboot.report import FILE, FileAsk
from netboot.wire import decode
from tests.images.shelltree import shell_tree
from tests.netboot.agent.lightnode import DISK_SIZE, INSTALL, MIB, OFF, Image, LightMachine, tell
from tests.netboot.agent.loopdisk import loop_disk, needs_root
from tests.netboot.agent.smallhead import SmallHead, certificate
from tests.netboot.agent.test_story import Bench, failures

pytestmark = needs_root
SH = "#!/bin/sh\n"
LARGE = bytes(range(256)) * 20_000
FILES: list[dict[str, object]] = [
    {"path": "etc/motd", "content": "from the site\n", "mode": "0640"},
    {"path": "etc/key", "base64": [base64.b64encode(b"\x00\xff").decode()], "mode": "0400", "owner": "4711"},
    {"path": "etc/link", "link": "motd"},
    {"path": "opt/large", "fetch": "stamp", "size": len(LARGE), "mode": "0600"},
]


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Image:
    return Image(tmp_path_factory.mktemp("image"), shell_tree)


@pytest.fixture
def head(tmp_path: Path, image: Image) -> Iterator[SmallHead]:
    with SmallHead(certificate(tmp_path), image.find) as head:
        head.answers = [INSTALL, OFF]
        head.plan = image.plan(head)
        yield head


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    with loop_disk(tmp_path, DISK_SIZE) as found:
        yield Bench(tmp_path, found)


def serve(head: SmallHead, content: bytes) -> None:
    """Have the head answer questions for the large file."""

    def bend(path: str, message: object) -> tuple[int, bytes] | None:
        if path != FILE:
            return None
        assert isinstance(message, FileAsk) and (message.path, message.stamp) == ("opt/large", "stamp")
        return 200, content[message.offset : message.offset + (2 << 20)]

    head.bend = bend


def order(head: SmallHead, *scripts: Script, files: list[dict[str, object]] | None = None) -> None:
    assert head.plan is not None
    edits = (*head.plan.edits, Edit("files", {"files": files or []}))
    head.plan = replace(
        head.plan, edits=edits, profile="login", pre=tuple(s for s in scripts if s.name.startswith("pre")),
        post=tuple(s for s in scripts if s.name.startswith("post")),
    )  # fmt: skip


@contextmanager
def root_of(bench: Bench) -> Iterator[Path]:
    with bench.root() as root:
        yield root


def installed(bench: Bench, head: SmallHead) -> LightMachine:
    machine = tell(bench.folder, head, bench.disks)
    assert (machine.left, failures(head)) == ("kexec", []), machine.screen
    return machine


def test_files_and_scripts_find_their_places_in_order(bench: Bench, head: SmallHead) -> None:
    serve(head, LARGE)
    order(
        head,
        Script("pre.d/10", SH + "head -c 512 $GILD_DISK | tr -d '\\0' | wc -c", "login", 20),
        Script("post.d/10", SH + "cat /etc/motd /etc/hostname; echo joined > /etc/joined", "login", 20),
        Script("post.d/20", SH + "cat /etc/joined; ls -l /etc/key", "login", 20),
        files=[*FILES],
    )
    machine = installed(bench, head)
    lines = head.lines()
    assert "pre.d/10: 0" in lines and "5.1 MB of files of profile login are here" in lines  # nothing was written yet
    told = [line for line in lines if line.startswith(("post.d", "file ", "link "))]
    assert told[:9] == [
        "file etc/motd", "file etc/key", "link etc/link", "file opt/large", "post.d/10 of profile login runs",
        "post.d/10: from the site", "post.d/10: n17", "post.d/20 of profile login runs", "post.d/20: joined",
    ]  # fmt: skip
    assert lines.index("pre.d/10: 0") < lines.index(next(line for line in lines if line.startswith("writing to")))
    assert " 4711 " in told[9]
    with root_of(bench) as root:
        assert (root / "etc/motd").read_text() == "from the site\n" and (root / "etc/joined").read_text() == "joined\n"
        key, large = root / "etc/key", root / "opt/large"
        assert key.read_bytes() == b"\x00\xff" and (key.stat().st_mode & 0o7777, key.stat().st_uid) == (0o400, 4711)
        assert large.read_bytes() == LARGE and large.stat().st_mode & 0o7777 == 0o600
        assert (
            (root / "etc/link").is_symlink() and not list(root.glob("run/*")) and not list(root.glob("**/*.gild-part"))
        )
    run(["e2fsck", "-fn", disk.part_path(bench.path, 4)], capture_output=True, check=True)
    assert machine.kernel is not None


def test_a_script_that_fails_before_leaves_the_disk_as_it_was(bench: Bench, head: SmallHead) -> None:
    bench.write(0, b"old system " * 1000)
    before = bench.read(0, 4 * MIB)
    order(head, Script("pre.d/10-raid", SH + "echo no controller here >&2; exit 2", "login", 20))
    machine = tell(bench.folder, head, bench.disks)
    assert machine.left == "poweroff" and bench.read(0, 4 * MIB) == before
    (failed,) = failures(head)
    assert failed.startswith("script pre.d/10-raid of profile login failed (2): no controller here")


def test_a_script_that_fails_after_leaves_nothing_that_starts(bench: Bench, head: SmallHead) -> None:
    order(head, Script("post.d/10-join", SH + "echo trying; echo nobody to join; exit 4", "login", 20))
    machine = tell(bench.folder, head, bench.disks)
    assert machine.left == "poweroff" and machine.kernel is None
    assert failures(head)[0].startswith("script post.d/10-join of profile login failed (4): nobody to join")
    assert "post.d/10-join: trying" in head.lines()
    assert not any(bench.read(0, 440)) and not any(bench.read(MIB, 512))
    assert Path("/proc/mounts").read_text().count(bench.path) == 0


@pytest.mark.parametrize("content", [LARGE[:-1], LARGE + b"x", b""])
def test_other_bytes_than_the_plan_says_erase_nothing(bench: Bench, head: SmallHead, content: bytes) -> None:
    bench.write(0, b"old system " * 1000)
    before = bench.read(0, 4 * MIB)
    serve(head, content)
    order(head, files=[FILES[-1]])
    assert tell(bench.folder, head, bench.disks).left == "poweroff" and bench.read(0, 4 * MIB) == before
    assert "the head has other bytes of /opt/large" in failures(head)[0]


@pytest.mark.parametrize("size", [-1, 1 << 40, True, "1", None, 65 << 20])
def test_impossible_sizes_erase_nothing(bench: Bench, head: SmallHead, size: object) -> None:
    before = bench.read(0, 4 * MIB)
    order(head, files=[{**FILES[-1], "size": size}])
    assert tell(bench.folder, head, bench.disks).left == "poweroff" and bench.read(0, 4 * MIB) == before
    assert "impossible size" in failures(head)[0]


def test_a_head_that_refuses_a_file_erases_nothing(bench: Bench, head: SmallHead) -> None:
    before = bench.read(0, 4 * MIB)
    head.bend = lambda path, message: (
        (400, b'{"error":"OverlayInvalid","message":"/opt/large changed","hint":""}') if path == FILE else None
    )
    order(head, files=[FILES[-1]])
    assert tell(bench.folder, head, bench.disks).left == "poweroff" and bench.read(0, 4 * MIB) == before
    assert "/opt/large changed" in failures(head)[0]


def test_the_wire_takes_the_question() -> None:
    assert decode(FileAsk, b'{"session":"s","path":"a","stamp":"b"}') == FileAsk("s", "a", "b", 0)
