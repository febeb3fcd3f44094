"""A tree made ready: stripped, completed, looked at, and said so in the form of the manifest."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from images.checks.check import summary
from images.errors import SourceInvalid
from images.ext4 import EPOCH
from images.prepare import clamp_times, prepare, root_uuid
from tests.images.systems import link, put
from tests.images.tinytree import KERNEL, tiny_tree

UUID = "95fd9a78-4a9f-561d-aead-869354627bb8"


def test_everything_found_stands_in_the_facts(tmp_path: Path) -> None:
    root = tiny_tree(tmp_path / "tree")
    put(root, "etc/hosts", "192.0.2.5 builder\n")
    put(root, "root/.ssh/id_rsa", "secret")
    facts = prepare(root, uuid=UUID, mounts={"root": "/"}, message="m")
    found = {str(check["name"]): check for check in facts.checks if check["found"]}
    for name in ("ssh host keys", "boot configuration", "fstab", "private keys", "names of the golden client"):
        assert name in found, name
    assert found["hostname"]["found"] == ["etc/hostname: builder"]
    assert facts.system["kernels"][0]["version"] == KERNEL and facts.system["mounts"] == {"root": "/"}
    assert json.loads(json.dumps(facts.checks)) == list(facts.checks)
    errors, warnings = summary(facts.checks)
    assert errors == 2 and warnings >= 2  # nothing starts it, nothing configures its network
    assert {check["name"] for check in facts.checks if check["severity"] == "error"} == {
        "what starts the system",
        "network configuration",
    }


def test_what_was_mended_is_not_found_again(tmp_path: Path) -> None:
    root = tiny_tree(tmp_path / "tree")
    put(root, "usr/sbin/policy-rc.d", "#!/bin/sh\nexit 101\n")
    mended = {"ssh host keys", "machine-id", "hostname", "boot configuration", "fstab", "services held back"}
    names = [{str(c["name"]) for c in prepare(root, uuid=UUID).checks if c["found"]} for _ in range(2)]
    assert mended <= names[0] and not mended & names[1] and names[1] <= names[0]


@pytest.mark.parametrize("path", ["etc/os-release", "usr/lib/os-release", "etc/hostname"])
def test_odd_files_do_not_stop_it(tmp_path: Path, path: str) -> None:
    root = tiny_tree(tmp_path / "tree")
    (root / path).unlink()
    os.mkfifo(root / path)
    assert prepare(root, uuid=UUID).checks


def test_what_is_no_system_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SourceInvalid, match="no etc and usr"):
        prepare(tmp_path, uuid=UUID)
    root = tiny_tree(tmp_path / "tree")
    put(root, "usr/bin/env", b"\x7fELF" + bytes(14) + b"\x08\x00")
    with pytest.raises(SourceInvalid, match="another kind of machine"):
        prepare(root, uuid=UUID)


def test_times_and_the_root_of_a_tree(tmp_path: Path) -> None:
    root = tiny_tree(tmp_path / "tree")
    assert root_uuid(root) == ""
    put(root, "etc/fstab", f"#UUID=1 / ext4\n UUID={UUID.upper()}  / ext4 defaults 0 1\n")
    assert root_uuid(root) == UUID
    link(root, "late", "nowhere")
    os.utime(root / "late", (4e9, 4e9), follow_symlinks=False)
    clamp_times(root, 3e9)
    assert (root / "late").lstat().st_mtime == EPOCH
