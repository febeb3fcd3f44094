"""A package manager at work on a tree: its output becomes progress, and its complaints become errors that name them."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from images.editing.interrupts import noted
from images.errors import CommandFailed, NoSpace, RecipeInvalid
from images.namespace import in_private_namespace
from images.options import Progress
from images.run import stream

LIMIT = 4 * 3600  # seconds; the sample takes one minute, a slow mirror and a thousand packages some hours
FULL = re.compile(r"No space left on device|enough free space in|more space needed on the|needs \S+ ?[KMG]i?B on the")
SPARE = 1 << 20  # bytes; a disk with less free is full
MAX_NAMES = 100


@dataclass(frozen=True, slots=True)
class Speech:
    """How a package manager speaks, line by line. `unknown`: a package it does not know, the name in the first group
    that matched; `count`: how many packages there will be; `step`: one thing done with one of them; `steps`: how many
    such things there are for each."""

    unknown: re.Pattern[str]
    step: re.Pattern[str]
    count: re.Pattern[str]
    steps: int = 1
    # What it says of a source that cannot be used, where it goes on without it and then misses packages.
    refused: re.Pattern[str] | None = None


def install(
    argv: Sequence[str],
    tree: Path,
    speech: Speech,
    *,
    act: str,
    env: Mapping[str, str],
    tell: Progress,
    before: Callable[[], None] | None = None,
) -> None:
    """Run a package manager that fills `tree`, in a mount namespace of its own: whatever it mounts goes with it, and
    nobody who clears the tree after a failure finds the head's /dev in there. `before` runs in that namespace first.
    Raises RecipeInvalid naming packages that are not known, NoSpace, CommandFailed, KeyboardInterrupt."""
    unknown: list[str] = []
    refused: list[str] = []
    full = False
    done = expected = 0

    with noted() as interrupts:

        def line(text: str) -> None:
            nonlocal done, expected, full
            interrupts.check()
            full = full or bool(FULL.search(text))
            if speech.refused and speech.refused.search(text) and len(refused) < MAX_NAMES:
                refused.append("".join(c if c.isprintable() else "?" for c in text.strip())[:300])
            if match := speech.unknown.search(text):
                unknown.extend(name for name in match.groups() if name and len(unknown) < MAX_NAMES)
            elif match := speech.count.search(text):
                expected += speech.steps * int(next(number for number in match.groups() if number))
            elif speech.step.search(text):
                done += 1
                tell("build", min(done, expected), expected)

        def work() -> None:
            if before is not None:
                before()
            stream(argv, line, env=env, timeout=LIMIT, act=act, stopped=interrupts.typed)

        tell("build", 0, 1)
        try:
            in_private_namespace(work)
        except CommandFailed:
            interrupts.check()
            if full or _free(tree) < SPARE:
                raise NoSpace(f"{act}: the disk is full", "free some space, or gild image gc") from None
            if refused:
                said = " | ".join(dict.fromkeys(refused[:3]))
                raise CommandFailed(
                    f"{act}: {said}", "is it the right repository, and the key it is signed with?"
                ) from None
            if unknown:
                names = ", ".join(dict.fromkeys(unknown))
                raise RecipeInvalid(
                    f"{act}: the archive has no package {names}", "check the spelling, the suite and the sources"
                ) from None
            raise


def _free(tree: Path) -> int:
    status = os.statvfs(tree if tree.is_dir() else tree.parent)
    return status.f_bavail * status.f_frsize
