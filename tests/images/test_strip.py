"""What must not be cloned: found, named, gone; and nothing outside the tree is touched."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from images.checks.check import MAX_FOUND
from images.strip import inside, strip_tree
from tests.images.systems import put
from tests.images.tinytree import tiny_tree


def test_identities_go_and_are_named(tmp_path: Path) -> None:
    tree = tiny_tree(tmp_path / "tree")
    (tree / "etc/systemd/network").mkdir(parents=True)
    (tree / "etc/systemd/network/10-pin.link").write_text("[Match]\nPermanentMACAddress=52:54:00:00:00:01\n")
    (tree / "etc/systemd/network/20-choice.link").write_text("[Match]\nDriver=igb\n")
    (tree / "etc/systemd/network/99-default.link").symlink_to("/dev/null")
    (tree / "var/cache/apt/archives").mkdir(parents=True)
    for number in range(MAX_FOUND + 5):
        (tree / f"var/cache/apt/archives/p{number:02}.deb").write_text("x")
    found = {check.name: check for check in strip_tree(tree)}
    for name in ("ssh host keys", "dbus machine-id", "random seeds", "machine-id", "resolv.conf", "hostname"):
        assert found[name].found and found[name].fix, name
    assert found["package caches"].found[-1] == "and 5 more"
    assert (tree / "etc/machine-id").read_bytes() == b"" and not (tree / "var/lib/dbus/machine-id").exists()
    assert (tree / "etc/hostname").read_text() == "localhost\n" and (tree / "etc/resolv.conf").read_text() == ""
    assert sorted(p.name for p in (tree / "etc/systemd/network").iterdir()) == ["20-choice.link", "99-default.link"]
    assert list((tree / "etc/ssh").iterdir()) == []
    assert found["LVM devices file"].found == () and found["LVM devices file"].fix == ""


def test_what_belongs_to_one_machine_goes_and_its_neighbours_stay(tmp_path: Path) -> None:
    tree = tiny_tree(tmp_path / "tree")
    gone = (
        "etc/initramfs-tools/conf.d/resume",
        "etc/udev/rules.d/75-gild-net.rules",
        "etc/systemd/network/10-gild-lan0.network",
        "etc/nvme/hostnqn",
        "etc/hostid",
        "etc/zfs/zpool.cache",
        "etc/lvm/devices/system.devices",
        "etc/pki/consumer/key.pem",
        "var/lib/YaST2/reconfig_system",
    )
    kept = ("etc/udev/rules.d/80-own.rules", "etc/systemd/network/20-own.network", "etc/pki/tls/cert.pem")
    for path in (*gone, *kept):
        put(tree, path, "x")
    found = {path for check in strip_tree(tree) for path in check.found}
    assert set(gone) <= found and not any((tree / path).exists() for path in gone)
    assert all((tree / path).exists() for path in kept)


def test_mount_points_are_made_and_emptied(tmp_path: Path) -> None:
    tree = tiny_tree(tmp_path / "tree")
    (tree / "tmp/rubbish").mkdir()
    checks = {check.name: check for check in strip_tree(tree)}
    assert set(checks["mount points"].found) >= {"proc", "sys", "run", "tmp"}
    for name, mode in {"dev": 0o755, "proc": 0o555, "sys": 0o555, "run": 0o755, "tmp": 0o1777}.items():
        assert list((tree / name).iterdir()) == []
        assert stat.S_IMODE((tree / name).stat().st_mode) == mode


def test_a_second_time_finds_nothing(tmp_path: Path) -> None:
    tree = tiny_tree(tmp_path / "tree")
    strip_tree(tree)
    assert [check.name for check in strip_tree(tree) if check.found] == []


def test_links_out_of_the_tree_are_not_followed(tmp_path: Path) -> None:
    tree, outside = tiny_tree(tmp_path / "tree"), tmp_path / "outside"
    outside.mkdir()
    (outside / "ssh_host_rsa_key").write_text("the host's own")
    (outside / "resolv.conf").write_text("nameserver 192.0.2.9\n")
    for path in (tree / "etc/ssh").iterdir():
        path.unlink()
    (tree / "etc/ssh").rmdir()
    (tree / "etc/ssh").symlink_to(outside)
    (tree / "etc/resolv.conf").unlink()
    (tree / "etc/resolv.conf").symlink_to(outside / "resolv.conf")
    (tree / "tmp").rmdir()
    (tree / "tmp").symlink_to(outside)
    (tree / "etc/machine-id").unlink()
    (tree / "etc/machine-id").symlink_to(outside / "resolv.conf")
    strip_tree(tree)
    assert (outside / "ssh_host_rsa_key").read_text() == "the host's own"
    assert (outside / "resolv.conf").read_text() == "nameserver 192.0.2.9\n"
    assert os.path.islink(tree / "etc/resolv.conf") and not os.path.islink(tree / "tmp")
    assert inside(tree, "etc/ssh/x") is None and inside(tree, "no/such/x") is None
