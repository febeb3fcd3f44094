from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from netboot.plan import DEFAULT_LAYOUT, DiskRule, Edit, LayoutPart
from netboot.profile import Profile, ProfileInvalid
from netboot.wanted import MAX_CHAIN, chain, check_own, told, wanted

LAYOUT = (*DEFAULT_LAYOUT[:2], LayoutPart("root", "linux", "rest", fs="ext4", mount="/", role="root"))


def table(*profiles: Profile) -> dict[str, Profile]:
    return {profile.name: profile for profile in profiles}


def test_values_come_from_the_nearest_who_has_one() -> None:
    profiles = table(
        Profile("base", image="debian", cmdline="quiet", finish="reboot", layout=LAYOUT, names="n{n}"),
        Profile("compute", extends="base", cmdline="mitigations=off", disk=DiskRule(pick="smallest"), script_seconds=9),
        Profile("gpu", extends="compute", image="gpu:3"),
    )
    found = wanted("gpu", profiles, {"finish": "kexec", "disk": "bus=nvme"})
    whole = found.profile
    assert (whole.name, whole.image, whole.cmdline, whole.finish) == ("gpu", "gpu:3", "mitigations=off", "kexec")
    assert whole.disk == DiskRule(bus=("nvme",)) and whole.layout == LAYOUT and whole.names == "n{n}"
    assert whole.script_seconds == 9 and whole.verify == ""
    assert found.chain == ("base", "compute", "gpu")
    assert dict(found.origin) == {
        "image": "gpu", "cmdline": "compute", "finish": "node", "disk": "node", "layout": "base", "names": "base",
        "script_seconds": "compute", "verify": "",
    }  # fmt: skip
    assert [told(origin) for origin in ("node", "base", "")] == ["from node", "from profile base", ""]
    assert wanted("compute", profiles).profile.disk == DiskRule(pick="smallest")


def test_edits_are_put_together_and_a_nearer_one_of_the_name_counts() -> None:
    dns, more = Edit("resolv", {"dns": ["10.0.0.1"]}), Edit("resolv", {"dns": []})
    route = Edit("hosts", {"entries": {}})
    profiles = table(Profile("base", edits=(dns, route)), Profile("login", extends="base", edits=(more,)))
    found = wanted("login", profiles)
    assert found.profile.edits == (more, route)
    assert (found.origin["edit resolv"], found.origin["edit hosts"]) == ("login", "base")


def test_circles_and_long_lines_are_refused() -> None:
    with pytest.raises(ProfileInvalid, match="circle: a -> b -> a"):
        wanted("a", table(Profile("a", extends="b"), Profile("b", extends="a")))
    with pytest.raises(ProfileInvalid, match="circle: a -> a"):
        chain("a", table(Profile("a", extends="a")))
    with pytest.raises(ProfileInvalid, match="no profile 'b', which a extends"):
        chain("a", table(Profile("a", extends="b")))
    with pytest.raises(ProfileInvalid, match="no profile 'x'") as caught:
        chain("x", table(Profile("a")))
    assert caught.value.hint == "profiles: a"
    line = table(Profile("p0"), *(Profile(f"p{n}", extends=f"p{n - 1}") for n in range(1, 20)))
    assert len(chain(f"p{MAX_CHAIN - 1}", line)) == MAX_CHAIN
    with pytest.raises(ProfileInvalid, match=f"p{MAX_CHAIN} extends more than {MAX_CHAIN - 1} others"):
        chain(f"p{MAX_CHAIN}", line)


@given(st.dictionaries(st.sampled_from("abcde"), st.sampled_from(["", *"abcdef"])))
def test_whatever_extends_whatever_it_ends(links: dict[str, str]) -> None:
    profiles = {name: Profile(name, extends=parent) for name, parent in links.items()}
    for name in profiles:
        try:
            line = chain(name, profiles)
        except ProfileInvalid:
            continue
        assert line[-1].extends == "" and len({profile.name for profile in line}) == len(line)


def test_values_of_a_node_are_checked_and_empty_ones_leave() -> None:
    own = {"image": "compute:3", "disk": "pick=largest", "cmdline": "quiet", "finish": "", "verify": "full"}
    assert check_own(own) == {key: text for key, text in own.items() if text}


@pytest.mark.parametrize(
    "own",
    [{"layout": "x"}, {"name": "x"}, {"image": "../x"}, {"disk": "sda"}, {"cmdline": "a'b"}, {"finish": "now"}],
)
def test_values_no_node_can_have(own: dict[str, str]) -> None:
    with pytest.raises(ProfileInvalid):
        check_own(own)
