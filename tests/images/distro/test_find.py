"""images.distro.find and inits: what a tree is, by its files."""

from __future__ import annotations

from pathlib import Path

import pytest

from images.distro import find, inits
from images.tree import Tree, TreeInvalid
from tests.images import systems
from tests.images.systems import link, put


@pytest.mark.parametrize("release, family", [
    ('ID=debian\nVERSION_ID="12"\n', "debian"), ("ID=ubuntu\nID_LIKE=debian\n", "debian"),
    ('ID=linuxmint\nID_LIKE="ubuntu debian"\n', "debian"), ('ID="rhel"\nID_LIKE="fedora"\n', "redhat"),
    ('ID="almalinux"\nID_LIKE="rhel centos fedora"\n', "redhat"), ('ID="sles"\nID_LIKE="suse"\n', "suse"),
    ("ID=alpine\n", "alpine"), ("ID=arch\n", "arch"), ('ID="void"\n', "void"), ("ID=gentoo\n", "gentoo"),
    ("ID=plan9\n", None),
])  # fmt: skip
def test_family_by_os_release(tmp_path: Path, release: str, family: str | None) -> None:
    put(tmp_path, "usr/lib/os-release", release)
    link(tmp_path, "etc/os-release", "../usr/lib/os-release")
    found = find.family_of(str(tmp_path))
    assert (found.name if found else None) == family


def test_family_by_marker_and_no_family(tmp_path: Path) -> None:
    assert find.family_of(str(tmp_path)) is None
    put(tmp_path, "etc/alpine-release", "3.20\n")
    found = find.family_of(str(tmp_path))
    assert found is not None and found.name == "alpine"


def test_a_debian_with_sysvinit_is_not_taken_for_systemd_or_runit(tmp_path: Path) -> None:
    root = systems.debian(tmp_path)
    put(root, "etc/runit/runsvdir/default/ssh", "")
    assert find.system_of(str(root)).init == "systemd"
    (root / "usr/sbin/init").unlink()
    put(root, "usr/sbin/init", "")
    put(root, "etc/inittab", "si::sysinit:/etc/init.d/rcS\n")
    put(root, "usr/sbin/ifup", "")
    found = find.system_of(str(root))
    assert (found.init, found.network) == ("sysvinit", "ifupdown")
    put(root, "usr/sbin/openrc", "")
    link(root, "etc/runlevels/sysinit/hostname.sh", "/etc/init.d/hostname.sh")
    assert inits.init_of(Tree(str(root))) == "openrc"


def test_no_init_a_loop_and_an_unknown_one(tmp_path: Path) -> None:
    tree = Tree(str(tmp_path))
    assert inits.init_of(tree) == ""
    link(tmp_path, "sbin/init", "a")
    link(tmp_path, "sbin/a", "init")
    with pytest.raises(TreeInvalid, match="/sbin/init"):
        inits.init_of(tree)
    (tmp_path / "sbin/init").unlink()
    link(tmp_path, "sbin/init", "dinit")
    assert inits.init_of(tree) == ""


def test_two_managers_on_debian(tmp_path: Path) -> None:
    root = systems.debian(tmp_path, "NetworkManager.service", "networking.service")
    put(root, "usr/sbin/ifup", "")
    put(root, "etc/network/interfaces", "source /etc/network/interfaces.d/*\n")
    assert find.system_of(str(root)).network == "keyfile"
    put(root, "etc/network/interfaces.d/eth0", "iface eth0 inet dhcp\n")
    assert find.system_of(str(root)).network == "ifupdown"


def test_enabled_knows_masks_aliases_and_links(tmp_path: Path) -> None:
    tree = Tree(str(systems.debian(tmp_path, "ssh.service")))
    assert inits.enabled(tree, "ssh.service") and not inits.enabled(tree, "systemd-networkd.service")
    link(tmp_path, "etc/systemd/system/sshd.service", "/usr/lib/systemd/system/systemd-networkd.service")
    assert inits.enabled(tree, "systemd-networkd.service")
    link(tmp_path, "etc/systemd/system/ssh.service", "/dev/null")
    assert not inits.enabled(tree, "ssh.service")
    assert inits.enable(tree, "ssh.service", "multi-user.target") and inits.enabled(tree, "ssh.service")
    assert inits.disable(tree, "ssh.service") and not inits.enabled(tree, "ssh.service")
    with pytest.raises(TreeInvalid, match=r"no unit none\.service"):
        inits.enable(tree, "none.service", "multi-user.target")


def test_an_os_release_that_is_none_is_an_error(tmp_path: Path) -> None:
    put(tmp_path, "etc/os-release", "x" * 100_000)
    with pytest.raises(TreeInvalid, match="/etc/os-release"):
        find.system_of(str(tmp_path))
