"""Noderanges: several nodes in one word, as `node[01-16,20]`, `@rack1`, `node0*`, and `!node07` to leave some out.

The notation is that of ClusterShell's node sets and of genders and pdsh: brackets hold numbers and ranges, leading
zeros are kept, and brackets may stand more than once (`rack[1-4]-[01-20]`). Words are read from left to right: a
plain one adds nodes, one with `!` takes them away; if the first one takes away, it does so from all.
"""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import product

from images.errors import GildError

MOST = 100_000  # names one expression may stand for
MAX_TEXT = 10_000
_RANGE = re.compile(r"([0-9]{1,9})(?:-([0-9]{1,9})(?:/([0-9]{1,6}))?)?")
_GROUP = re.compile(r"[a-z0-9][a-z0-9._-]{0,62}")


class NoderangeInvalid(GildError):
    """Not an expression for nodes; the message shows the place."""


def words(text: str) -> list[str]:
    """`text` cut at commas and white space outside of brackets. Raises NoderangeInvalid for brackets that do not
    match."""
    if len(text) > MAX_TEXT:
        raise NoderangeInvalid(f"a selection of nodes has {len(text)} characters, at most {MAX_TEXT} make sense")
    found, word, inside = [], "", False
    for c in text:
        if (c == "[" and inside) or (c == "]" and not inside):
            raise _wrong(text, "its brackets do not match")
        inside = c == "[" or (inside and c != "]")
        if not inside and (c == "," or c.isspace()):
            found.append(word)
            word = ""
        else:
            word += c
    if inside:
        raise _wrong(text, "its brackets do not match")
    return [part for part in [*found, word] if part]


def expand(word: str) -> Iterator[str]:
    """Every name a word with brackets stands for, in order: expand("n[08-10]") gives n08, n09, n10. A word without
    brackets is itself. Raises NoderangeInvalid."""
    pieces = re.split(r"\[([^\]]*)\]", word)  # text, numbers, text, ..., text
    if len(pieces) > 9:
        raise _wrong(word, "more than four brackets")
    choices = [list(_numbers(word, piece)) if place % 2 else [piece] for place, piece in enumerate(pieces)]
    count = 1
    for choice in choices:
        count *= len(choice)
    if count > MOST:
        raise _wrong(word, f"it stands for {count} names, at most {MOST} make sense")
    return ("".join(parts) for parts in product(*choices))


def select(
    texts: Sequence[str],
    everybody: Callable[[], Iterable[str]],
    find: Callable[[str], str],
    group: Callable[[str], Iterable[str]],
) -> list[str]:
    """What the words of `texts` stand for, each once, in the order in which it is named. `everybody` gives all there
    is, `find` what one name stands for, `group` the members of "rack1" or "state:up" (the word without its @); the
    last two raise what they like for what does not exist. Patterns with * or ? are matched against `everybody`, and
    one that fits nothing is an error. Raises NoderangeInvalid."""
    chosen: dict[str, None] = {}
    for number, word in enumerate(part for text in texts for part in words(text)):
        away, bare = word.startswith("!"), word.removeprefix("!")
        if away and number == 0:
            chosen = dict.fromkeys(everybody())
        for name in _members(bare, everybody, find, group):
            if away:
                chosen.pop(name, None)
            else:
                chosen[name] = None
    return list(chosen)


def _members(
    word: str,
    everybody: Callable[[], Iterable[str]],
    find: Callable[[str], str],
    group: Callable[[str], Iterable[str]],
) -> Iterable[str]:
    if word.startswith("@"):
        return [member for name in expand(word[1:]) for member in group(name)]
    if "*" in word or "?" in word:
        fitting = [name for name in everybody() if any(fnmatch.fnmatchcase(name, one) for one in expand(word))]
        if not fitting:
            raise NoderangeInvalid(f"no node fits {_shown(word)}", "see: gild.pyz node list")
        return fitting
    return [find(name) for name in expand(word)]


def check_group(name: str) -> str:
    """`name` itself if nodes can be grouped under it. Raises NoderangeInvalid."""
    if not _GROUP.fullmatch(name) or name == "all":
        raise NoderangeInvalid(f"{_shown(name)} cannot be the name of a group", "a-z, 0-9, '.', '_' and '-'")
    return name


def natural(name: str) -> tuple[tuple[str, int], ...]:
    """A key that sorts names as people count: node2 before node10."""
    return tuple((text, int(number or 0)) for text, number in re.findall(r"([^0-9]*)([0-9]{0,18})", name))


def fold(names: Iterable[str]) -> str:
    """The shortest usual way to write names: fold(["n01", "n02", "n03", "x"]) is "n[01-03],x". Numbers at the end are
    folded, in order; `select` reads it back."""
    numbered: dict[tuple[str, int], list[int]] = {}
    plain: list[str] = []
    for name in dict.fromkeys(names):
        found = re.fullmatch(r"(.*?)([0-9]{1,9})", name)
        if found is None:
            plain.append(name)
            continue
        digits = found[2]
        # Numbers of one width, or without leading zeros, can stand in one bracket.
        width = len(digits) if digits.startswith("0") else 0
        numbered.setdefault((found[1], width), []).append(int(digits))
    _pad(numbered)
    folded = []
    for (stem, width), numbers in numbered.items():
        ranges = _ranges(sorted(numbers), width)
        single = len(ranges) == 1 and "-" not in ranges[0]
        folded.append(stem + (ranges[0] if single else f"[{','.join(ranges)}]"))
    return ",".join([*folded, *plain])


def _pad(numbered: dict[tuple[str, int], list[int]]) -> None:
    """node09 and node10: the one has a leading zero and the other none, and both have two digits."""
    for stem, width in [key for key in numbered if key[1]]:
        bare = numbered.get((stem, 0), [])
        for number in [n for n in bare if len(str(n)) == width]:
            bare.remove(number)
            numbered[stem, width].append(number)
        if not bare:
            numbered.pop((stem, 0), None)


def _ranges(numbers: list[int], width: int) -> list[str]:
    found: list[list[int]] = []
    for number in numbers:
        if found and number == found[-1][1] + 1:
            found[-1][1] = number
        else:
            found.append([number, number])
    texts = [[str(end).zfill(width) for end in pair] for pair in found]
    return [first if first == last else f"{first}-{last}" for first, last in texts]


def _numbers(word: str, text: str) -> Iterator[str]:
    for piece in text.split(","):
        found = _RANGE.fullmatch(piece.strip())
        if found is None:
            raise _wrong(word, f"{_shown(piece)} is not a number or a range such as 01-16")
        first, last, step = found[1], found[2] or found[1], int(found[3] or 1)
        if int(last) < int(first) or not step:
            raise _wrong(word, f"{piece} runs backwards")
        if (int(last) - int(first)) // step >= MOST:
            raise _wrong(word, f"{piece} has more than {MOST} numbers")
        width = len(first) if first.startswith("0") or len(first) == len(last) else 0
        for number in range(int(first), int(last) + 1, step):
            yield str(number).zfill(width)


def _wrong(text: str, why: str) -> NoderangeInvalid:
    return NoderangeInvalid(f"{_shown(text)}: {why}", "write nodes like node[01-16], @rack1, !node07")


def _shown(text: str) -> str:
    return repr("".join(c if c.isprintable() else "?" for c in text)[:80])
