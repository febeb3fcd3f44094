"""The image's tree becomes this node's: the plan's edits, with what only the machine itself knows added to them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from images.distro import find
from images.edits import all as edits
from images.errors import GildError
from images.run import run
from images.tree import Tree
from netboot.agent import disk
from netboot.disks import choose
from netboot.plan import InstallPlan
from netboot.report import Facts


def fit(root: str, plan: InstallPlan, facts: Facts, log: Callable[[str], None]) -> None:
    """Apply the plan's edits, in its order, to the tree mounted at `root`. Raises GildError naming edit or file."""
    reason = find.refusal(root)
    if reason:
        raise GildError(f"{plan.image} cannot be fitted to a machine: {reason}", "use an image of a whole system")
    system = find.system_of(root)
    family = system.family.name if system.family else "unknown family"
    told = " ".join(filter(None, (system.release.id, system.release.version))) or "no os-release"
    log(f"the tree is {told} ({family}), init {system.init or 'unknown'}, network {system.network or 'unknown'}")
    if not Tree(root).lexists("sbin/init"):
        log("beware: there is no /sbin/init, which kernels start; Debian has it in systemd-sysv")
    for edit in plan.edits:
        options: dict[str, Any] = dict(edit.options)
        if edit.edit == "fstab" and not options.get("mounts"):
            options["mounts"] = mounts(plan, facts)
        try:
            lines = edits.apply(edit.edit, root, options)
        except OSError as error:
            raise GildError(f"edit {edit.edit}: {error.filename or 'the tree'}: {error.strerror}") from None
        for line in lines:
            log(line)


def mounts(plan: InstallPlan, facts: Facts) -> list[dict[str, str]]:
    """The partitions of the node's disk that fstab has to name: mount point, filesystem and UUID as they stand on the
    disk now. Raises GildError if one that is to be mounted has no filesystem."""
    path, found = choose(facts.disks, plan.disk).path, []
    for number, part in enumerate(plan.layout, 1):
        if not part.mount:
            continue
        fs, uuid = superblock(disk.part_path(path, number))
        if not uuid:
            raise GildError(f"partition {part.name} of {path} is to be mounted and has no filesystem that blkid knows")
        found.append({"mount": part.mount, "fs": fs, "uuid": uuid})
    return found


def superblock(device: str) -> tuple[str, str]:
    """(type, UUID) of what stands on a partition, ("", "") if blkid knows neither. Raises CommandFailed."""
    # -p reads the device itself and no cache; 2 means that nothing was found (blkid(8)).
    argv = ["blkid", "-p", "-o", "export", device]
    done = run(argv, check=False, timeout=60, act=f"reading what is on {device}")
    if done.returncode not in (0, 2):
        raise GildError(f"blkid cannot read {device} ({done.returncode})")
    found = dict(line.partition("=")[::2] for line in done.stdout.decode("utf-8", "replace").splitlines())
    return (found["TYPE"], found["UUID"]) if "TYPE" in found and "UUID" in found else ("", "")
