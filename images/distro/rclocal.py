"""Blocks of our own in etc/rc.local, where that file is what runs at boot: Void, sysvinit."""

from __future__ import annotations

from images.tree import Tree

PATH = "etc/rc.local"


def marks(name: str) -> tuple[str, str]:
    """First and last line of the block `name`; a script may remove what lies between with sed."""
    return f"# gild {name}: begin", f"# gild {name}: end"


def set_block(tree: Tree, name: str, lines: list[str]) -> bool:
    """Put a block where an older one of that name stands, else before the file's "exit 0". False if it was so already.
    The file becomes executable. Raises TreeInvalid."""
    path = tree.resolve(PATH)  # EL 6 has a link to rc.d/rc.local there, which stays
    begin, end = marks(name)
    kept: list[str] = []
    at, inside = -1, False
    for line in (tree.text(path) or "#!/bin/sh\n").rstrip("\n").split("\n"):
        if line == begin:
            at, inside = len(kept), True
        if not inside:
            kept.append(line)
        inside = inside and line != end
    if at < 0:
        at = next((n for n in range(len(kept) - 1, -1, -1) if kept[n].split()[:1] == ["exit"]), len(kept))
    return tree.write(path, "\n".join([*kept[:at], begin, *lines, end, *kept[at:], ""]), 0o755)
