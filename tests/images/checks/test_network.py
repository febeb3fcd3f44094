"""Network configuration of one machine: what a node sets aside by itself, and what stays."""

from __future__ import annotations

from pathlib import Path

import pytest

from images.checks import network
from tests.images import systems
from tests.images.checks.looked import look
from tests.images.systems import link, put

ASIDE, STAYS = "network of one machine", "network that stays on every node"
MAC = "52:54:00:00:00:09"


def both(root: Path) -> tuple[tuple[str, ...], tuple[str, ...]]:
    found = look(network.network, root)
    return tuple(found[name].found if name in found else () for name in (ASIDE, STAYS))  # type: ignore[return-value]


def test_what_the_style_sets_aside_needs_nobody(tmp_path: Path) -> None:
    root = systems.debian(tmp_path)
    put(root, "usr/sbin/netplan")
    put(root, "etc/netplan/50-cloud-init.yaml", "network:\n  ethernets:\n    eth0:\n      addresses: [10.0.0.2/24]\n")
    put(root, "etc/netplan/01.yaml", "network: {version: 2}\n")
    assert both(root) == (("etc/netplan/50-cloud-init.yaml",), ())
    check = look(network.network, root)[ASIDE]
    assert check.severity == "info"


def test_a_file_that_comes_before_the_nodes_own_stays(tmp_path: Path) -> None:
    root = systems.debian(tmp_path)
    put(root, "etc/systemd/network/05-lan.network", "[Match]\nName=en*\n[Network]\nDHCP=yes\n")
    put(root, "etc/systemd/network/20-lan.network", "[Match]\nName=en*\n")
    put(root, "etc/systemd/network/30-mac.network", f"[Match]\nPermanentMACAddress={MAC}\n")
    put(root, "etc/systemd/network/10-gild-lan0.network", f"[Match]\nMACAddress={MAC}\n")
    assert both(root) == ((), ("etc/systemd/network/05-lan.network", "etc/systemd/network/30-mac.network"))
    assert look(network.network, root)[STAYS].severity == "warning"


def test_interfaces_beside_networkd_count_only_if_ifupdown_runs(tmp_path: Path) -> None:
    root = systems.debian(tmp_path, "systemd-networkd.service")
    text = "auto lo\niface lo inet loopback\niface ens3 inet static\n  address 10.0.0.2/24\n"
    put(root, "etc/network/interfaces", text)
    assert both(root) == (("etc/network/interfaces",), ())
    put(root, "sbin/ifup")
    link(
        root, "etc/systemd/system/multi-user.target.wants/networking.service", "/lib/systemd/system/networking.service"
    )
    assert both(root) == ((), ("etc/network/interfaces",))
    put(root, "etc/network/interfaces", "auto lo\niface lo inet loopback\niface ens3 inet dhcp\n")
    assert both(root) == ((), ())


def test_ifcfg_beside_keyfiles_and_udev_names_stay(tmp_path: Path) -> None:
    root = systems.system(tmp_path, 'ID="rocky"\nVERSION_ID="9.4"\n', "NetworkManager.service")
    put(root, "etc/sysconfig/network-scripts/ifcfg-lo", "IPADDR=127.0.0.1\n")
    put(root, "etc/sysconfig/network-scripts/ifcfg-ens192", f"HWADDR={MAC}\nONBOOT=yes\n")
    put(root, "etc/NetworkManager/system-connections/a.nmconnection", f"[ethernet]\nmac-address={MAC}\n", 0o600)
    put(root, "etc/udev/rules.d/60-names.rules", f'SUBSYSTEM=="net", ATTR{{address}}=="{MAC}", NAME="lan"\n')
    put(root, "etc/udev/rules.d/60-other.rules", 'KERNEL=="sd*", NAME="x"\n')
    assert both(root) == (
        ("etc/NetworkManager/system-connections/a.nmconnection",),
        ("etc/sysconfig/network-scripts/ifcfg-ens192", "etc/udev/rules.d/60-names.rules"),
    )


@pytest.mark.parametrize(
    ("release", "path", "text"),
    [
        ('ID="sles"\n', "etc/sysconfig/network/ifcfg-eth0", "IPADDR='10.0.0.2/24'\n"),
        ("ID=gentoo\n", "etc/conf.d/net", 'config_eth0="10.0.0.2/24"\n'),
        ("ID=alpine\n", "etc/network/interfaces", "iface eth0 inet static\n"),
    ],
)
def test_other_styles(tmp_path: Path, release: str, path: str, text: str) -> None:
    put(tmp_path, "etc/os-release", release)
    put(tmp_path, "sbin/openrc")
    put(tmp_path, "etc/inittab", "::sysinit:/sbin/openrc sysinit\n")
    put(tmp_path, "sbin/init")
    put(tmp_path, "etc/init.d/net.lo")
    link(tmp_path, "etc/runlevels/default/net.eth0", "/etc/init.d/net.eth0")
    link(tmp_path, "etc/runlevels/sysinit/devfs", "/etc/init.d/devfs")
    put(tmp_path, "usr/sbin/wicked")
    put(tmp_path, path, text)
    assert both(tmp_path) == ((path,), ())
