"""Every system of tests/data/trees, fitted: what it is taken for, what is written, and what stays as it was."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from images.distro import find
from images.edits import all as edits
from images.errors import GildError
from images.tree import Tree
from netboot.agent import drivers, entry, localise
from netboot.plan import DiskRule, Edit, InstallPlan, Network
from netboot.report import Facts
from tests.images import trees
from tests.images.edits.test_all import ALL
from tests.images.edits.test_call_home import STATIC, options
from tests.images.systems import picture, put

SYSTEMS = trees.load()
PARTITIONS = [
    {"mount": "/", "fs": "ext4", "uuid": "11111111-1111-1111-1111-111111111111"},
    {"mount": "/boot/efi", "fs": "vfat", "uuid": "CCCC-DDDD"},
]


def plan(tmp_path: Path) -> InstallPlan:
    """Every edit a node gets."""
    program = str(put(tmp_path, "busybox", STATIC, 0o755))
    wanted: dict[str, dict[str, Any]] = dict(ALL) | {"call_home": dict(options(program))}
    wanted["network"] = {**wanted["network"], "dns": ["10.7.0.1"]}
    wanted["fstab"] = {"mounts": PARTITIONS}
    assert set(wanted) == set(edits.EDITS)
    return InstallPlan(
        order="1", node="n01", image="x:1", manifest="", sources=(), disk=DiskRule(), layout=(), boot=(),
        network=Network("52:54:00:00:00:01", "10.7.0.11", 24), edits=tuple(Edit(*each) for each in wanted.items()),
    )  # fmt: skip


def test_there_are_the_systems_people_run() -> None:
    families = {system.all("is")[0][0] for system in SYSTEMS.values() if system.all("is")}
    assert families == {family.name for family in find.FAMILIES} and len(SYSTEMS) >= 31


@pytest.mark.parametrize("name", [name for name, system in SYSTEMS.items() if system.all("is")])
def test_a_system_is_known_and_fitted_twice_the_same(tmp_path: Path, name: str) -> None:
    system = SYSTEMS[name]
    root = system.build(tmp_path / "root")
    tree = Tree(str(root))
    found = find.system_of(str(root))
    default = entry.default_entry(tree)
    told = [found.family.name if found.family else "", found.init, found.network, drivers.tool_of(tree, default)]
    assert " ".join(word or "-" for word in told) == " ".join(system.all("is")[0])
    for expected in system.all("boot"):
        assert default is not None
        assert f"{default.kernel} {default.initrd} {default.cmdline}".strip() == " ".join(expected)

    before = picture(root)
    given = plan(tmp_path)
    outside = {p.name for p in tmp_path.iterdir()}
    localise.fit(str(root), given, Facts(), lambda line: None)
    after = picture(root)
    localise.fit(str(root), given, Facts(), lambda line: None)
    assert picture(root) == after and outside == {p.name for p in tmp_path.iterdir()}
    assert not [path for path in after if path.endswith(".gild-part")]

    for path, *text in system.all("has"):
        assert tree.lexists(path), path
        assert not text or text[0] in tree.text(path), (path, tree.text(path))
    for (path,) in system.all("gone"):
        assert not tree.lexists(path)
    for (path,) in system.all("same"):
        assert before[path] == after[path], path
    for path, mode in system.all("mode"):
        assert (root / path).stat().st_mode & 0o777 == int(mode, 8), path


@pytest.mark.parametrize("name", [name for name, system in SYSTEMS.items() if system.all("refused")])
def test_a_system_that_cannot_be_fitted_is_left_alone(tmp_path: Path, name: str) -> None:
    root = SYSTEMS[name].build(tmp_path / "root")
    before = picture(root)
    with pytest.raises(GildError) as caught:
        localise.fit(str(root), plan(tmp_path), Facts(), print)
    assert " ".join(SYSTEMS[name].all("refused")[0]) in str(caught.value)
    assert picture(root) == before
