"""A node without a machine: the agent's whole story against a small head, with a loop device for a disk."""

from __future__ import annotations

import hashlib
import json
import os
import random
import re
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

from images import working
from images.options import Options
from images.store import Store
from netboot.agent.__main__ import story
from netboot.agent.kexec import KexecFailed
from netboot.agent.machine import Machine
from netboot.agent.network import Address
from netboot.plan import BootPiece, DiskRule, Edit, InstallPlan, LayoutPart, Network
from netboot.report import Answer, Disk, Do, Facts, Nic
from tests.images.tinytree import tiny_tree
from tests.netboot.agent.smallhead import SmallHead, public

MIB = 1 << 20
MAC = "52:54:00:00:77:01"
TOKEN = "70c3e7" * 6
LAYOUT = (
    LayoutPart("bios", "bios", "1MiB"),
    LayoutPart("esp", "esp", "40MiB", fs="vfat", mount="/boot/efi", label="ESP"),
    LayoutPart("swap", "swap", "16MiB", fs="swap", mount="swap", label="swap"),
    LayoutPart("root", "linux", "rest", fs="ext4", mount="/", role="root"),
)
DISK_SIZE = 400 * MIB


@dataclass
class LightMachine(Machine):
    """A machine whose disks are `disks`; it writes down how it left instead of leaving."""

    disks: Callable[[], tuple[Disk, ...]] = tuple
    command: dict[str, str] = field(default_factory=dict)
    screen: list[str] = field(default_factory=list)
    left: str = ""
    kernel: tuple[str, str, str] | None = None
    refuse_kexec: bool = False
    slept: float = 0.0

    def words(self) -> dict[str, str]:
        return self.command

    def say(self, line: str) -> None:
        self.screen.append(line)

    def sleep(self, seconds: float) -> None:
        self.slept += seconds

    def wake(self, mac: str) -> bool:
        return True

    def facts(self, mac: str) -> Facts:
        return Facts(
            firmware="bios", vendor="Acme", product="Light", arch="x86_64", memory=512 * MIB, disks=self.disks(),
            nics=(Nic("eth0", MAC, link=True, boot=True),),
        )  # fmt: skip

    def network(self, log: Callable[[str], None], mac: str, given: Address | None) -> tuple[Nic, Address]:
        return Nic("eth0", MAC, link=True, boot=True), Address("127.0.0.1", 8)

    def mount(self, source: str, target: str, fs: str) -> None:
        if fs == "vfat" and "vfat" not in Path("/proc/filesystems").read_text().split():
            os.makedirs(target, exist_ok=True)  # this kernel has none: the ESP's files then lie in the root
            return
        super().mount(source, target, fs)

    def drop_caches(self) -> None:
        os.sync()

    def load_kernel(self, kernel: str, initrd: str, cmdline: str) -> None:
        if self.refuse_kexec:
            raise KexecFailed("loading the kernel for kexec failed: Operation not permitted")
        assert Path(kernel).read_bytes() and Path(initrd).read_bytes()
        self.kernel = kernel, initrd, cmdline

    def leave(self, how: str) -> None:
        self.left = how

    def kernel_lines(self) -> list[str]:
        return ["kernel: the last words"]


class Image:
    """A published image of a tiny system, its boot files, and the plan to install it."""

    def __init__(self, folder: Path, tree_of: Callable[[Path], Path] = tiny_tree) -> None:
        self.store = Store(folder / "store")
        tree = tree_of(folder / "tree")
        (tree / "usr/lib/systemd").mkdir(parents=True)
        (tree / "usr/lib/systemd/systemd").write_bytes((tree / "usr/bin/env").read_bytes())
        (tree / "usr/lib/large").write_bytes(random.Random(3).randbytes(8 * MIB))
        (tree / "sbin").mkdir(exist_ok=True)
        (tree / "sbin/init").symlink_to("/usr/lib/systemd/systemd")
        with self.store.lineage_lock("compute"):
            self.manifest = working.publish_tree(self.store, "compute", tree, Options(tag=True))
        _, self.digest = self.store.load("compute")
        boot = bytearray(random.Random(1).randbytes(512))
        boot[510:] = b"\x55\xaa"
        self.pieces = {"boot.img": bytes(boot), "core.img": random.Random(2).randbytes(60_000)}

    def find(self, path: str) -> Path | bytes | None:
        """The public files of the head."""
        match = re.fullmatch(r"/(packs|manifests|runs|boot)/([a-z0-9.-]+)", path)
        if match is None:
            return None
        kind, name = match.groups()
        if kind == "boot":
            return self.pieces.get(name)
        if kind == "packs":
            return self.store.pack_path(name.removesuffix(".pack"))
        # The image has one partition, so the version's runs are that partition's.
        return self.store.manifest_bytes(name) if kind == "manifests" else self.store.runs_bytes("compute", 1)

    def plan(self, head: SmallHead, **more: object) -> InstallPlan:
        """An order for this image from that head."""
        plan = InstallPlan(
            order="7", node="n17", image=self.manifest.ref, manifest=self.digest,
            sources=(f"http://{head.address}:{head.http_port}",), disk=DiskRule(), layout=LAYOUT,
            network=Network(MAC, "10.77.0.17", 24),
            edits=(Edit("hostname", {"name": "n17"}), Edit("fstab")),
            boot=tuple(
                BootPiece(name, hashlib.sha256(data).hexdigest(), len(data)) for name, data in self.pieces.items()
            ),
            cmdline="quiet",
        )  # fmt: skip
        return replace(plan, **more)  # type: ignore[arg-type]


def tell(
    folder: Path, head: SmallHead, disks: Callable[[], tuple[Disk, ...]], *, refuse_kexec: bool = False
) -> LightMachine:
    """The whole story of one boot; the head's answers have to end it."""
    etc = folder / "etc"
    etc.mkdir(exist_ok=True)
    (etc / "head.pem").write_text(public(head.pem))
    (etc / "settings.json").write_text(json.dumps({"head": "127.0.0.1", "https_port": head.port}))
    machine = LightMachine(etc=str(etc), run=str(folder / "run"), mnt=str(folder / "mnt"))
    machine.disks, machine.refuse_kexec = disks, refuse_kexec
    machine.command = {"BOOTIF": "01-" + MAC.replace(":", "-"), "gild.token": TOKEN}
    assert story(machine) == 0
    return machine


INSTALL = Answer(Do.INSTALL, node="n17")
OFF = Answer(Do.POWEROFF, node="n17")
