"""Images that are not one root: a system with a /boot of its own, and a disk kept bit for bit."""

from __future__ import annotations

import os
import random
import re
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from images import ext4, working
from images.options import Options
from images.publish import Part
from netboot.agent import disk, facts
from netboot.plan import DiskRule
from netboot.report import OWN_LOADER, Disk, Phase
from tests.images.tinytree import tiny_tree
from tests.netboot.agent.lightnode import INSTALL, MIB, OFF, Image, tell
from tests.netboot.agent.loopdisk import loop_disk, needs_root
from tests.netboot.agent.smallhead import SmallHead, certificate

pytestmark = needs_root
WHOLE_SIZE = 24 * MIB


class Several(Image):
    """Partitions that `fill` makes, as the only version of the lineage."""

    def find(self, path: str) -> Path | bytes | None:
        match = re.fullmatch(r"/runs/([0-9a-f]{64})", path)
        if match is None:
            return super().find(path)
        data, at = self.store.runs_bytes(self.manifest.name, self.manifest.version), 0
        for part in self.manifest.partitions:
            if part.runs_sha256 == match[1]:
                return data[at : at + part.runs_bytes]
            at += part.runs_bytes
        return None

    def publish(self, parts: list[Part]) -> Several:
        """Publish files as the version to install."""

        def fill(directory: Path) -> tuple[list[Part], dict[str, object]]:
            moved = [replace(part, file=directory / f"{part.role}.img") for part in parts]
            for part, copy in zip(parts, moved, strict=True):
                shutil.copyfile(part.file, copy.file)
            return moved, {"kind": "test"}

        self.manifest = working.from_parts(self.store, "several", fill, Options())
        self.digest = self.store.load("several")[1]
        return self


@pytest.fixture
def head(tmp_path: Path, image: Several) -> Iterator[SmallHead]:
    with SmallHead(certificate(tmp_path), image.find) as head:
        head.plan = image.plan(head)
        head.answers = [INSTALL, OFF]
        yield head


@pytest.fixture(scope="module")
def image(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Several:
    folder = tmp_path_factory.mktemp("several")
    return request.param(folder)  # type: ignore[no-any-return]


def split(folder: Path) -> Several:
    """A system whose boot/ is a filesystem of its own."""
    image = Several(folder)
    tree = tiny_tree(folder / "split")
    (tree / "usr/lib/systemd").mkdir(parents=True)
    (tree / "usr/lib/systemd/systemd").write_bytes((tree / "usr/bin/env").read_bytes())
    (tree / "sbin").mkdir(exist_ok=True)
    (tree / "sbin/init").symlink_to("/usr/lib/systemd/systemd")
    boot = folder / "boot"
    shutil.move(tree / "boot", boot)
    (tree / "boot").mkdir()
    parts = []
    for role, source, mount, size in (("root", tree, "/", 160 * MIB), ("boot", boot, "/boot", 160 * MIB)):
        file = folder / f"{role}.img"
        ext4.make(source, file, name=role, identity=ext4.filesystem_uuid(role), size=size, inodes=500)
        parts.append(Part(role, file, "ext4", mount))
    return image.publish(parts)


def whole(folder: Path) -> Several:
    """A disk nobody can read into."""
    file = folder / "disk.raw"
    with file.open("wb") as disk:
        disk.write(random.Random(9).randbytes(3 * MIB))
        disk.truncate(WHOLE_SIZE)
    return Several(folder).publish([Part("whole", file, "whole", "")])


def seen(found: Disk) -> tuple[Disk, ...]:
    return (replace(facts.read_disk(os.path.basename(found.path)), driver="ahci", serial="LOOP"),)


@pytest.mark.parametrize("image", [split], indirect=True)
def test_a_partition_the_layout_does_not_name_gets_its_place(tmp_path: Path, head: SmallHead, image: Several) -> None:
    assert image.manifest.system["mounts"] == {"root": "/", "boot": "/boot"}
    with loop_disk(tmp_path, 600 * MIB) as found:
        assert tell(tmp_path, head, lambda: seen(found)).left == "kexec", head.lines()
        table = disk.read_table(found.path)
        assert [row["name"] for row in table] == ["bios", "esp", "swap", "boot", "root"]
        at = tmp_path / "look"
        at.mkdir()
        subprocess.run(["mount", "-o", "ro,noload", disk.part_path(found.path, 4), at], check=True)
        try:
            assert any(at.glob("vmlinuz*"))
        finally:
            subprocess.run(["umount", at], check=True)
        subprocess.run(["mount", "-o", "ro,noload", disk.part_path(found.path, 5), at], check=True)
        try:
            fstab = (at / "etc/fstab").read_text()
            assert f"UUID={ext4.filesystem_uuid('boot')}" in fstab and not any((at / "boot").glob("vmlinuz*"))
        finally:
            subprocess.run(["umount", at], check=True)


@pytest.mark.parametrize("image", [whole], indirect=True)
@pytest.mark.parametrize("dirty", [False, True])
def test_a_whole_disk_comes_back_bit_for_bit(tmp_path: Path, head: SmallHead, image: Several, dirty: bool) -> None:
    with loop_disk(tmp_path, WHOLE_SIZE + 8 * MIB) as found:
        if dirty:
            with open(found.path, "r+b") as old:
                old.write(b"\xff" * (WHOLE_SIZE + 8 * MIB))
        machine = tell(tmp_path, head, lambda: seen(found))
        assert machine.left == "reboot", head.lines()
        with open(found.path, "rb") as new, open(tmp_path / "expected", "wb+") as expected:
            working.restore(image.store, image.manifest, 0, Path(expected.name))
            assert new.read(WHOLE_SIZE) == Path(expected.name).read_bytes()
            assert set(new.read()) == ({0xFF} if dirty else {0})
    phases = [report.phase for report in head.reports if report.phase]
    assert Phase.FIT not in phases and head.reports[-1].finish == OWN_LOADER


@pytest.mark.parametrize("image", [whole], indirect=True)
def test_a_disk_that_is_too_small_for_a_whole_one_stays_as_it_is(tmp_path: Path, head: SmallHead) -> None:
    head.plan = replace(head.plan, disk=DiskRule()) if head.plan else None
    with loop_disk(tmp_path, WHOLE_SIZE - 4 * MIB) as found:
        with open(found.path, "r+b") as old:
            old.write(b"\xee" * MIB)
        tell(tmp_path, head, lambda: seen(found))
        with open(found.path, "rb") as new:
            assert new.read(MIB) == b"\xee" * MIB
    assert any("is a whole disk of 24 MiB and the disk has 20 MiB" in report.failed for report in head.reports)
