"""Names of nodes: what is a name, and which is the next one of a pattern such as node{n:02}."""

from __future__ import annotations

import re
from collections.abc import Collection

from images.errors import GildError

# One DNS label (RFC 1123 section 2.1) in lower case. It starts with a letter so that a name is never taken for a
# number of the waiting room or an address.
_NAME = re.compile(r"[a-z]([a-z0-9-]{0,61}[a-z0-9])?")
_PLACE = re.compile(r"\{n(?::0?([1-9]))?\}")
_RACK = re.compile(r"\{r(?::0?([1-9]))?\}")
RESERVED = frozenset({"head", "localhost", "all", "default", "gild"})
MAX_NUMBER = 100_000


class NameInvalid(GildError):
    """Not a name for a node, or a pattern without a number in it."""


def check_name(name: str) -> str:
    """`name` itself if it can be a node's name. Raises NameInvalid."""
    if not _NAME.fullmatch(name):
        shown = "".join(c if c.isprintable() else "?" for c in name)[:80]
        raise NameInvalid(
            f"{shown!r} cannot be the name of a node", "a-z, 0-9 and '-', a letter first, at most 63 characters"
        )
    if name in RESERVED:
        raise NameInvalid(f"{name!r} is taken by gild itself", "choose another name")
    return name


def is_pattern(text: str) -> bool:
    """Whether `text` has a place for a number: {n} or {n:02}."""
    return bool(_PLACE.search(text))


def in_rack(pattern: str, rack: int | None) -> str:
    """The pattern for one rack: {r} (or {r:02}) in it becomes the rack's number, in_rack("rack{r}-{n:02}", 3) is
    "rack3-{n:02}". Raises NameInvalid for a rack without a place for it, or a place without a rack."""
    if rack is None and _RACK.search(pattern):
        raise NameInvalid(f"{pattern[:80]!r} wants the number of a rack", "say --rack NUMBER")
    if rack is None:
        return pattern
    if not 0 <= rack <= MAX_NUMBER:
        raise NameInvalid(f"a rack has a number from 0 to {MAX_NUMBER}")
    return _RACK.sub(lambda found: str(rack).zfill(int(found[1] or 0)), pattern)


def fill(pattern: str, number: int) -> str:
    """The name of that number: fill("node{n:02}", 7) is "node07". Raises NameInvalid for a pattern without a place,
    with several, or that gives no name. Only {n} and {n:0W} mean anything, so a pattern cannot reach into an object
    as str.format would let it."""
    places = _PLACE.findall(pattern)
    if len(places) != 1:
        raise NameInvalid(f"{pattern[:80]!r} is not a pattern for names", "write it like node{n:02}")
    return check_name(_PLACE.sub(str(number).zfill(int(places[0] or 0)), pattern))


def next_names(pattern: str, taken: Collection[str], count: int, first: int = 1) -> list[str]:
    """The `count` lowest-numbered free names of a pattern, from number `first` on. Raises NameInvalid."""
    found: list[str] = []
    known = set(taken)
    for number in range(first, MAX_NUMBER):
        if len(found) == count:
            return found
        name = fill(pattern, number)
        if name not in known:
            found.append(name)
    raise NameInvalid(f"pattern {pattern!r} has no {count} free names left")
