"""What a node is to get: its own values, then those of its profile, then of the profiles that one extends. Every value
knows where it comes from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Any

from netboot.plan import Edit
from netboot.profile import Profile, ProfileInvalid, check_profile, parse_rule

MAX_CHAIN = 8  # profiles that extend one another
# What a node may have instead of its profile's value, as text.
OWN = ("image", "disk", "cmdline", "finish", "verify")
NODE, SETTING = "node", ""

_DEFAULTS = Profile("default")
_INHERITED = tuple(entry.name for entry in fields(Profile) if entry.name not in ("name", "extends", "edits"))


@dataclass(frozen=True)
class Wanted:
    """A profile with every value filled in that anybody has given. `origin` says for each field, and for each edit as
    "edit NAME", where it comes from: "node", the name of a profile, or "" for what the head's settings say. `chain` are
    the profiles from the farthest parent to the node's own: files and scripts are taken in that order."""

    profile: Profile
    origin: Mapping[str, str]
    chain: tuple[str, ...]


def chain(name: str, profiles: Mapping[str, Profile]) -> tuple[Profile, ...]:
    """The profile `name` and those it extends, itself first. Raises ProfileInvalid for one that does not exist, for a
    circle and for more than MAX_CHAIN."""
    found: list[Profile] = []
    while name:
        if name not in profiles:
            by = f", which {found[-1].name} extends" if found else ""
            raise ProfileInvalid(f"there is no profile {name[:80]!r}{by}", f"profiles: {', '.join(sorted(profiles))}")
        if any(profile.name == name for profile in found):
            way = " -> ".join([*(profile.name for profile in found), name])
            raise ProfileInvalid(f"profiles extend one another in a circle: {way}")
        if len(found) == MAX_CHAIN:
            raise ProfileInvalid(
                f"profile {found[0].name} extends more than {MAX_CHAIN - 1} others, one after the other"
            )
        found.append(profiles[name])
        name = profiles[name].extends
    return tuple(found)


def wanted(name: str, profiles: Mapping[str, Profile], own: Mapping[str, str] | None = None) -> Wanted:
    """What nodes of the profile `name` get; `own` are values of one node (check_own). Raises ProfileInvalid."""
    line = chain(name, profiles)
    values: dict[str, Any] = {}
    origin: dict[str, str] = {}
    for key in _INHERITED:
        default = getattr(_DEFAULTS, key)
        giver = next((profile for profile in line if getattr(profile, key) != default), None)
        values[key], origin[key] = (getattr(giver, key), giver.name) if giver else (default, SETTING)
    for key, text in (own or {}).items():
        if key in OWN:
            values[key], origin[key] = (parse_rule(text) if key == "disk" else text), NODE
    edits: dict[str, Edit] = {}
    for profile in reversed(line):
        for edit in profile.edits:
            edits[edit.edit], origin[f"edit {edit.edit}"] = edit, profile.name
    whole = Profile(name, extends=line[0].extends, edits=tuple(edits.values()), **values)
    return Wanted(whole, origin, tuple(profile.name for profile in reversed(line)))


def check_own(own: Mapping[str, str]) -> dict[str, str]:
    """Values of one node, each of them possible; those that are empty are left out: the profile's count again. Raises
    ProfileInvalid."""
    if unknown := sorted(set(own) - set(OWN)):
        raise ProfileInvalid(f"a node has no {unknown[0][:80]!r} of its own", f"it can have {', '.join(OWN)}")
    given = {key: text for key, text in own.items() if text}
    plain = {key: text for key, text in given.items() if key != "disk"}
    check_profile(replace(_DEFAULTS, name="node", disk=parse_rule(given.get("disk", "")), **plain))  # type: ignore[arg-type]  # texts only
    return given


def told(origin: str) -> str:
    """Where a value comes from, for people: "from node", "from profile compute", or "" for nobody."""
    return "" if not origin else "from node" if origin == NODE else f"from profile {origin}"
