"""How the tests look at a tree: one check function, its findings by name."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from images.checks.check import Check
from images.checks.subject import UNKNOWN, Subject
from images.checks.survey import survey
from images.distro.find import system_of
from images.kernels import kernels
from images.tree import Tree, TreeInvalid

UUID = "95fd9a78-4a9f-561d-aead-869354627bb8"


def subject_of(root: Path, **more: Any) -> Subject:
    """What publishing would know of the tree."""
    try:
        system = system_of(os.fspath(root))
    except TreeInvalid:
        system = UNKNOWN
    known: dict[str, Any] = {
        "uuid": UUID,
        "kernels": tuple(kernels(root)),
        "system": system,
        "survey": survey(Tree(os.fspath(root)), time.time() + 60),
    }
    return Subject(**{**known, **more})


def look(check: Callable[[Tree, Subject], list[Check]], root: Path, **more: Any) -> dict[str, Check]:
    """What a check finds, by name, without what found nothing."""
    checks = check(Tree(os.fspath(root)), subject_of(root, **more))
    assert len({check.name for check in checks}) == len(checks)
    assert all(check.severity == "info" and not check.fix for check in checks if not check.found)
    assert all(check.fix for check in checks if check.found)
    return {check.name: check for check in checks if check.found}
