"""SELinux labels: there, or the node is told to make them."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from images.checks import labels
from images.tree import LABEL
from tests.images.checks.looked import look
from tests.images.systems import put

CONFIG = "SELINUX=enforcing\nSELINUXTYPE=targeted\n"


def test_a_system_without_selinux(tmp_path: Path) -> None:
    put(tmp_path, "etc/passwd")
    assert look(labels.labels, tmp_path) == {}
    put(tmp_path, "etc/selinux/config", CONFIG.replace("enforcing", "disabled"))
    assert look(labels.labels, tmp_path) == {} and not (tmp_path / ".autorelabel").exists()


def test_without_labels_every_node_makes_them(tmp_path: Path) -> None:
    put(tmp_path, "etc/passwd")
    put(tmp_path, "etc/selinux/config", CONFIG)
    for words in ("wrote /.autorelabel", "the image has /.autorelabel"):
        check = look(labels.labels, tmp_path)["SELinux labels"]
        assert check.severity == "warning" and check.fix.startswith(words) and "enforcing" in check.found[0]
        assert "setfiles -F /etc/selinux/targeted/contexts/files/file_contexts /" in check.fix
    assert (tmp_path / ".autorelabel").read_bytes() == b""


@pytest.mark.root
def test_with_labels_nothing_is_done(tmp_path: Path) -> None:
    path = put(tmp_path, "etc/passwd")
    try:
        os.setxattr(path, LABEL, b"system_u:object_r:passwd_file_t:s0\0")
    except OSError:
        pytest.skip("no extended attributes here")
    put(tmp_path, "etc/selinux/config", CONFIG)
    assert look(labels.labels, tmp_path) == {} and not (tmp_path / ".autorelabel").exists()
