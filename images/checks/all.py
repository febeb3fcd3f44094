"""The checks in their order, and the one way they are run."""

from __future__ import annotations

from collections.abc import Callable

from images import grubcfg
from images.checks import boot, clock, disks, drivers, home, labels, leftovers, logins, network, room
from images.checks.check import Check, plain
from images.checks.subject import Subject
from images.tree import Tree, TreeInvalid

CHECKS: tuple[Callable[[Tree, Subject], list[Check]], ...] = (
    home.starts,
    drivers.kernels,
    drivers.initramfs,
    drivers.firmware,
    grubcfg.write_grub_cfg,
    grubcfg.write_fstab,
    boot.menu,
    boot.loaders,
    boot.console,
    disks.root_line,
    disks.other_lines,
    disks.arrays,
    disks.other_pins,
    room.room,
    home.network,
    network.network,
    home.remote,
    home.cloud_init,
    clock.service,
    clock.zone,
    clock.future,
    logins.secrets,
    logins.passwords,
    logins.doors,
    leftovers.mended,
    leftovers.left,
    labels.labels,  # last: what was written before has its label already
)


def run_checks(tree: Tree, subject: Subject) -> list[Check]:
    """Everything that is looked at once the tree is stripped and completed. A file that is no file, or too large to be
    what its name says, is a finding of its own and stops no other check. Raises OSError."""
    checks: list[Check] = []
    for check in CHECKS:
        try:
            checks += check(tree, subject)
        except TreeInvalid as error:
            fix = "put a plain file there; until then what depends on it is not checked"
            checks.append(Check("odd files", (plain(error.message),), fix, "warning"))
    return checks
