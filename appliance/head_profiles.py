"""What people ask of the head about profiles."""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields, replace
from typing import TYPE_CHECKING, Any, TypeVar

from appliance import rows
from appliance.errors import Unknown, Wrong
from appliance.roster import Roster
from appliance.timeline import clean
from netboot.plan import DEFAULT_LAYOUT, DiskRule, LayoutPart
from netboot.profile import Profile, check_profile, parse_rule, rule_text
from netboot.wire import from_object

if TYPE_CHECKING:
    from images.store import Store as Images

MAX_PROFILES = 1000
T = TypeVar("T")


@dataclass(frozen=True)
class _Layout:
    parts: tuple[LayoutPart, ...]


class Profiles:
    """The operator's use cases around profiles."""

    def __init__(self, roster: Roster, images: Images) -> None:
        self.roster, self.images = roster, images

    def profiles(self) -> list[dict[str, Any]]:
        """All profiles."""
        return [_profile(profile) for _, profile in sorted(self.roster.profiles.items())]

    def profile(self, name: str) -> dict[str, Any]:
        """One profile, in the form `profile_set` takes. Raises Unknown."""
        if name not in self.roster.profiles:
            known = ", ".join(sorted(self.roster.profiles))
            raise Unknown(f"there is no profile {clean(name)[:80]!r}", f"profiles: {known}")
        return _profile(self.roster.profiles[name])

    def profile_set(self, name: str, **given: Any) -> dict[str, Any]:
        """Make or change a profile: image, disk (text or object), layout (list, empty for the default), cmdline,
        finish, verify. Raises Wrong, ProfileInvalid, LayoutFailed, NotFound, WireInvalid, NoSpace."""
        known = {entry.name for entry in fields(Profile)} - {"name"}
        if unknown := sorted(set(given) - known):
            raise Wrong(f"a profile has no {unknown[0][:80]!r}", f"it has {', '.join(sorted(known))}")
        changes: dict[str, Any] = {}
        for key, value in given.items():
            if key == "disk":
                changes[key] = parse_rule(value) if isinstance(value, str) else _checked(DiskRule, value, "a disk rule")
            elif key == "layout":
                for part in value if isinstance(value, list) else ():
                    _checked(LayoutPart, part, "a partition")
                changes[key] = from_object(_Layout, {"parts": value}).parts or DEFAULT_LAYOUT
            elif isinstance(value, str):
                changes[key] = value
            else:
                raise Wrong(f"{key} of a profile should be a text")
        if name not in self.roster.profiles and len(self.roster.profiles) >= MAX_PROFILES:
            raise Wrong(f"there are {MAX_PROFILES} profiles already")
        profile = check_profile(replace(self.roster.profiles.get(name, Profile(name)), **changes))
        if profile.image:
            self.images.load(profile.image)
        self.roster.save_now([rows.profile_row(profile)])
        self.roster.profiles[name] = profile
        return _profile(profile)


def _checked(kind: type[T], value: Any, what: str) -> T:
    """`value` as a `kind`. On the wire unknown words are a newer peer's; from a person they are a slip of the pen, and
    a rule with a slip in it would fit any disk. Raises Wrong, WireInvalid."""
    known = {entry.name for entry in fields(kind)}  # type: ignore[arg-type]  # a dataclass
    if isinstance(value, dict) and (unknown := sorted(set(map(str, value)) - known)):
        raise Wrong(f"{what} has no {unknown[0][:80]!r}", f"it has {', '.join(sorted(known))}")
    return from_object(kind, value)


def _profile(profile: Profile) -> dict[str, Any]:
    return {**asdict(profile), "disk": rule_text(profile.disk), "layout": [asdict(part) for part in profile.layout]}
