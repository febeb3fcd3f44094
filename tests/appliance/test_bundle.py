from __future__ import annotations

import json
import os
import zipfile
from pathlib import Path

import pytest

from appliance import bundle
from appliance.wheels import Wheel
from tests.appliance import smallapp


@pytest.fixture(scope="module")
def pyz(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return smallapp.build(tmp_path_factory.mktemp("small"))


def wheel(**files: str) -> Wheel:
    return Wheel("thing", "1", "MIT", "2" * 64, "", {f"{name}.py": text.encode() for name, text in files.items()}, {})


def test_the_same_inputs_give_the_same_bytes(pyz: Path, tmp_path: Path) -> None:
    again = smallapp.build(tmp_path)
    for path in (tmp_path / "checkout").rglob("*"):
        os.utime(path, (1, 1))
    os.chmod(tmp_path / "checkout" / "appliance" / "late.py", 0o600)
    assert again.read_bytes() == pyz.read_bytes()


def test_it_is_an_ordinary_zip_that_can_be_run(pyz: Path) -> None:
    assert pyz.read_bytes().startswith(b"#!/usr/bin/env python3\nPK\3\4")
    assert os.access(pyz, os.X_OK)
    with zipfile.ZipFile(pyz) as archive:
        assert archive.testzip() is None
        names = archive.namelist()
        listed = archive.read("MEMBERS").decode().split("\n")
    assert len(names) == len(set(names))
    assert sorted(listed) == sorted(set(names) - {"MEMBERS"})
    assert not [name for name in names if name.endswith(".pyc") or "__pycache__" in name]
    assert "licences/Colours/LICENSE" in names


def test_payload_is_stored_where_compressing_gains_nothing(pyz: Path) -> None:
    with zipfile.ZipFile(pyz) as archive:
        methods = {i.filename: i.compress_type for i in archive.infolist() if i.filename.startswith("payload/")}
    assert methods == {"payload/vmlinuz": zipfile.ZIP_STORED, "payload/loader.efi": zipfile.ZIP_DEFLATED}


def test_everything_bundled_is_listed(pyz: Path) -> None:
    with zipfile.ZipFile(pyz) as archive:
        rows = json.loads(archive.read("components.json"))
    assert [(row["name"], row["where"]) for row in rows] == [
        ("Colours", "all"),
        *[("multidict", smallapp.MACHINE)] * 4,
        ("linux", "payload"),
    ]
    assert all(row["version"] and row["licence"] and len(row["sha256"]) == 64 for row in rows)


def test_code_is_compiled_beforehand_but_for_what_seldom_runs() -> None:
    members = {"lib/a/__init__.py": b"A = {'x', 'y', 'z'}\n", "images/b.py": b"# \xc3\xa4\nB = 'b'\n"}
    code = bundle.compiled(members)
    assert sorted(name.split("/", 2)[2] for name in code) == ["images/b.py", "lib/a/__init__.py"]
    assert code == bundle.compiled(members)


def test_a_file_that_differs_between_targets_is_refused() -> None:
    with pytest.raises(bundle.BundleInvalid, match=r"lib/same\.py is not the same for every target"):
        bundle.wheel_members([wheel(same="1"), wheel(same="2")])
    assert bundle.wheel_members([wheel(same="1"), wheel(same="1")]) == {"lib/same.py": b"1"}


def test_a_failed_build_leaves_the_old_file(tmp_path: Path) -> None:
    out = smallapp.build(tmp_path)
    before = out.read_bytes()
    (tmp_path / "payload" / "loader.efi").unlink()
    with pytest.raises(FileNotFoundError, match=r"loader\.efi"):
        bundle.build(tmp_path / "checkout", out, smallapp.wheels(), tmp_path / "payload", lambda line: None)
    assert out.read_bytes() == before


def test_the_agent_takes_along_what_it_imports_and_no_more(tmp_path: Path) -> None:
    root = smallapp.checkout(tmp_path)
    packed = bundle.agent_archive(root)
    (tmp_path / "agent.zip").write_bytes(packed)
    with zipfile.ZipFile(tmp_path / "agent.zip") as archive:
        assert archive.namelist() == [
            "images/__init__.py", "images/chunk.py", "images/layers.py", "netboot/__init__.py",
            "netboot/agent/__init__.py", "netboot/agent/__main__.py", "netboot/agent/init.sh",
        ]  # fmt: skip
    os.utime(root / "images" / "chunk.py", (1, 1))
    assert bundle.agent_archive(root) == packed
