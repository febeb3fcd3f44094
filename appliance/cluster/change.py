"""What is to be done for one service, as a value: files before and after, commands, remarks."""

from __future__ import annotations

import difflib
import shlex
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from appliance.cluster import block

FILE = "FILE"  # the word of a command that stands for a file with its input


@dataclass(frozen=True)
class File:
    """One text file, as it is (None: it is not there) and as it should be. `block` names gild's part of it and `edited`
    says that somebody has changed that part by hand. `mode` is that of a new file."""

    path: str
    before: str | None
    after: str
    block: str = ""
    edited: bool = False
    mode: int = 0o644

    @property
    def changed(self) -> bool:
        """Whether there is anything to write."""
        return self.after != (self.before or "")

    def diff(self) -> str:
        """A unified diff, "" if nothing changes."""
        old = "/dev/null" if self.before is None else self.path
        lines = difflib.unified_diff(
            (self.before or "").splitlines(), self.after.splitlines(), old, self.path, lineterm=""
        )
        return "".join(f"{line}\n" for line in lines)


@dataclass(frozen=True)
class Command:
    """One program to run. `until` is a word its output must have before the next one is run: it is then asked again for
    at most `seconds`. `optional`: its failure is told, and nothing else follows from it. `input` is the text of a file
    that takes the place of the word FILE."""

    argv: tuple[str, ...]
    until: str = ""
    seconds: float = 0.0
    optional: bool = False
    input: str = ""

    @property
    def text(self) -> str:
        """As a person would type it."""
        return shlex.join(self.argv)


@dataclass(frozen=True)
class Change:
    """Files first, then `commands`. If one of these fails, the files are as before and `undo` is run. `notes` are for
    people: what was left to them, what stands in the way."""

    name: str  # of the service, for messages
    files: tuple[File, ...] = ()
    commands: tuple[Command, ...] = ()
    undo: tuple[Command, ...] = ()
    notes: tuple[str, ...] = ()
    env: Mapping[str, str] = field(default_factory=dict)  # of the commands, beside what is there

    @property
    def needed(self) -> bool:
        """Whether there is anything to do."""
        return bool(self.commands) or any(file.changed for file in self.files)

    def row(self) -> dict[str, Any]:
        """Ready for JSON."""
        return {
            "service": self.name,
            "changed": self.needed,
            "files": [
                {"path": file.path, "diff": file.diff(), "edited": file.edited} for file in self.files if file.changed
            ],
            "commands": [list(command.argv) for command in self.commands],
            "notes": list(self.notes),
        }


def blocked(read: Callable[[str], str | None], path: str, name: str, body: str, mode: int = 0o644) -> File:
    """The file at `path` with `body` as gild's block. `read` gives its text, None if it is not there. Raises
    BlockBroken with the path."""
    before = read(path)
    try:
        parts = block.split(before or "", name)
        after = block.put(before or "", name, body)
    except block.BlockBroken as error:
        raise block.BlockBroken(f"{path}: {error.message}", error.hint) from None
    return File(path, before, after, name, parts.edited, mode)
