"""What people ask of the head about profiles: see with where each value comes from, make, change, remove."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable
from dataclasses import asdict, dataclass, fields, replace
from typing import TYPE_CHECKING, Any, TypeVar

from appliance import rows
from appliance.errors import Unknown, Wrong
from appliance.head_plan import check_edit
from appliance.roster import Roster
from appliance.timeline import clean
from netboot import wanted
from netboot.plan import DEFAULT_LAYOUT, SCRIPT_SECONDS, DiskRule, Edit, LayoutPart
from netboot.profile import DEFAULT, Profile, check_profile, parse_rule, rule_text
from netboot.wire import from_object

if TYPE_CHECKING:
    from images.store import Store as Images

MAX_PROFILES = 1000
T = TypeVar("T")


@dataclass(frozen=True)
class _Lists:
    layout: tuple[LayoutPart, ...] = ()
    edits: tuple[Edit, ...] = ()


class Profiles:
    """The operator's use cases around profiles."""

    def __init__(self, roster: Roster, images: Images) -> None:
        self.roster, self.images = roster, images

    def profiles(self) -> list[dict[str, Any]]:
        """All profiles with what they inherit, and how many nodes each has."""
        return [self._row(name) for name in sorted(self.roster.profiles)]

    def profile(self, name: str) -> dict[str, Any]:
        """One profile, in the form `profile_set` takes. Raises Unknown."""
        return _profile(self._found(name))

    def profile_values(self, name: str) -> dict[str, Any]:
        """What nodes of a profile get: `values` are [field, text, where it comes from], `chain` the profiles it is made
        of, the farthest parent first, `nodes` who has it. Raises Unknown, ProfileInvalid."""
        self._found(name)
        return self._told(wanted.wanted(name, self.roster.profiles))

    def node_values(self, ref: str) -> dict[str, Any]:
        """The same of what one node gets, by itself and its profile. Raises Unknown, ProfileInvalid."""
        return self._told(self.roster.wanted(self.roster.find(ref)))

    def _told(self, whole: wanted.Wanted) -> dict[str, Any]:
        name = whole.profile.name
        return {
            "name": name,
            "chain": list(whole.chain),
            "values": self._values(whole),
            "layout": [asdict(part) for part in whole.profile.layout],
            "edits": [{**asdict(edit), "from": whole.origin[f"edit {edit.edit}"]} for edit in whole.profile.edits],
            "nodes": self._nodes_of(name),
        }

    def profile_set(self, name: str, **given: Any) -> dict[str, Any]:
        """Make or change a profile: image, disk (text or object), layout (list, empty for the parent's or the default),
        edits (list), cmdline, finish, verify, names, extends (texts, empty for the parent's) and script_seconds (a
        number). Raises Wrong, ProfileInvalid, LayoutFailed, OptionInvalid, NotFound, WireInvalid, NoSpace."""
        known = {entry.name for entry in fields(Profile)} - {"name"}
        if unknown := sorted(set(given) - known):
            raise Wrong(f"a profile has no {unknown[0][:80]!r}", f"it has {', '.join(sorted(known))}")
        changes = {key: _value(key, value) for key, value in given.items()}
        if name not in self.roster.profiles and len(self.roster.profiles) >= MAX_PROFILES:
            raise Wrong(f"there are {MAX_PROFILES} profiles already")
        profile = check_profile(replace(self.roster.profiles.get(name, Profile(name)), **changes))
        # With all that extend it: a circle may close anywhere.
        after = {**self.roster.profiles, name: profile}
        for other in after:
            wanted.chain(other, after)
        if profile.image:
            self.images.load(profile.image)
        if "edits" in changes:
            _try_edits(profile.edits)
        self.roster.save_now([rows.profile_row(profile)])
        self.roster.profiles[name] = profile
        return _profile(profile)

    def profile_remove(self, name: str) -> dict[str, Any]:
        """Forget a profile and its secrets; its files stay where they are. Raises Unknown, NoSpace, and Wrong for the
        default one, and for one that a node has or a profile extends."""
        self._found(name)
        if name == DEFAULT:
            raise Wrong(f"the profile {DEFAULT} stays: machines get it when nothing else is said")
        if nodes := self._nodes_of(name):
            told = ", ".join(nodes[:5]) + (f" and {len(nodes) - 5} more" if len(nodes) > 5 else "")
            raise Wrong(
                f"{told} {'has' if len(nodes) == 1 else 'have'} the profile {name}",
                f"give them another: gild.pyz node set @profile:{name} --profile {DEFAULT}",
            )
        if heirs := sorted(other.name for other in self.roster.profiles.values() if other.extends == name):
            raise Wrong(
                f"{', '.join(heirs[:5])} extends {name}", f"first: gild.pyz profile set {heirs[0]} --extends ''"
            )
        self.roster.save_now(rows.profile_gone(name))
        del self.roster.profiles[name]
        return {"name": name}

    def _found(self, name: str) -> Profile:
        if name not in self.roster.profiles:
            known = ", ".join(sorted(self.roster.profiles))
            raise Unknown(f"there is no profile {clean(name)[:80]!r}", f"profiles: {known[:300]}")
        return self.roster.profiles[name]

    def _nodes_of(self, name: str) -> list[str]:
        return [node.label for node in self.roster.sorted() if node.name and node.profile == name]

    def _row(self, name: str) -> dict[str, Any]:
        whole = wanted.wanted(name, self.roster.profiles).profile
        return {**_profile(whole), "nodes": len(self._nodes_of(name))}

    def _values(self, whole: wanted.Wanted) -> list[list[str]]:
        """Field, value and origin, for people."""
        profile, config = whole.profile, self.roster.config
        usual = {
            "image": "the only one there is", "disk": "the only one", "finish": config.finish, "verify": config.verify,
            "names": config.names, "script_seconds": str(SCRIPT_SECONDS),
        }  # fmt: skip
        found = []
        for key in ("image", "disk", "cmdline", "finish", "verify", "names", "script_seconds"):
            value = rule_text(profile.disk) if key == "disk" else str(getattr(profile, key) or "")
            origin = whole.origin[key]
            kind = "settings" if key in ("finish", "verify", "names") else "default"
            found.append([key, value or usual.get(key, ""), wanted.told(origin) or f"from {kind}"])
        return found


def _value(key: str, value: Any) -> Any:
    """A field of a profile as people, and `profile show --json`, give it."""
    if key == "disk":
        return parse_rule(value) if isinstance(value, str) else _checked(DiskRule, value, "a disk rule")
    if key in ("layout", "edits"):
        kind, what = (LayoutPart, "a partition") if key == "layout" else (Edit, "an edit")
        for entry in value if isinstance(value, list) else ():
            _checked(kind, entry, what)
        read = getattr(from_object(_Lists, {key: value}), key)
        return read or (DEFAULT_LAYOUT if key == "layout" else ())
    wanted_kind, word = (int, "number") if key == "script_seconds" else (str, "text")
    if not isinstance(value, wanted_kind) or isinstance(value, bool):
        raise Wrong(f"{key} of a profile should be a {word}")
    return value


def _try_edits(edits: Iterable[Edit]) -> None:
    """Each edit is one that a profile may have, with options it takes. Raises Wrong, OptionInvalid."""
    names = [edit.edit for edit in edits]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise Wrong(f"the edit {twice[0]} stands there twice", "put its options together")
    with tempfile.TemporaryDirectory(prefix="gild-edits-") as nowhere:
        for edit in edits:
            check_edit(edit, nowhere)


def _checked(kind: type[T], value: Any, what: str) -> T:
    """`value` as a `kind`. On the wire unknown words are a newer peer's; from a person they are a slip of the pen, and
    a rule with a slip in it would fit any disk. Raises Wrong, WireInvalid."""
    known = {entry.name for entry in fields(kind)}  # type: ignore[arg-type]  # a dataclass
    if isinstance(value, dict) and (unknown := sorted(set(map(str, value)) - known)):
        raise Wrong(f"{what} has no {unknown[0][:80]!r}", f"it has {', '.join(sorted(known))}")
    return from_object(kind, value)


def _profile(profile: Profile) -> dict[str, Any]:
    return {
        **asdict(profile),
        "disk": rule_text(profile.disk),
        "layout": [asdict(part) for part in profile.layout],
        "edits": [asdict(edit) for edit in profile.edits],
    }
