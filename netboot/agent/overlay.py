"""Files of the profile that are too large for the plan: fetched whole before anything is erased."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from images.errors import GildError
from netboot.agent.link import Link
from netboot.plan import Edit, InstallPlan

MAX_ALL = 64 << 20  # bytes; they lie in memory until they are put in place


class OverlayFailed(GildError):
    """A file of the profile cannot be had as the plan has it; nothing was written."""


def gather(plan: InstallPlan, link: Link, folder: str, log: Callable[[str], None]) -> InstallPlan:
    """The plan with every file that is to be fetched fetched, to below `folder`. Raises OverlayFailed, HeadRefused."""
    edits, place, total = [], os.path.join(folder, "overlay"), 0
    for edit in plan.edits:
        files = edit.options.get("files") if edit.edit == "files" else None
        if not isinstance(files, list) or not any(isinstance(file, dict) and "fetch" in file for file in files):
            edits.append(edit)
            continue
        os.makedirs(place, mode=0o700, exist_ok=True)
        given = []
        for number, file in enumerate(files):
            if isinstance(file, dict) and "fetch" in file:
                total += _size(file)
                if total > MAX_ALL:
                    raise OverlayFailed(
                        f"the files of the profile have more than {MAX_ALL} bytes", "make the image larger"
                    )
                file = _fetched(file, link, os.path.join(place, str(number)))
            given.append(file)
        edits.append(Edit("files", {**edit.options, "files": given}))
    if total:
        log(f"{total / 1e6:.1f} MB of files of profile {plan.profile} are here")
    return replace(plan, edits=tuple(edits))


def _size(file: dict[str, Any]) -> int:
    size = file.get("size")
    if not isinstance(size, int) or isinstance(size, bool) or not 0 <= size <= MAX_ALL:
        raise OverlayFailed(f"the file /{str(file.get('path'))[:200]} has an impossible size")
    return size


def _fetched(file: dict[str, Any], link: Link, place: str) -> dict[str, Any]:
    """The entry with a file of this machine as its source. TLS to the one certificate vouches for the bytes; that they
    are all there, their number."""
    path, size, at = str(file.get("path")), _size(file), 0
    with open(os.open(place, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600), "wb") as out:
        while at < size:
            piece = link.file(path, str(file["fetch"]), at)
            if not piece or at + len(piece) > size:
                raise OverlayFailed(f"the head has other bytes of /{path[:200]} than the plan says", "order it again")
            out.write(piece)
            at += len(piece)
    kept = {key: value for key, value in file.items() if key not in ("fetch", "size")}
    return {**kept, "source": place}
