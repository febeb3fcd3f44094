"""One order carried out: plan, partition, write, grow, fit, boot. Raises GildError wherever it cannot go on.

Until the head has taken the prediction, nothing is written. From then until the boot loader is in place, nothing on
the disk can be started: boot code goes first, and the first chunk of every partition comes last.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from images import workers
from images.errors import CommandFailed, GildError
from images.manifest import MAX_MANIFEST, WHOLE, Manifest, Partition, Run, decode_manifest, decode_runs, used_bytes
from netboot.agent import boot, disk, drivers, localise, overlay, probe, scripts, wipe, writing
from netboot.agent.download import fetch
from netboot.agent.kexec import KexecFailed
from netboot.agent.link import Link
from netboot.agent.machine import Machine
from netboot.agent.reporter import Reporter
from netboot.disks import choose, describe
from netboot.layout import Placed, check_whole, fitted, place
from netboot.layout import describe as describe_layout
from netboot.plan import BootPiece, InstallPlan
from netboot.report import OWN_LOADER, Disk, Facts, Phase, Report
from netboot.wire import WIRE

HEAR_PATIENCE = 300.0  # seconds for the head to take the prediction, without which nothing is written
FINISHES = ("kexec", "reboot", "poweroff")
VERIFIES = ("none", "sample", "full")
MAX_RUNS = 1 << 30  # bytes of one runs file
MAX_PIECE = 64 << 20  # bytes of one boot loader file


class PlanRefused(GildError):
    """The head's plan cannot be carried out on this machine; nothing was written."""


class Cancelled(GildError):
    """The head took the order back."""


@dataclass(frozen=True)
class Filling:
    """What the image puts into one partition."""

    placed: Placed | None  # None: the whole disk
    partition: Partition
    runs: Sequence[Run]
    used: int  # bytes that count for progress

    def device(self, path: str) -> str:
        """The device to write, on the disk at `path`."""
        return disk.part_path(path, self.placed.number) if self.placed else path


@dataclass(frozen=True)
class Job:
    """A plan that has been checked against this machine to its end."""

    plan: InstallPlan
    facts: Facts
    disk: Disk
    manifest: Manifest
    placed: tuple[Placed, ...]
    fillings: tuple[Filling, ...]


class Tenths:
    """Says after every tenth how far the writing is and how fast it goes, for whoever stands before the machine."""

    def __init__(self, total: int, log: Callable[[str], None], clock: Callable[[], float] = time.monotonic) -> None:
        self.total, self.log, self.clock = total, log, clock
        self.begun, self.told = clock(), 0

    def at(self, done: int) -> None:
        """So many bytes are right."""
        tenth = 10 * done // self.total if self.total else 0
        if self.told < tenth < 10:
            self.told = tenth
            speed = done / max(0.001, self.clock() - self.begun) / 1e6
            self.log(f"{tenth}0 % of {self.total / 1e6:.0f} MB, {speed:.0f} MB/s")


def install(machine: Machine, link: Link, reporter: Reporter, log: Callable[[str], None], token: str, mac: str) -> str:
    """Use the order up and do what it says. Returns how to leave: "kexec" (the kernel is loaded), "reboot" or
    "poweroff". Raises GildError with a reason for people."""
    plan = link.plan(token)
    log(f"order {plan.order}: {plan.image} for {plan.node}")
    plan = overlay.gather(plan, link, machine.run, log)
    facts = machine.facts(mac)
    if plan.pre:
        scripts.before(plan, _disk(plan, facts), machine.run, _heeding(reporter, log))
        facts = machine.facts(mac)  # a script may have made a disk, of a RAID controller say
    job = prepare(plan, facts)
    told = f"{describe(job.disk)} -> {'all of it' if job.manifest.whole else describe_layout(job.placed)}"
    log(f"writing to {told}")
    for other in job.facts.disks:
        if other.path != job.disk.path and other.content.startswith("gild "):
            log(f"beware: {describe(other)} holds a system with the same filesystem UUIDs; wipe or remove it")
    reporter.event(Report("", phase=Phase.PLAN, disk=told))
    if not reporter.flush(HEAR_PATIENCE):
        raise PlanRefused("the head did not take the prediction of what would be erased; nothing was written")

    try:
        _phase(reporter, Phase.PARTITION)
        held = seize(machine, job, log) if job.manifest.whole else partition(machine, job, log)
        _phase(reporter, Phase.WRITE)
        write(job, held, reporter, log)
        machine.drop_caches()
        if job.manifest.whole:
            return leave_alone(job, reporter, log)
        _phase(reporter, Phase.GROW)
        root = grow_and_mount(machine, job, log)
        _phase(reporter, Phase.FIT)
        return fit(machine, job, root, reporter, log)
    finally:
        _let_go(machine, log)


def prepare(plan: InstallPlan, facts: Facts) -> Job:
    """Check everything that can be known before the first byte is written. Raises GildError."""
    if plan.wire != WIRE:
        raise PlanRefused(f"the plan is of wire version {plan.wire}, this agent speaks {WIRE}", "restart the machine")
    for what, value, known in (("finish", plan.finish, FINISHES), ("verify", plan.verify, VERIFIES)):
        if value not in known:
            raise PlanRefused(f"the plan wants {what} {value[:40]!r}", f"known are {', '.join(known)}")
    target = choose(facts.disks, plan.disk)
    manifest = decode_manifest(fetch(plan.sources, f"/manifests/{plan.manifest}", plan.manifest, MAX_MANIFEST))
    if manifest.arch not in (facts.arch, {"x86_64": "amd64", "aarch64": "arm64"}.get(facts.arch)):
        raise PlanRefused(f"{manifest.ref} is for {manifest.arch} and this machine is {facts.arch}")
    contents = {part.role: part for part in manifest.partitions}
    if manifest.whole:
        check_whole(manifest, target.size, target.sector)
        filling = _filling(None, contents[WHOLE], manifest, plan)
        return Job(plan, facts, target, manifest, (), (filling,))
    plan = replace(plan, layout=fitted(plan.layout, manifest))
    sizes = {role: part.size for role, part in contents.items()}
    placed = place(plan.layout, target.size, facts.memory, sizes, sector=target.sector)
    fillings = [_filling(p, contents[p.part.role], manifest, plan) for p in placed if p.part.role]
    return Job(plan, facts, target, manifest, placed, tuple(fillings))


def _filling(placed: Placed | None, content: Partition, manifest: Manifest, plan: InstallPlan) -> Filling:
    if content.runs_bytes > MAX_RUNS:
        raise PlanRefused(f"the runs of {content.role} are {content.runs_bytes} bytes, more than {MAX_RUNS}")
    data = fetch(plan.sources, f"/runs/{content.runs_sha256}", content.runs_sha256, content.runs_bytes)
    runs = decode_runs(data, size=content.size, chunk_size=manifest.chunk_size, packs=len(manifest.packs))
    return Filling(placed, content, runs, used_bytes(runs, content.size, manifest.chunk_size))


def seize(machine: Machine, job: Job, log: Callable[[str], None]) -> bool:
    """Make the disk free for an image of a whole one. True if something stands there: it is then compared, and only
    what differs is fetched."""
    log(f"found on {job.disk.path}: {job.disk.content}")
    wipe.release(job.disk.path, log, machine.sys, machine.proc)
    return job.disk.content not in ("", "empty")


def leave_alone(job: Job, reporter: Reporter, log: Callable[[str], None]) -> str:
    """The end of an image nobody looks into: it is not fitted to the node, starts by its own boot loader and calls
    nobody. Returns how to leave."""
    _phase(reporter, Phase.BOOT)
    log(f"{job.manifest.ref} is on the disk, bit for bit; it starts by its own loader")
    return "poweroff" if job.plan.finish == "poweroff" else OWN_LOADER


def partition(machine: Machine, job: Job, log: Callable[[str], None]) -> bool:
    """Bring the partitions onto the disk. True if they are there already: what the disk holds is then compared and
    only what differs is fetched, which is what resumes an interrupted installation, too."""
    log(f"found on {job.disk.path}: {job.disk.content}")
    wipe.release(job.disk.path, log, machine.sys, machine.proc)
    held = disk.matches(job.disk.path, job.placed)
    if held:
        log("the partitions are there already: only what differs will be written")
        disk.unboot(job.disk.path, job.placed)
        disk.tell_kernel(job.disk.path, job.placed, sys=machine.sys)
    else:
        disk.partition(job.disk, job.placed, log, sys=machine.sys)
    _mark(job, finished=False)
    for p in job.placed:
        if not p.part.role:
            disk.make(disk.part_path(job.disk.path, p.number), p)
    return held


def write(job: Job, held: bool, reporter: Reporter, log: Callable[[str], None]) -> None:
    """Bring every partition's content onto the disk, verified. Raises GildError."""
    total, before, fetched = sum(filling.used for filling in job.fillings), 0, 0
    tenths = Tenths(total, log)
    for filling in job.fillings:

        def progress(done: int, came: int, before: int = before, fetched: int = fetched) -> None:
            reporter.progress(Phase.WRITE, min(total, before + done), total, fetched + came)
            tenths.at(before + done)

        try:
            came = writing.write(
                filling.device(job.disk.path),
                filling.partition,
                filling.runs,
                job.manifest,
                job.plan.sources,
                held=held,
                verify=job.plan.verify,
                cancel=reporter.stopped,
                progress=progress,
                log=log,
            )
        except workers.Cancelled:
            _heed(reporter)
            raise
        _heed(reporter)
        before, fetched = before + filling.used, fetched + came
    reporter.event(Report("", phase=Phase.WRITE, done=total, total=total, fetched=fetched))


def grow_and_mount(machine: Machine, job: Job, log: Callable[[str], None]) -> str:
    """Grow what was written, then mount the tree. Returns the root's mount point."""
    root = f"{machine.mnt}/root"
    for filling in job.fillings:
        device = filling.device(job.disk.path)
        place_for_growing = f"{machine.mnt}/grow-{filling.partition.role}"

        def mounted(device: str, fs: str, where: str = place_for_growing) -> str:
            machine.mount(device, where, fs)
            return where

        disk.grow(device, filling.partition.fs, log, mounted)
    machine.unmount_all()
    fs = {filling.placed.number: filling.partition.fs for filling in job.fillings if filling.placed}
    mounts = [p for p in job.placed if p.part.mount.startswith("/")]
    for p in sorted(mounts, key=lambda p: (p.part.mount != "/", p.part.mount.count("/"), p.part.mount)):
        target = os.path.join(root, p.part.mount.lstrip("/")).rstrip("/")
        # The tree is the image's: a link in it must not lead the mount out of it.
        if os.path.realpath(target) != os.path.join(os.path.realpath(root), p.part.mount.lstrip("/")).rstrip("/"):
            raise PlanRefused(f"{p.part.mount} is a link in the image and cannot be mounted on", "change the layout")
        machine.mount(disk.part_path(job.disk.path, p.number), target, fs.get(p.number, p.part.fs))
    return root


def fit(machine: Machine, job: Job, root: str, reporter: Reporter, log: Callable[[str], None]) -> str:
    """Edits, boot loader, driver check; then load the kernel and let the disk go. Returns how to leave."""
    plan, facts = job.plan, job.facts

    def piece(wanted: BootPiece) -> bytes:
        if not 0 <= wanted.size <= MAX_PIECE:
            raise PlanRefused(f"boot piece {wanted.name} has an impossible size")
        return fetch(plan.sources, f"/boot/{wanted.name}", wanted.sha256, wanted.size)

    localise.fit(root, plan, facts, log)
    _heed(reporter)
    scripts.after(plan, job.disk.path, root, machine.run, _heeding(reporter, log))
    drivers.check_drivers(root, job.disk, facts, log)
    _heed(reporter)
    boot.install(root, job.disk.path, job.placed, plan, piece, facts, log)
    how = plan.finish
    if how == "kexec":
        try:
            kernel = boot.kernel_of(root, plan)
            machine.load_kernel(kernel.path, kernel.initrd, kernel.cmdline)
        except (KexecFailed, CommandFailed) as error:
            log(f"{error}; restarting through the firmware instead")
            how = "reboot"
    _phase(reporter, Phase.BOOT)
    machine.unmount_all()
    machine.drop_caches()
    _mark(job, finished=True)
    log(f"{job.manifest.ref} is on the disk; leaving by {how}")
    return how


def _mark(job: Job, *, finished: bool) -> None:
    disk.mark(job.disk.path, probe.Mark(job.plan.image, job.plan.node, job.plan.manifest, finished))


def _phase(reporter: Reporter, phase: Phase) -> None:
    _heed(reporter)
    reporter.event(Report("", phase=phase))


def _disk(plan: InstallPlan, facts: Facts) -> str:
    """The device that would be written now, "" if that cannot be said yet."""
    try:
        return choose(facts.disks, plan.disk).path
    except GildError:
        return ""


def _heeding(reporter: Reporter, log: Callable[[str], None]) -> Callable[[str], None]:
    """`log` for what runs long: the next line after the order was taken back ends it."""

    def line(text: str) -> None:
        _heed(reporter)
        log(text)

    return line


def _heed(reporter: Reporter) -> None:
    if reporter.stopped.is_set():
        raise Cancelled(f"the head took the order back: {reporter.stop}")


def _let_go(machine: Machine, log: Callable[[str], None]) -> None:
    """Whatever happened, nothing stays mounted: a later order may want the same disk."""
    try:
        machine.unmount_all()
    except GildError as error:
        log(str(error))
