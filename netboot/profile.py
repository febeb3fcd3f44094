"""Profiles: what a kind of node gets. And disk rules as people write them: "pick=smallest,bus=nvme"."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

from images.errors import GildError
from netboot import layout as layouts
from netboot import naming
from netboot.disks import PICKS
from netboot.plan import CMDLINE, DEFAULT_LAYOUT, DiskRule, Edit, LayoutPart

FINISHES = ("kexec", "reboot", "poweroff")
VERIFIES = ("none", "sample", "full")
DEFAULT = "default"
MAX_EDITS = 64
MAX_SECONDS = 86400  # a script that runs for a day is one that hangs

_NAME = re.compile(r"[a-z][a-z0-9-]{0,62}")
_IMAGE = re.compile(r"[a-z0-9][a-z0-9._-]{0,62}(:([1-9][0-9]{0,8}|latest))?")
_WORD = re.compile(r"[A-Za-z0-9 _.:+*?\[\]/-]{1,64}")


class ProfileInvalid(GildError):
    """A profile or a disk rule has an unknown word or an impossible value."""


@dataclass(frozen=True)
class Profile:
    """What a kind of node gets. A field that is left at its default is what the profile it `extends` says, and in the
    end what the head's settings say (netboot.wanted); an empty `image` then means the only image there is."""

    name: str
    image: str = ""
    disk: DiskRule = field(default_factory=DiskRule)
    layout: tuple[LayoutPart, ...] = DEFAULT_LAYOUT
    cmdline: str = ""  # kernel arguments of the installed system
    finish: str = ""
    verify: str = ""
    names: str = ""  # pattern for the names of machines approved with it
    edits: tuple[Edit, ...] = ()  # of images.edits, beside those every node gets
    extends: str = ""  # the profile whose values count where this one has none
    script_seconds: int = 0  # how long one script may take; 0: netboot.plan.SCRIPT_SECONDS


def _pattern(text: str) -> bool:
    try:
        return not text or naming.fill(text, 1) != naming.fill(text, 2)
    except GildError:
        return False


def _arguments(text: str) -> bool:
    return not text or (len(text) <= 1024 and bool(CMDLINE.fullmatch(text)))


def check_profile(profile: Profile) -> Profile:
    """`profile` itself if every value is possible. Raises ProfileInvalid naming the value, or netboot.layout's
    LayoutFailed."""
    if not _NAME.fullmatch(profile.name):
        raise ProfileInvalid(f"{profile.name[:80]!r} cannot be the name of a profile", "a-z, 0-9 and '-'")
    checks: tuple[tuple[str, str, bool, str], ...] = (
        ("image", profile.image, not profile.image or bool(_IMAGE.fullmatch(profile.image)), "NAME or NAME:NUMBER"),
        ("cmdline", profile.cmdline, _arguments(profile.cmdline), "kernel arguments without quotes, $ ; # and braces"),
        ("finish", profile.finish, profile.finish in ("", *FINISHES), "one of " + ", ".join(FINISHES)),
        ("verify", profile.verify, profile.verify in ("", *VERIFIES), "one of " + ", ".join(VERIFIES)),
        ("extends", profile.extends, not profile.extends or bool(_NAME.fullmatch(profile.extends)), "a profile's name"),
        ("names", profile.names, _pattern(profile.names), "a pattern with a number in it such as gpu{n:02}"),
        ("edits", str(len(profile.edits)), len(profile.edits) <= MAX_EDITS, f"at most {MAX_EDITS}"),
        ("script_seconds", str(profile.script_seconds), 0 <= profile.script_seconds <= MAX_SECONDS, "seconds of a day"),
        ("disk", profile.disk.pick, profile.disk.pick in PICKS, "pick=" + "|".join(PICKS)),
    )
    for what, value, good, wanted in checks:
        if not good:
            raise ProfileInvalid(f"profile {profile.name}: {what} cannot be {value[:80]!r}", wanted)
    if not profile.layout:
        profile = replace(profile, layout=DEFAULT_LAYOUT)
    layouts.check(profile.layout)
    return profile


def _word(text: str) -> str:
    if not _WORD.fullmatch(text):
        raise ValueError("letters, digits and . : - _ / + (model also * ? [ ])")
    return text


def _size(text: str) -> int:
    try:
        return layouts.parse_size(text)
    except GildError:
        raise ValueError("a size such as 100GB") from None


def _yes(text: str) -> bool:
    if text not in ("yes", "no"):
        raise ValueError("yes or no")
    return text == "yes"


def _pick(text: str) -> str:
    if text not in PICKS:
        raise ValueError(" or ".join(PICKS))
    return text


def _buses(text: str) -> tuple[str, ...]:
    return tuple(_word(word) for word in text.split("+"))


_KEYS: dict[str, tuple[str, Callable[[str], Any]]] = {
    "serial": ("serial", _word),
    "wwn": ("wwn", _word),
    "model": ("model", _word),
    "bus": ("bus", _buses),
    "min": ("min_size", _size),
    "max": ("max_size", _size),
    "rotational": ("rotational", _yes),
    "pick": ("pick", _pick),
}


def parse_rule(text: str) -> DiskRule:
    """A disk rule from text: "pick=smallest,bus=nvme+sata,min=100GB". Empty: the only disk. Raises ProfileInvalid."""
    given: dict[str, Any] = {}
    for part in filter(None, (piece.strip() for piece in text.split(","))):
        key, equals, value = part.partition("=")
        if not equals or key not in _KEYS:
            raise ProfileInvalid(f"disk rule: {part[:80]!r} is not a condition", "known are " + ", ".join(_KEYS))
        name, read = _KEYS[key]
        if name in given:
            raise ProfileInvalid(f"disk rule: {key} stands there twice")
        try:
            given[name] = read(value)
        except ValueError as error:
            raise ProfileInvalid(f"disk rule: {key}={value[:80]!r} should be {error}") from None
    return DiskRule(**given)


def rule_text(rule: DiskRule) -> str:
    """The rule as `parse_rule` reads it."""
    words = []
    for key, (name, _) in _KEYS.items():
        value = getattr(rule, name)
        said = value is False or value not in ("", 0, (), None)
        if not said or (key == "pick" and value == "only"):
            continue
        if isinstance(value, bool):
            value = "yes" if value else "no"
        elif isinstance(value, tuple):
            value = "+".join(value)
        words.append(f"{key}={value}")
    return ",".join(words)
