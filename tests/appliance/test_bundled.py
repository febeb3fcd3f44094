from __future__ import annotations

import json
import os
from hashlib import sha256
from pathlib import Path

import pytest

from appliance import bundled
from appliance.errors import Environment
from tests.appliance import smallapp


def test_the_payload_of_the_file_is_found_at_its_offset(tmp_path: Path) -> None:
    pyz = smallapp.build(tmp_path)
    code = """
import hashlib, json, os
from appliance import bundled
places = bundled.payload()
print(json.dumps({n: [size, hashlib.sha256(os.pread(fd, size, offset)).hexdigest(), os.readlink(f"/proc/self/fd/{fd}")]
                  for n, (fd, offset, size) in places.items()}))
"""
    done = smallapp.run(pyz, code)
    assert done.stderr == ""
    found = json.loads(done.stdout)
    assert sorted(found) == ["loader.efi", "vmlinuz"]
    for name, (size, digest, link) in found.items():
        data = (tmp_path / "payload" / name).read_bytes()
        assert (size, digest) == (len(data), sha256(data).hexdigest())
        assert link == (str(pyz) if name == "vmlinuz" else "/memfd:loader.efi (deleted)")


def test_in_a_checkout_the_payload_is_what_was_built(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bundled, "ROOT", str(tmp_path))
    assert bundled.payload() == {}
    folder = tmp_path / ".build" / "payload"
    folder.mkdir(parents=True)
    for name in ("vmlinuz", "COMPONENTS.json", ".vmlinuz.new"):
        (folder / name).write_bytes(b"12345")
    places = bundled.payload()
    assert list(places) == ["vmlinuz"]
    fd, offset, size = places["vmlinuz"]
    assert os.pread(fd, size, offset) == b"12345"
    os.close(fd)


def test_own_texts_in_a_checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert bundled.read("appliance/help/start.md").strip()
    monkeypatch.setattr(bundled, "ROOT", str(tmp_path))
    with pytest.raises(Environment, match=r"components\.json is not in this checkout.*build\.py app"):
        bundled.read("components.json")
    (tmp_path / ".build").mkdir()
    (tmp_path / ".build" / "components.json").write_text("[]")
    assert bundled.read("components.json") == b"[]"
