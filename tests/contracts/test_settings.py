"""What the documentation says about settings is what the table says."""

from __future__ import annotations

import re

from appliance.config import ENVIRONMENT_ONLY, SETTINGS
from tests.contracts.house import PACKAGES, ROOT, sources


def test_the_readme_names_every_setting() -> None:
    text = (ROOT / "README.md").read_text()
    assert [setting.name for setting in SETTINGS if f"`{setting.name}`" not in text] == []


def test_the_readme_names_no_other() -> None:
    text = (ROOT / "README.md").read_text()
    table = text.partition("| setting | meaning |")[2].partition("\n\n")[0]
    named = {name for row in table.splitlines() for name in re.findall(r"`(\w+)`", row.partition(" | ")[0])}
    assert named == {setting.name for setting in SETTINGS}


def test_every_variable_that_is_read_is_known() -> None:
    known = {f"GILD_{setting.name.upper()}" for setting in SETTINGS} | ENVIRONMENT_ONLY
    # Scripts of a site are given variables of their own; those are not read.
    for path in set(sources(*PACKAGES)) - {"netboot/agent/scripts.py"}:
        read = set(re.findall(r"[\"'](GILD_[A-Z_]+)[\"']", (ROOT / path).read_text()))
        assert read <= known, path
