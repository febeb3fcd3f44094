"""The install plan: both ways on the wire, and a default layout that can be placed."""

from __future__ import annotations

import json

import pytest

from netboot import layout
from netboot.plan import DEFAULT_LAYOUT, BootPiece, DiskRule, Edit, InstallPlan, Network
from netboot.wire import WIRE, WireInvalid, decode, encode

PLAN = InstallPlan(
    order="7",
    node="n17",
    image="compute:3",
    manifest="ab" * 32,
    sources=("http://10.77.0.1", "http://10.77.0.2/cache"),
    disk=DiskRule(bus=("nvme",), rotational=False, pick="smallest"),
    layout=DEFAULT_LAYOUT,
    network=Network("52:54:00:00:77:01", "10.77.0.17", 24, dns=("10.77.0.1",)),
    edits=(Edit("hostname", {"name": "n17"}), Edit("fstab")),
    boot=(BootPiece("core.img", "cd" * 32, 60_000),),
)


def test_round_trip() -> None:
    assert decode(InstallPlan, encode(PLAN)) == PLAN
    assert PLAN.wire == WIRE


def test_null_and_bool_of_an_optional_field() -> None:
    body = json.loads(encode(PLAN))
    body["disk"]["rotational"] = None
    assert decode(InstallPlan, json.dumps(body).encode()).disk.rotational is None
    body["disk"]["rotational"] = 1
    with pytest.raises(WireInvalid, match="rotational"):
        decode(InstallPlan, json.dumps(body).encode())


@pytest.mark.parametrize("field", ["manifest", "disk", "layout", "network", "edits", "sources"])
def test_a_plan_without_it_is_no_plan(field: str) -> None:
    body = json.loads(encode(PLAN))
    del body[field]
    with pytest.raises(WireInvalid, match=f"lacks {field!r}"):
        decode(InstallPlan, json.dumps(body).encode())


def test_the_default_layout_starts_with_bios_and_esp_and_can_be_placed() -> None:
    layout.check(DEFAULT_LAYOUT)
    assert [part.kind for part in DEFAULT_LAYOUT[:2]] == ["bios", "esp"]
