"""Advice is a line that can be typed."""

from __future__ import annotations

import shlex

import pytest

from images.checks import advice, clock, drivers, home
from images.distro.find import FAMILIES
from images.rebuild import TOOLS, by_hand

TABLES = (drivers.PACKAGES, clock.PACKAGES, home.INIT, home.SSH)


@pytest.mark.parametrize("family", [family.name for family in FAMILIES])
def test_every_family_has_a_command_and_a_name_for_everything(family: str) -> None:
    for table in TABLES:
        command = advice.install(family, table).partition("; or packages")[0]
        words = shlex.split(command)
        assert words[:3] == ["gild.pyz", "image", "edit"] and words[4] == "--" and table[family] in " ".join(words[5:])


def test_of_an_unknown_family_the_package_is_told_and_no_command() -> None:
    assert advice.install("", clock.PACKAGES).startswith("install a package such as systemd-timesyncd in the image")


@pytest.mark.parametrize("tool", TOOLS)
def test_what_a_person_types_for_an_initramfs_is_one_command(tool: str) -> None:
    words = shlex.split(advice.edit(by_hand(tool)))
    assert words[4] == "--" and tool in " ".join(words[5:]) and by_hand("none") == ""
