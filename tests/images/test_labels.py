"""images.labels: the rules of file_contexts, as libselinux reads them."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from images import tree as tree_module
from images.labels import Labels, labels_of
from images.tree import Tree
from tests.images.systems import put

CONTEXTS = r"""
# comment
/.*	system_u:object_r:default_t:s0
/etc(/.*)?	system_u:object_r:etc_t:s0
/etc/hosts[^/]*	--	system_u:object_r:net_conf_t:s0
/etc/host\.conf	system_u:object_r:exact_t:s0
/etc/h.*	system_u:object_r:h_t:s0
/usr/(.*/)?bin(/.*)?	system_u:object_r:bin_t:s0
/usr/lib/systemd/system(/.*)?	system_u:object_r:systemd_unit_file_t:s0
/etc/c\+\+(/.*)?	-d	system_u:object_r:plus_t:s0
/tmp/.*	<<none>>
/etc/link	-l	system_u:object_r:link_t:s0
/opt/x?	system_u:object_r:opt_t:s0
/a/b|/c/d	system_u:object_r:two_t:s0
/broken(?<	system_u:object_r:broken_t:s0
not a rule
"""
SUBS = "# comment\n/usr/local/lib /usr/lib\n/etc/systemd/system /usr/lib/systemd/system\n"


@pytest.mark.parametrize("path, kind, kind_of_label", [
    ("/srv", "d", "default_t"), ("/etc", "d", "etc_t"), ("/etc/fstab", "f", "etc_t"), ("/etcetera", "f", "default_t"),
    ("/etc/hosts", "f", "h_t"),  # the last pattern that fits
    ("/etc/host.conf", "f", "exact_t"),  # and a plain path before any
    ("/usr/local/lib/gild/bin/busybox", "f", "bin_t"), ("/usr/local/libx/bin", "d", "bin_t"),
    ("/etc/systemd/system/x.service", "l", "systemd_unit_file_t"), ("/etc/c++/x", "d", "plus_t"),
    ("/etc/c++/x", "f", "etc_t"), ("/tmp/x", "f", ""), ("/etc/link", "l", "link_t"), ("/etc/link", "f", "etc_t"),
    ("/opt/", "d", "opt_t"), ("/opt/x", "d", "opt_t"), ("/c/d", "f", "two_t"), ("/a/b", "f", "two_t"),
])  # fmt: skip
def test_the_last_rule_counts_and_a_plain_path_most(path: str, kind: str, kind_of_label: str) -> None:
    found = Labels(CONTEXTS, SUBS).of(path, kind)
    assert found == (f"system_u:object_r:{kind_of_label}:s0\0".encode() if kind_of_label else b"")


@pytest.mark.parametrize("config, used", [
    ("SELINUX=enforcing\nSELINUXTYPE=targeted\n", True), ("SELINUX=permissive\nSELINUXTYPE=targeted\n", True),
    ("SELINUX=disabled\nSELINUXTYPE=targeted\n", False), ("SELINUX=enforcing\nSELINUXTYPE=mls\n", False),
    ("# SELINUX=enforcing\n", False), ("", False),
])  # fmt: skip
def test_a_system_says_itself_whether_it_uses_labels(config: str, used: bool) -> None:
    base = "etc/selinux/targeted/contexts/files/file_contexts"
    files = {"etc/selinux/config": config, base: CONTEXTS, f"{base}.local": "/etc/mine system_u:object_r:mine_t:s0\n"}
    found = labels_of(lambda path: files.get(path, ""))
    assert (found is not None) is used
    if found:
        assert found.of("/etc/mine", "f") == b"system_u:object_r:mine_t:s0\0"


def test_files_links_and_directories_of_a_tree_get_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tree_module, "LABEL", "trusted.gild-test")  # unlike user.*, a link can have it
    put(tmp_path, "etc/selinux/config", "SELINUX=enforcing\nSELINUXTYPE=targeted\n")
    put(tmp_path, "etc/selinux/targeted/contexts/files/file_contexts", CONTEXTS)
    old = put(tmp_path, "etc/old", "")
    try:
        os.setxattr(old, "trusted.gild-test", b"kept")
    except OSError:
        pytest.skip("this file system, or this user, sets no such attributes")
    tree = Tree(str(tmp_path))
    tree.write("etc/old", "new")
    tree.write("etc/c++/x", "new")
    tree.make_link("etc/link", "nowhere")
    told = {path: os.getxattr(tmp_path / path, "trusted.gild-test", follow_symlinks=False)
            for path in ("etc/old", "etc/c++", "etc/c++/x", "etc/link")}  # fmt: skip
    assert told == {
        "etc/old": b"kept", "etc/c++": b"system_u:object_r:plus_t:s0\0", "etc/c++/x": b"system_u:object_r:etc_t:s0\0",
        "etc/link": b"system_u:object_r:link_t:s0\0",
    }  # fmt: skip
