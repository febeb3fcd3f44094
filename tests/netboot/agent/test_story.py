"""The agent's whole story: waiting room, order, disk, system, and every way in which it may go wrong."""

from __future__ import annotations

import os
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from netboot.agent import disk, facts, localise
from netboot.agent.install import Tenths
from netboot.plan import DiskRule
from netboot.report import PLAN, REPORT, Answer, Disk, Do, Phase, Report
from tests.netboot.agent.lightnode import DISK_SIZE, INSTALL, LAYOUT, MIB, OFF, TOKEN, Image, LightMachine, tell
from tests.netboot.agent.loopdisk import loop_disk, needs_root
from tests.netboot.agent.smallhead import SmallHead, certificate

pytestmark = needs_root


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Image:
    return Image(tmp_path_factory.mktemp("image"))


@pytest.fixture
def head(tmp_path: Path, image: Image) -> Iterator[SmallHead]:
    with SmallHead(certificate(tmp_path), image.find) as head:
        head.plan = image.plan(head)
        head.answers = [INSTALL, OFF]
        yield head


class Bench:
    """One loop disk as the only disk of a light machine."""

    def __init__(self, folder: Path, found: Disk) -> None:
        self.folder, self.path, self.driver = folder, found.path, "ahci"

    def disks(self) -> tuple[Disk, ...]:
        return (replace(facts.read_disk(os.path.basename(self.path)), driver=self.driver, serial="LOOP"),)

    def tell(self, head: SmallHead, *, refuse_kexec: bool = False) -> LightMachine:
        return tell(self.folder, head, self.disks, refuse_kexec=refuse_kexec)

    def read(self, offset: int, length: int) -> bytes:
        fd = os.open(self.path, os.O_RDONLY)
        try:
            return os.pread(fd, length, offset)
        finally:
            os.close(fd)

    def write(self, offset: int, data: bytes) -> None:
        fd = os.open(self.path, os.O_WRONLY)
        try:
            os.pwrite(fd, data, offset)
            os.fsync(fd)
        finally:
            os.close(fd)

    @contextmanager
    def root(self) -> Iterator[Path]:
        """The installed tree."""
        where = self.folder / "look"
        where.mkdir(exist_ok=True)
        subprocess.run(["mount", "-o", "ro,noload", disk.part_path(self.path, 4), where], check=True)
        try:
            yield where
        finally:
            subprocess.run(["umount", where], check=True)

    def bootable(self) -> bool:
        """Whether anything would start: boot code, a core image, or a root filesystem."""
        core, root = self.read(MIB, 512), self.read(42 * MIB + 16 * MIB + MIB, 4096)
        return any(self.read(0, 440)) or any(core) or root[1080:1082] == b"\x53\xef"


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    with loop_disk(tmp_path, DISK_SIZE) as found:
        yield Bench(tmp_path, found)


def failures(head: SmallHead) -> list[str]:
    return [report.failed for report in head.reports if report.failed]


def phases(head: SmallHead) -> list[Phase]:
    told = [report.phase for report in head.reports if report.phase is not None]
    return [phase for n, phase in enumerate(told) if n == 0 or told[n - 1] is not phase]


def test_from_the_waiting_room_to_an_installed_system(bench: Bench, head: SmallHead) -> None:
    head.answers = [Answer(Do.WAIT, number=12), Answer(Do.WAIT, node="n17"), INSTALL, OFF]
    predicted: list[bytes] = []

    def bend(path: str, message: object) -> None:
        if isinstance(message, Report) and message.disk:
            predicted.append(bench.read(0, 2 * MIB))

    head.bend = bend
    machine = bench.tell(head)

    assert (machine.left, failures(head)) == ("kexec", []), machine.screen
    assert [ask.token for ask in head.asks] == [TOKEN]
    assert phases(head) == [phase for phase in Phase if phase is not Phase.READ]
    assert predicted == [bytes(2 * MIB)]  # told before anything was written
    (told,) = {report.disk for report in head.reports if report.disk}
    assert "serial LOOP (empty) -> bios 1 MiB, esp 40 MiB, swap 16 MiB, root 341 MiB" in told
    assert (head.reports[-1].finished, head.reports[-1].finish) == (True, "kexec")
    assert failures(head) == []
    assert "WAITING ROOM, NUMBER 12" in "\n".join(machine.screen)
    assert not [line for line in [*machine.screen, *head.lines()] if TOKEN in line]
    written = [report for report in head.reports if report.phase is Phase.WRITE]
    assert written and all(report.done <= report.total for report in written)

    assert bench.read(0, 440) != bytes(440) and bench.read(510, 2) == b"\x55\xaa"
    assert bench.disks()[0].content == "gild compute:1 (n17)"
    assert machine.kernel is not None and machine.kernel[2].endswith("quiet")
    with bench.root() as root:
        assert (root / "etc/hostname").read_text() == "n17\n"
        fstab = (root / "etc/fstab").read_text()
        for number in (2, 3, 4):
            assert localise.superblock(disk.part_path(bench.path, number))[1] in fstab
    root_device = disk.part_path(bench.path, 4)
    heads = subprocess.run(["dumpe2fs", "-h", root_device], capture_output=True, text=True, check=True).stdout
    assert f"Block count:              {341 * MIB // 4096}\n" in heads  # grown
    subprocess.run(["e2fsck", "-fn", root_device], capture_output=True, check=True)
    assert Path("/proc/mounts").read_text().count(bench.path) == 0


def test_again_fetches_only_what_differs(bench: Bench, head: SmallHead) -> None:
    bench.tell(head)
    first = max(report.fetched for report in head.reports)
    head.answers, head.reports = [INSTALL, OFF], []
    machine = bench.tell(head)
    assert machine.left == "kexec"
    assert any("only what differs" in line for line in head.lines())
    assert max(report.fetched for report in head.reports) < first / 2
    with bench.root() as root:
        assert (root / "etc/hostname").read_text() == "n17\n"


def test_a_broken_off_install_cannot_start_and_is_finished_by_the_next(
    bench: Bench, head: SmallHead, image: Image
) -> None:
    served: list[str] = []

    def running_dry(path: str) -> Path | bytes | None:
        served.append(path)
        return None if len([p for p in served if p.startswith("/packs/")]) > 1 else image.find(path)

    head.files = running_dry
    machine = bench.tell(head)
    assert machine.left == "poweroff"
    (reason,) = failures(head)
    assert "cannot be had" in reason
    assert "kernel: the last words" in head.lines()
    assert any("FAILED" in line for line in machine.screen)
    assert not bench.bootable()
    assert bench.disks()[0].content == "gild compute:1 (n17, unfinished)"

    head.files, head.answers, head.reports = image.find, [INSTALL, OFF], []
    assert bench.tell(head).left == "kexec"
    assert failures(head) == [] and bench.bootable()


def test_a_head_that_is_restarted_in_the_middle_is_harmless(bench: Bench, head: SmallHead, image: Image) -> None:
    once: list[str] = []

    def restart() -> None:
        head.close()
        head.forget()
        head.start()

    def files(path: str) -> Path | bytes | None:
        if path.startswith("/packs/") and not once:
            once.append(path)
            threading.Thread(target=restart).start()
        return image.find(path)

    head.files = files
    machine = bench.tell(head)
    assert (machine.left, failures(head)) == ("kexec", [])
    assert head.reports[-1].finished
    assert once and len(head.hellos) == 2 and head.hellos[1].token == ""
    assert len(head.asks) == 1


def test_a_cancelled_order_stops_before_the_disk_could_start(bench: Bench, head: SmallHead) -> None:
    def bend(path: str, message: object) -> None:
        if isinstance(message, Report) and message.phase is Phase.PARTITION:
            head.stop_reason = "taken back by a person"

    head.bend = bend
    assert bench.tell(head).left == "poweroff"
    assert failures(head) == ["the head took the order back: taken back by a person"]
    assert not bench.bootable()


def refused(bench: Bench, head: SmallHead, **changes: object) -> str:
    """Why a plan with these changes failed; nothing may have been written."""
    assert head.plan is not None
    head.plan = replace(head.plan, **changes)  # type: ignore[arg-type]
    bench.write(0, b"precious" * 1024)
    machine = bench.tell(head)
    assert machine.left == "poweroff"
    assert bench.read(0, 8192) == b"precious" * 1024
    assert phases(head) == []
    (reason,) = failures(head)
    return reason


def test_plans_that_do_not_fit_the_machine_write_nothing(bench: Bench, head: SmallHead) -> None:
    assert "no disk fits the rule" in refused(bench, head, disk=DiskRule(serial="OTHER"))


def test_a_layout_too_large_writes_nothing(bench: Bench, head: SmallHead) -> None:
    big = replace(LAYOUT[2], size="2GiB")
    assert "the layout needs" in refused(bench, head, layout=(*LAYOUT[:2], big, LAYOUT[3]))


def test_a_layout_that_wants_more_than_the_image_has_writes_nothing(bench: Bench, head: SmallHead) -> None:
    assert "has no partition data" in refused(bench, head, layout=(*LAYOUT[:3], replace(LAYOUT[3], role="data")))


@pytest.mark.parametrize(("field", "value"), [("wire", 99), ("finish", "explode"), ("verify", "maybe")])
def test_a_plan_of_another_head_writes_nothing(bench: Bench, head: SmallHead, field: str, value: object) -> None:
    assert str(value) in refused(bench, head, **{field: value})


@pytest.mark.parametrize("kind", ["manifests", "runs"])
def test_bytes_that_are_not_the_images_write_nothing(bench: Bench, head: SmallHead, image: Image, kind: str) -> None:
    def tampered(path: str) -> Path | bytes | None:
        found = image.find(path)
        return found.replace(b"1", b"2") if isinstance(found, bytes) and kind in path else found

    head.files = tampered
    assert "another sha256" in refused(bench, head)


def test_a_damaged_chunk_ends_the_installation_with_its_place(bench: Bench, head: SmallHead, image: Image) -> None:
    def damaged(path: str) -> Path | bytes | None:
        found = image.find(path)
        if path.startswith("/packs/") and isinstance(found, Path):
            data = bytearray(found.read_bytes())
            data[len(data) // 2] ^= 0x40
            return bytes(data)
        return found

    head.files = damaged
    bench.tell(head)
    (reason,) = failures(head)
    assert "damaged" in reason and "pack" in reason
    assert not bench.bootable()


def test_an_image_without_the_disks_driver_is_refused_by_name(bench: Bench, head: SmallHead) -> None:
    bench.driver = "pm80xx"
    bench.tell(head)
    (reason,) = failures(head)
    assert "pm80xx" in reason
    assert bench.read(0, 440) == bytes(440)  # no boot code: BIOS goes on to the network


def test_kexec_that_fails_becomes_a_restart(bench: Bench, head: SmallHead) -> None:
    assert bench.tell(head, refuse_kexec=True).left == "reboot"
    assert (head.reports[-1].finished, head.reports[-1].finish) == (True, "reboot")
    assert any("restarting through the firmware instead" in line for line in head.lines())


def test_the_same_token_is_not_tried_twice_and_a_new_order_is(bench: Bench, head: SmallHead, image: Image) -> None:
    good, head.plan = head.plan, replace(image.plan(head), disk=DiskRule(serial="OTHER"))
    asked: list[str] = []

    def bend(path: str, message: object) -> None:
        if path == PLAN:
            asked.append(message.token)  # type: ignore[attr-defined]
            if len(asked) == 2:
                head.plan = good

    head.bend = bend
    head.answers = [INSTALL, INSTALL, INSTALL, replace(INSTALL, token="ab" * 16), OFF]
    machine = bench.tell(head)
    assert asked == [TOKEN, "ab" * 16]
    assert machine.left == "kexec" and len(failures(head)) == 1
    assert machine.slept >= 10  # no hurry after a failure


def test_what_nobody_foresaw_reaches_the_head(bench: Bench, head: SmallHead, monkeypatch: pytest.MonkeyPatch) -> None:
    def stumble(*_: object) -> None:
        raise KeyError("surprise")

    monkeypatch.setattr(localise, "fit", stumble)
    bench.tell(head)
    assert failures(head) == ["the installer stumbled: KeyError: 'surprise'"]
    assert any("Traceback" in line for line in head.lines())
    assert Path("/proc/mounts").read_text().count(bench.path) == 0


@pytest.mark.parametrize(("do", "left"), [(Do.LOCAL, "reboot"), (Do.REBOOT, "reboot"), (Do.POWEROFF, "poweroff")])
def test_a_machine_without_an_order_leaves_its_disk_alone(bench: Bench, head: SmallHead, do: Do, left: str) -> None:
    bench.write(0, b"precious")
    head.answers = [Answer(do)]
    assert bench.tell(head).left == left
    assert bench.read(0, 8) == b"precious" and head.asks == []


def test_a_plan_the_head_refuses_is_no_reason_to_stop_asking(bench: Bench, head: SmallHead) -> None:
    head.plan = None
    machine = bench.tell(head)
    assert machine.left == "poweroff"
    assert failures(head) == ["no open order (make one)"]


def test_a_prediction_the_head_never_takes_writes_nothing(
    bench: Bench, head: SmallHead, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("netboot.agent.install.HEAR_PATIENCE", 0.05)
    monkeypatch.setattr("netboot.agent.__main__.TELL_PATIENCE", 0.05)
    monkeypatch.setattr("netboot.agent.__main__.LAST_WORDS", 0.05)
    bench.write(0, b"precious")

    def bend(path: str, message: object) -> tuple[int, bytes] | None:
        return (503, b"") if path == REPORT else None

    head.bend = bend
    machine = bench.tell(head)
    assert any("did not take the prediction" in line for line in machine.screen)
    assert bench.read(0, 8) == b"precious"


def test_tenths_are_told_once_each() -> None:
    lines: list[str] = []
    clock = iter(float(n) for n in range(100))
    tenths = Tenths(100_000_000, lines.append, lambda: next(clock))
    for done in range(0, 100_000_001, 4_000_000):
        tenths.at(done)
    assert [line.split(" %")[0] for line in lines] == [str(n) for n in range(10, 100, 10)]
    assert lines[0] == "10 % of 100 MB, 12 MB/s"
    Tenths(0, lines.append).at(0)
