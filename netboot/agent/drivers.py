"""Whether the installed system can reach its own disk: the check that stands between an install and a dead node."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager

from images import rebuild
from images.errors import CommandFailed, GildError, SourceInvalid, ToolMissing
from images.initramfs import MAX_FILE, initramfs_names, modules_in
from images.rebuild import FILESYSTEMS
from images.run import run
from images.tree import Tree
from netboot.agent.entry import Entry, default_entry
from netboot.report import Disk, Facts

REBUILD_TIME = 900.0  # seconds; measured 17 to 47 on two shared processors
# What a driver needs beside itself and no initramfs tool follows by itself, since no module names it.
WITH = {"virtio_blk": ("virtio_pci",), "virtio_scsi": ("virtio_pci", "sd_mod")}
NO_SCSI_DISK = ("nvme", "virtio_blk", "mmc_block", "xen_blkfront", "loop")  # these bring block devices of their own
_KO = re.compile(r"(.+)\.ko(?:\.(?:xz|zst|gz))?")


class DriverMissing(GildError):
    """The installed system would not find its disk."""


def check_drivers(root: str, disk: Disk, facts: Facts, log: Callable[[str], None], sys: str = "/sys") -> None:
    """See that the initramfs of the kernel that starts first holds the drivers of `disk` and of the root filesystem, or
    that they are built in; else have the image's own tool make it anew for all machines. Raises DriverMissing."""
    tree = Tree(root)
    entry = default_entry(tree)
    if entry is None:
        raise DriverMissing("the image has no kernel in boot/", "add the distribution's kernel package to the image")
    if not disk.driver:
        log(f"the driver of {disk.path} is not known here, so the initramfs was not checked for it")
        return
    wanted = list(dict.fromkeys([*needed(disk), *chain(disk.path, sys), *filesystem(root)]))
    missing = lacking(tree, entry, wanted)
    if not missing:
        log(f"kernel {entry.version} has {', '.join(wanted)} for {disk.path}")
        return
    kernel = entry.version or entry.kernel
    what = f"the initramfs of kernel {kernel} lacks the driver {', '.join(missing)} for disk {disk.path}"
    absent = [name for name in missing if name not in available(tree, entry.version)]
    if absent:
        raise DriverMissing(
            f"{what}, and the kernel itself has no module {', '.join(absent)}",
            "use the distribution's generic kernel in the image (Debian: linux-image-amd64, not -cloud)",
        )
    log(f"{what}: making it anew")
    try:
        make(tree, entry, missing)
    except (CommandFailed, ToolMissing) as error:
        raise DriverMissing(f"{what}, and making it anew failed: {error.message}") from None
    entry = default_entry(tree) or entry
    missing = lacking(tree, entry, wanted)
    if missing:
        raise DriverMissing(f"{what}, also after it was made anew", "rebuild the image's initramfs for all machines")
    log(f"the new initramfs has {', '.join(wanted)}")


def needed(disk: Disk) -> list[str]:
    """Modules without which the disk does not show: its controller's, and what stands between that and the disk."""
    driver = disk.driver.replace("-", "_")
    more = WITH.get(driver, () if driver in NO_SCSI_DISK else ("sd_mod",))
    return [driver, *(name for name in more if name != driver)]


def chain(path: str, sys: str = "/sys") -> list[str]:
    """Modules of every driver from the disk up to its bus, such as nvme and vmd behind it. One that is built into the
    installer's kernel shows no module and is left out: buses, mostly, that are built into all of them."""
    at = os.path.realpath(f"{sys}/class/block/{os.path.basename(path)}")
    top, found = os.path.realpath(sys), list[str]()
    while at.startswith(f"{top}/"):
        module = f"{at}/driver/module"
        if os.path.islink(module):
            found.append(os.path.basename(os.path.realpath(module)).replace("-", "_"))
        at = os.path.dirname(at)
    return list(dict.fromkeys(found))


def filesystem(root: str, mounts: str = "/proc/self/mounts") -> list[str]:
    """The module of the filesystem that is mounted at `root`, [] if none is."""
    place, found = os.path.realpath(root), ""
    with open(mounts, encoding="utf-8", errors="surrogateescape") as file:
        for line in file:
            _, where, fs, *_ = [*line.split(" "), "", "", ""]
            found = fs if where == place else found
    return [found] if found in FILESYSTEMS else []


def lacking(tree: Tree, entry: Entry, wanted: list[str]) -> list[str]:
    """Those of `wanted` that are neither in the initramfs nor built into the kernel. Raises DriverMissing for an
    initramfs that cannot be read."""
    have = builtin(tree, entry.version)
    for version, names in modules_in(contents(tree, entry)).items():
        if version == entry.version or not entry.version:
            have |= set(names)
    return [name for name in wanted if name not in have]


def builtin(tree: Tree, version: str) -> set[str]:
    """Modules built into the kernel, '_' for '-'."""
    text = "\n".join(tree.text(f"{lib}/modules/{version}/modules.builtin") for lib in _libs(tree)) if version else ""
    return {line.rpartition("/")[2].removesuffix(".ko").replace("-", "_") for line in text.split("\n") if line}


def available(tree: Tree, version: str) -> set[str]:
    """Modules the tree has for a kernel, '_' for '-'."""
    found: set[str] = set()
    for lib in _libs(tree):
        for _, _, files in os.walk(tree.place(f"{lib}/modules/{version}")):
            found.update(match[1].replace("-", "_") for name in files if (match := _KO.fullmatch(name)))
    return found


def tool_of(tree: Tree, entry: Entry | None = None) -> str:
    """What makes the tree's initramfs, "" if nothing does; the one of `entry` tells, where there are two, as dracut
    leaves usr/lib/dracut in it. Raises DriverMissing."""
    tool = rebuild.tool_of(tree)
    if tool != "update-initramfs" or entry is None or rebuild.tool_of(tree, by_dracut=True) == tool:
        return tool
    made_by_dracut = any(name.startswith(("usr/lib/dracut", "lib/dracut")) for name in contents(tree, entry))
    return rebuild.tool_of(tree, made_by_dracut)


def contents(tree: Tree, entry: Entry) -> list[str]:
    """Names of the files in the initramfs of `entry`, [] if it has none. Raises DriverMissing for one that cannot be
    read."""
    if not entry.initrd:
        return []
    try:
        return initramfs_names(tree.read(entry.initrd, MAX_FILE))
    except (SourceInvalid, ToolMissing) as error:
        raise DriverMissing(f"/{entry.initrd} of the image cannot be checked: {error.message}") from None


def make(tree: Tree, entry: Entry, modules: list[str]) -> None:
    """Make the initramfs anew, for all machines and with `modules`, by the tree's own tool in a chroot. Raises
    CommandFailed, ToolMissing."""
    tool, version = tool_of(tree, entry), entry.version
    if not tool or not version:
        raise CommandFailed("the image has no update-initramfs, dracut, mkinitcpio or mkinitfs")
    rebuild.widen(tree, tool, next((module for module in modules if module in FILESYSTEMS), ""))
    rebuild.name(tree, tool, modules)
    argv = rebuild.command(tool, version, entry.initrd, exists=bool(entry.initrd), modules=modules)
    with _bound(tree):
        run(["chroot", tree.root, *argv], timeout=REBUILD_TIME, act=f"making the initramfs of {version}",
            env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin"})  # fmt: skip


@contextmanager
def _bound(tree: Tree) -> Iterator[None]:
    """dev, proc and sys of this machine in the tree, as far as that can be had; the tools do without if need be."""
    with ExitStack() as stack:
        for name in ("dev", "proc", "sys"):
            target = tree.place(name)
            if target == os.path.join(tree.root, name) and os.path.isdir(target):
                try:
                    run(["mount", "--bind", f"/{name}", target], timeout=60)
                except (CommandFailed, ToolMissing):
                    continue
                stack.callback(run, ["umount", target], timeout=60, check=False)
        yield


def _libs(tree: Tree) -> list[str]:
    """usr/lib and lib, once where the second is a link to the first."""
    return ["usr/lib"] if tree.resolve("lib") == "usr/lib" else ["usr/lib", "lib"]
