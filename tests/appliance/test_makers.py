from __future__ import annotations

import re

import pytest

from appliance.bundled import read
from appliance.makers import LOCAL, maker


@pytest.mark.parametrize(
    ("mac", "who"),
    [("52:54:00:12:34:56", "QEMU"), ("00:14:22:01:02:03", "Dell"), ("00:25:90:00:00:01", "Supermicro"),
     ("02:00:00:00:00:01", LOCAL), ("00:00:5e:00:53:01", ""), ("", "")],
)  # fmt: skip
def test_makers(mac: str, who: str) -> None:
    assert maker(mac) == who


def test_every_prefix_is_one_and_has_one_maker() -> None:
    seen: dict[str, str] = {}
    for line in read("appliance/makers.txt").decode().splitlines():
        if line.startswith("#"):
            continue
        name, _, prefixes = line.partition(": ")
        for prefix in prefixes.split():
            assert re.fullmatch(r"[0-9a-f]{6}", prefix) and seen.setdefault(prefix, name) == name
    assert len(seen) > 2000
