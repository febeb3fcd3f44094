"""The checks in their order, and the one way they are run."""

from __future__ import annotations

from collections.abc import Callable

from images.checks import drivers
from images.checks.check import Check, plain
from images.checks.subject import Subject
from images.tree import Tree, TreeInvalid

CHECKS: tuple[Callable[[Tree, Subject], list[Check]], ...] = (
    drivers.kernels,
    drivers.initramfs,
    drivers.firmware,
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
