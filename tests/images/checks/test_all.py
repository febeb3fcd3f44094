"""All checks on every system there is, on hostile ones too: nothing outside is touched, and twice finds less."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from images.checks.all import CHECKS, run_checks
from images.checks.check import MAX_FOUND, MAX_NAME, SEVERITIES
from images.tree import Tree
from tests.images import trees
from tests.images.checks.looked import subject_of
from tests.images.systems import link, picture, put

SYSTEMS = trees.load()
# Files that the checks read, of every kind.
READ = (
    "etc/fstab", "etc/hosts", "etc/shadow", "etc/passwd", "etc/sudoers", "etc/crypttab", "etc/mdadm/mdadm.conf",
    "etc/lvm/lvm.conf", "etc/multipath.conf", "boot/grub/grub.cfg", "boot/loader/entries/a.conf", "boot/extlinux.conf",
    "etc/netplan/a.yaml", "etc/network/interfaces", "etc/NetworkManager/system-connections/a", "etc/selinux/config",
    "etc/apt/apt.conf", "usr/sbin/policy-rc.d", "etc/systemd/network/a.network", "etc/udev/rules.d/a.rules",
    "root/.ssh/authorized_keys", "etc/default/grub", "etc/conf.d/net", "etc/sysconfig/network-scripts/ifcfg-a",
)  # fmt: skip


@pytest.mark.parametrize("name", SYSTEMS)
def test_every_system_is_looked_at_to_the_end_and_mended_once(tmp_path: Path, name: str) -> None:
    root = SYSTEMS[name].build(tmp_path / "root")
    tree = Tree(str(root))
    first = run_checks(tree, subject_of(root))
    before = picture(root)
    second = run_checks(tree, subject_of(root))
    assert picture(root) == before and os.listdir(tmp_path) == ["root"]
    assert len(second) == len(first) and all(check.severity in SEVERITIES for check in first)
    for check in (*first, *second):
        assert len(check.found) <= MAX_FOUND + 1 and all(len(text) <= MAX_NAME for text in check.found)
        assert bool(check.found) == bool(check.fix) and "\n" not in check.fix + check.name


@pytest.mark.parametrize(
    "text", ["\n" * (1 << 20), " " * (1 << 20), "initrd " * 150_000, "a" * (1 << 20), "\t\n#" * 300_000]
)
def test_no_text_makes_a_check_run_for_ever(tmp_path: Path, text: str) -> None:
    root = SYSTEMS["debian12-nm"].build(tmp_path / "root")
    for path in READ:
        put(root, path, text)
    for path, head in (
        ("boot/grub/grub.cfg", "menuentry 'x' {\nlinux /x\ninitrd"),
        ("boot/extlinux.conf", "label x\nlinux"),
        ("etc/network/interfaces", "iface"),
        ("etc/mdadm/mdadm.conf", "ARRAY"),
        ("etc/apt/apt.conf", "Acquire { http {"),
    ):
        put(root, path, (head + text)[: 1 << 20])
    assert len(run_checks(Tree(str(root)), subject_of(root))) > 20


def test_odd_files_are_told_and_stop_no_other_check(tmp_path: Path) -> None:
    root = SYSTEMS["debian12-nm"].build(tmp_path / "root")
    (root / "etc/fstab").unlink()
    os.mkfifo(root / "etc/fstab")
    put(root, "etc/hosts", "x" * (1 << 21))
    put(root, "root/.ssh/id_rsa", "secret")
    found = run_checks(Tree(str(root)), subject_of(root))
    odd = [check.found[0] for check in found if check.name == "odd files"]
    assert any("etc/fstab" in text for text in odd) and any("etc/hosts" in text for text in odd)
    assert any(check.name == "private keys" and check.found for check in found)


def test_links_that_lead_out_are_not_followed(tmp_path: Path) -> None:
    root, outside = tmp_path / "root", tmp_path / "outside"
    fstab = put(outside, "fstab", "/dev/sda1 / ext4 defaults 0 1\n")
    put(outside, "mdadm.conf", "ARRAY /dev/md0 UUID=1\n")
    put(outside, "policy-rc.d", "#!/bin/sh\nexit 101\n")
    put(outside, "boot/vmlinuz-1", "x")
    before = picture(outside)
    put(root, "etc/os-release", "ID=debian\n")
    for path, target in (
        ("etc/fstab", str(fstab)),
        ("etc/mdadm", str(outside)),
        ("usr/sbin/policy-rc.d", "../../../outside/policy-rc.d"),
        ("boot", str(outside / "boot")),
        ("usr/lib/modules", str(outside)),
        ("etc/selinux", str(outside)),
        (".autorelabel", str(outside / "made")),
    ):
        link(root, path, target)
    run_checks(Tree(str(root)), subject_of(root))
    assert picture(outside) == before


def test_the_checks_are_a_plain_list_without_doubles() -> None:
    assert len(set(CHECKS)) == len(CHECKS) and all(check.__doc__ for check in CHECKS)
