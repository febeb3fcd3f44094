from __future__ import annotations

import contextlib
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from images.errors import GildError
from netboot.plan import DEFAULT_LAYOUT, DiskRule, LayoutPart
from netboot.profile import Profile, ProfileInvalid, check_profile, parse_rule, rule_text


@pytest.mark.parametrize(
    ("text", "rule"),
    [
        ("", DiskRule()),
        ("pick=smallest,bus=nvme", DiskRule(pick="smallest", bus=("nvme",))),
        ("bus=nvme+sata, min=100GB,max=2TB", DiskRule(bus=("nvme", "sata"), min_size=10**11, max_size=2 * 10**12)),
        ("serial=S3Z9NB0K", DiskRule(serial="S3Z9NB0K")),
        ("wwn=0x5002538,model=Samsung*,rotational=no", DiskRule(wwn="0x5002538", model="Samsung*", rotational=False)),
    ],
)
def test_rules(text: str, rule: DiskRule) -> None:
    assert parse_rule(text) == rule
    assert parse_rule(rule_text(rule)) == rule


@pytest.mark.parametrize(
    "text",
    ["sda", "serial", "disk=sda", "pick=best", "min=many", "rotational=perhaps", "serial=a,serial=b", "model=a$(b)"],
)
def test_what_is_no_rule(text: str) -> None:
    with pytest.raises(ProfileInvalid):
        parse_rule(text)


@given(st.text())
def test_a_rule_is_read_or_refused(text: str) -> None:
    with contextlib.suppress(ProfileInvalid):
        assert parse_rule(rule_text(parse_rule(text))) == parse_rule(text)


GOOD = Profile("compute", "compute:3", cmdline="mitigations=auto console=ttyS0,115200", finish="reboot", verify="full")


def test_profiles() -> None:
    assert check_profile(GOOD) == GOOD
    assert check_profile(replace(GOOD, layout=())).layout == DEFAULT_LAYOUT


@pytest.mark.parametrize(
    "change",
    [
        {"name": "A"}, {"name": "a\nb"}, {"image": "../x"}, {"image": "a:0"}, {"cmdline": "a\nb"}, {"cmdline": "a'b"},
        {"cmdline": "$(x)"}, {"finish": "maybe"}, {"verify": "maybe"}, {"disk": DiskRule(pick="best")},
        {"layout": (LayoutPart("root", "linux", "rest", fs="ext4", mount="/"),)},
    ],
)  # fmt: skip
def test_what_is_no_profile(change: dict[str, object]) -> None:
    with pytest.raises(GildError):
        check_profile(replace(GOOD, **change))  # type: ignore[arg-type]
