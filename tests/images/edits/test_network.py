"""images.edits.network: the right file for every system, read back by the system's own programs where they are here."""

from __future__ import annotations

import configparser
import os
import subprocess
from pathlib import Path

import pytest

from images.edits import network
from images.errors import GildError
from tests.images import systems
from tests.images.systems import link, put

MAC = "52:54:00:aa:bb:01"
OPTIONS = {
    "mac": MAC.upper(), "address": "10.7.0.11", "prefix": 24, "gateway": "10.7.0.1", "dns": ["10.7.0.1", "10.7.0.2"],
    "domain": "c.internal", "name": "lan0",
}  # fmt: skip


def fitted(root: Path) -> list[str]:
    """Apply twice; the second time nothing may change."""
    told = network.apply(str(root), OPTIONS)
    before = systems.picture(root)
    network.apply(str(root), OPTIONS)
    assert systems.picture(root) == before
    return told


def ini(path: Path) -> dict[str, dict[str, list[str]]]:
    """An ini file as systemd and NetworkManager have them: sections, and keys that may be repeated."""
    found: dict[str, dict[str, list[str]]] = {}
    section: dict[str, list[str]] = {}
    for line in path.read_text().splitlines():
        if line.startswith("["):
            section = found.setdefault(line.strip("[]"), {})
        elif line:
            key, _, value = line.partition("=")
            section.setdefault(key, []).append(value)
    return found


def test_the_name_is_given_by_udev_and_by_systemd_and_old_pins_go(tmp_path: Path) -> None:
    root = systems.debian(tmp_path)
    put(root, "etc/udev/rules.d/70-persistent-net.rules", "x")
    fitted(root)
    assert ini(root / "etc/systemd/network/10-gild-lan0.link") == {
        "Match": {"MACAddress": [MAC], "Type": ["ether"]},
        "Link": {"Name": ["lan0"]},
    }
    rule = (root / "etc/udev/rules.d/75-gild-net.rules").read_text()
    assert 'DRIVERS=="?*"' in rule and f'ATTR{{address}}=="{MAC}"' in rule and 'NAME="lan0"' in rule
    assert not (root / "etc/udev/rules.d/70-persistent-net.rules").exists()


def test_a_bare_debian_gets_networkd_and_has_it_enabled(tmp_path: Path) -> None:
    root = systems.debian(tmp_path)
    told = fitted(root)
    assert "systemd-networkd was not enabled and is now" in told
    assert ini(root / "etc/systemd/network/10-gild-lan0.network") == {
        "Match": {"MACAddress": [MAC]},
        "Network": {
            "Address": ["10.7.0.11/24"], "Gateway": ["10.7.0.1"], "DNS": ["10.7.0.1", "10.7.0.2"],
            "Domains": ["c.internal"], "IPv6AcceptRA": ["no"],
        },
    }  # fmt: skip
    etc = root / "etc/systemd/system"
    links = {str(path.relative_to(etc)): os.readlink(path) for path in etc.rglob("*") if path.is_symlink()}
    lib = "/usr/lib/systemd/system/"
    assert links == {
        "multi-user.target.wants/systemd-networkd.service": lib + "systemd-networkd.service",
        "dbus-org.freedesktop.network1.service": lib + "systemd-networkd.service",
        "sockets.target.wants/systemd-networkd.socket": lib + "systemd-networkd.socket",
        "sysinit.target.wants/systemd-network-generator.service": lib + "systemd-network-generator.service",
        "network-online.target.wants/systemd-networkd-wait-online.service": lib
        + "systemd-networkd-wait-online.service",
    }


def test_networkd_that_is_enabled_stays_as_it_is(tmp_path: Path) -> None:
    root = systems.debian(tmp_path, "systemd-networkd.service")
    put(root, "etc/systemd/network/05-early.network", "[Match]\nName=*\n")
    told = fitted(root)
    assert not any("enabled" in line for line in told) and any("05-early.network comes before" in line for line in told)
    assert len([p for p in (root / "etc/systemd/system").rglob("*") if p.is_symlink()]) == 1


def test_ifupdown_gets_a_stanza_and_the_golden_cards_are_silenced(tmp_path: Path) -> None:
    root = systems.debian(tmp_path, "networking.service")
    put(root, "usr/sbin/ifup", "")
    golden = "# mine\nauto lo\niface lo inet loopback\n\nallow-hotplug ens3\niface ens3 inet dhcp\n  mtu 9000\n\nauto br0\niface br0 inet manual\n"  # noqa: E501  # fmt: skip
    put(root, "etc/network/interfaces", golden)
    fitted(root)
    text = (root / "etc/network/interfaces").read_text()
    assert (
        text
        == golden.replace("allow-hotplug ens3", "# gild: allow-hotplug ens3").replace(
            "iface ens3 inet dhcp\n  mtu", "# gild: iface ens3 inet dhcp\n# gild:   mtu"
        )
        + "source /etc/network/interfaces.d/*\n"
    )
    own = (root / "etc/network/interfaces.d/lan0").read_text()
    assert own.splitlines()[:4] == [
        "auto lan0",
        "iface lan0 inet static",
        "    address 10.7.0.11/24",
        "    gateway 10.7.0.1",
    ]


def test_network_manager_on_debian_gets_a_keyfile_it_will_not_pass_over(tmp_path: Path) -> None:
    root = systems.debian(tmp_path, "NetworkManager.service")
    put(root, "etc/network/interfaces", "auto eth0\niface eth0 inet dhcp\n")
    old = "etc/NetworkManager/system-connections"
    put(root, f"{old}/Wired.nmconnection", "[connection]\ntype=ethernet\n", 0o600)
    put(root, f"{old}/port.nmconnection", "[connection]\ntype=ethernet\nmaster=bond0\n", 0o600)
    put(root, f"{old}/wifi.nmconnection", "[connection]\ntype=wifi\n", 0o600)
    fitted(root)
    assert sorted(os.listdir(root / old)) == ["Wired.nmconnection~", "lan0.nmconnection", "port.nmconnection", "wifi.nmconnection"]  # noqa: E501  # fmt: skip
    place = root / old / "lan0.nmconnection"
    parsed = configparser.ConfigParser()
    parsed.read(place)
    assert place.stat().st_mode & 0o777 == 0o600
    assert dict(parsed["ipv4"]) == {
        "method": "manual", "address1": "10.7.0.11/24,10.7.0.1",
        "dns": "10.7.0.1;10.7.0.2;", "dns-search": "c.internal;",
    }  # fmt: skip
    assert parsed["ethernet"]["mac-address"] == MAC.upper()
    assert "iface" not in "".join(
        line for line in (root / "etc/network/interfaces").read_text().splitlines() if not line.startswith("#")
    )


def test_netplan_has_one_file_left(tmp_path: Path) -> None:
    root = systems.system(tmp_path, "ID=ubuntu\nID_LIKE=debian\n")
    systems.networkd(root)
    put(root, "usr/sbin/netplan", "")
    put(root, "etc/netplan/50-cloud-init.yaml", "network: {}\n")
    put(root, "etc/cloud/cloud.cfg.d/x.cfg", "")
    fitted(root)
    assert sorted(os.listdir(root / "etc/netplan")) == ["50-cloud-init.yaml.image", "60-gild.yaml"]
    text = (root / "etc/netplan/60-gild.yaml").read_text()
    assert (root / "etc/netplan/60-gild.yaml").stat().st_mode & 0o777 == 0o600
    assert f'macaddress: "{MAC}"' in text and 'addresses: ["10.7.0.11/24"]' in text and "set-name: lan0" in text
    assert (root / "etc/cloud/cloud.cfg.d/99-gild-network.cfg").read_text() == "network: {config: disabled}\n"


def test_el8_has_an_ifcfg_file_that_renames_and_keeps_bonds(tmp_path: Path) -> None:
    root = systems.system(tmp_path, 'ID="rhel"\nVERSION_ID="8.10"\n', "NetworkManager.service")
    put(root, "usr/lib/udev/rules.d/60-net.rules", "")
    scripts = "etc/sysconfig/network-scripts"
    put(root, f"{scripts}/ifcfg-lo", "DEVICE=lo\n")
    put(root, f"{scripts}/ifcfg-ens192", 'TYPE="Ethernet"\r\nDEVICE=ens192\r\n')
    put(root, f"{scripts}/ifcfg-bond0", "TYPE=Bond\nDEVICE=bond0\n")
    fitted(root)
    assert sorted(os.listdir(root / scripts)) == ["ifcfg-bond0", "ifcfg-lan0", "ifcfg-lo"]
    lines = (root / scripts / "ifcfg-lan0").read_text().splitlines()
    assert {"DEVICE=lan0", f"HWADDR={MAC.upper()}", "IPADDR=10.7.0.11", "PREFIX=24", "DNS2=10.7.0.2"} <= set(lines)


@pytest.mark.parametrize(
    "release", ['ID=rocky\nID_LIKE="rhel centos fedora"\nVERSION_ID="9.4"\n', "ID=fedora\nVERSION_ID=41\n"]
)
def test_el9_and_fedora_have_a_keyfile(tmp_path: Path, release: str) -> None:
    root = systems.system(tmp_path, release, "NetworkManager.service")
    fitted(root)
    assert (root / "etc/NetworkManager/system-connections/lan0.nmconnection").is_file()


def test_wicked_is_found_behind_its_alias(tmp_path: Path) -> None:
    root = systems.system(tmp_path, 'ID="opensuse-leap"\nID_LIKE="suse opensuse"\nVERSION_ID="15.6"\n')
    link(root, "etc/systemd/system/network.service", "/usr/lib/systemd/system/wicked.service")
    put(root, "etc/sysconfig/network/ifcfg-eth0", "BOOTPROTO='dhcp'\n")
    put(root, "etc/sysconfig/network/ifcfg-lo", "")
    put(root, "etc/sysconfig/network/config", 'A="b"\nNETCONFIG_DNS_STATIC_SERVERS=""\n')
    fitted(root)
    base = root / "etc/sysconfig/network"
    assert sorted(os.listdir(base)) == ["config", "ifcfg-lan0", "ifcfg-lo", "ifroute-lan0"]
    assert "IPADDR='10.7.0.11/24'" in (base / "ifcfg-lan0").read_text()
    assert (base / "ifroute-lan0").read_text() == "default 10.7.0.1 - lan0\n"
    assert (base / "config").read_text() == (
        'A="b"\nNETCONFIG_DNS_STATIC_SERVERS="10.7.0.1 10.7.0.2"\nNETCONFIG_DNS_STATIC_SEARCHLIST="c.internal"\n'
    )


def test_alpine_void_and_gentoo_have_their_own_ways(tmp_path: Path) -> None:
    alpine = tmp_path / "alpine"
    put(alpine, "etc/os-release", "ID=alpine\n")
    link(alpine, "sbin/init", "/bin/busybox")
    put(alpine, "etc/inittab", "::sysinit:/sbin/openrc sysinit\n")
    put(alpine, "etc/init.d/networking", "")
    fitted(alpine)
    text = (alpine / "etc/network/interfaces").read_text()
    assert "    netmask 255.255.255.0\n" in text and f"nameif lan0 {MAC}" in text
    assert (alpine / "etc/runlevels/boot/networking").is_symlink()

    void = tmp_path / "void"
    put(void, "etc/os-release", 'ID="void"\n')
    link(void, "sbin/init", "/usr/bin/runit-init")
    link(void, "etc/runit/runsvdir/default/dhcpcd", "/etc/sv/dhcpcd")
    fitted(void)
    assert not os.path.lexists(void / "etc/runit/runsvdir/default/dhcpcd")
    script = void / "etc/rc.local"
    assert "ip addr add 10.7.0.11/24" in script.read_text() and os.access(script, os.X_OK)
    subprocess.run(["sh", "-n", script], check=True)

    gentoo = tmp_path / "gentoo"
    put(gentoo, "etc/os-release", "ID=gentoo\n")
    put(gentoo, "sbin/init", "")
    put(gentoo, "etc/inittab", "si::sysinit:/sbin/openrc sysinit\n")
    put(gentoo, "etc/init.d/net.lo", "")
    put(gentoo, "etc/conf.d/net", "# net\n")
    link(gentoo, "etc/runlevels/default/net.eth0", "/etc/init.d/net.eth0")
    fitted(gentoo)
    assert 'config_lan0="10.7.0.11/24"' in (gentoo / "etc/conf.d/net").read_text().splitlines()
    assert os.listdir(gentoo / "etc/runlevels/default") == ["net.lan0"]
    assert os.readlink(gentoo / "etc/init.d/net.lan0") == "net.lo"


def test_arch_takes_networkd(tmp_path: Path) -> None:
    root = systems.networkd(systems.system(tmp_path, "ID=arch\n"))
    fitted(root)
    assert (root / "etc/systemd/network/10-gild-lan0.network").is_file()


def test_a_tree_with_nothing_for_the_network_is_refused_and_left_alone(tmp_path: Path) -> None:
    put(tmp_path, "etc/os-release", "ID=debian\n")
    before = systems.picture(tmp_path)
    with pytest.raises(GildError, match="nothing in this image is known to configure the network"):
        network.apply(str(tmp_path), OPTIONS)
    assert systems.picture(tmp_path) == before


MORE = {**OPTIONS, "mtu": 9000, "routes": ["10.0.0.0/8 via 10.7.0.2", "192.168.0.0/16 via 10.7.0.3"]}


def more(root: Path) -> None:
    """With an MTU and routes, twice the same."""
    network.apply(str(root), MORE)
    before = systems.picture(root)
    network.apply(str(root), MORE)
    assert systems.picture(root) == before


def nothing_of_it(root: Path) -> None:
    """Without them again, nothing of them is left."""
    network.apply(str(root), OPTIONS)
    for path in root.rglob("*"):
        if path.is_file() and not path.is_symlink():
            assert not [word for word in ("9000", "10.0.0.0/8", "10.7.0.3") if word in path.read_text()], path


def test_mtu_and_routes_of_networkd(tmp_path: Path) -> None:
    root = systems.debian(tmp_path)
    more(root)
    path = root / "etc/systemd/network/10-gild-lan0.network"
    assert ini(path)["Link"] == {"MTUBytes": ["9000"]}
    assert ini(path)["Route"] == {
        "Destination": ["10.0.0.0/8", "192.168.0.0/16"], "Gateway": ["10.7.0.2", "10.7.0.3"],
    }  # fmt: skip
    assert path.read_text().count("[Route]") == 2
    nothing_of_it(root)


def test_mtu_and_routes_of_red_hat(tmp_path: Path) -> None:
    el9 = systems.system(tmp_path / "el9", 'ID=rocky\nID_LIKE="rhel"\nVERSION_ID="9.4"\n', "NetworkManager.service")
    more(el9)
    parsed = configparser.ConfigParser()
    parsed.read(el9 / "etc/NetworkManager/system-connections/lan0.nmconnection")
    assert parsed["ethernet"]["mtu"] == "9000" and parsed["ipv4"]["route2"] == "192.168.0.0/16,10.7.0.3"
    nothing_of_it(el9)

    el8 = systems.system(tmp_path / "el8", 'ID="rhel"\nVERSION_ID="8.10"\n', "NetworkManager.service")
    put(el8, "usr/lib/udev/rules.d/60-net.rules", "")
    more(el8)
    scripts = el8 / "etc/sysconfig/network-scripts"
    assert "MTU=9000" in (scripts / "ifcfg-lan0").read_text().splitlines()
    assert (scripts / "route-lan0").read_text() == "10.0.0.0/8 via 10.7.0.2\n192.168.0.0/16 via 10.7.0.3\n"
    nothing_of_it(el8)
    assert not (scripts / "route-lan0").exists()


def test_mtu_and_routes_of_suse_and_ubuntu(tmp_path: Path) -> None:
    leap = systems.system(tmp_path / "leap", 'ID="opensuse-leap"\nVERSION_ID="15.6"\n')
    link(leap, "etc/systemd/system/network.service", "/usr/lib/systemd/system/wicked.service")
    more(leap)
    base = leap / "etc/sysconfig/network"
    assert "MTU='9000'" in (base / "ifcfg-lan0").read_text()
    assert (base / "ifroute-lan0").read_text().splitlines()[1] == "10.0.0.0/8 10.7.0.2 - lan0"
    nothing_of_it(leap)

    ubuntu = systems.networkd(systems.system(tmp_path / "ubuntu", "ID=ubuntu\nID_LIKE=debian\n"))
    put(ubuntu, "usr/sbin/netplan", "")
    more(ubuntu)
    text = (ubuntu / "etc/netplan/60-gild.yaml").read_text()
    assert "      mtu: 9000\n" in text and '        - to: "10.0.0.0/8"\n          via: "10.7.0.2"\n' in text
    assert '        - to: "default"\n          via: "10.7.0.1"\n' in text
    nothing_of_it(ubuntu)


def test_mtu_and_routes_of_ifupdown(tmp_path: Path) -> None:
    debian = systems.debian(tmp_path / "debian", "networking.service")
    put(debian, "usr/sbin/ifup", "")
    more(debian)
    text = (debian / "etc/network/interfaces.d/lan0").read_text()
    assert "    mtu 9000\n" in text and "    up ip route replace 10.0.0.0/8 via 10.7.0.2 dev lan0\n" in text
    nothing_of_it(debian)

    alpine = tmp_path / "alpine"
    put(alpine, "etc/os-release", "ID=alpine\n")
    link(alpine, "sbin/init", "/bin/busybox")
    put(alpine, "etc/inittab", "::sysinit:/sbin/openrc sysinit\n")
    put(alpine, "etc/init.d/networking", "")
    more(alpine)
    text = (alpine / "etc/network/interfaces").read_text()
    assert "    mtu 9000\n" in text and "    up ip route add 10.0.0.0/8 via 10.7.0.2 dev lan0\n" in text
    nothing_of_it(alpine)


def test_mtu_and_routes_of_gentoo_and_void(tmp_path: Path) -> None:
    gentoo = tmp_path / "gentoo"
    put(gentoo, "etc/os-release", "ID=gentoo\n")
    put(gentoo, "sbin/init", "")
    put(gentoo, "etc/inittab", "si::sysinit:/sbin/openrc sysinit\n")
    put(gentoo, "etc/init.d/net.lo", "")
    put(gentoo, "etc/conf.d/net", '# net\nconfig_eth1="x"\n')
    more(gentoo)
    conf = gentoo / "etc/conf.d/net"
    told = f'. {conf}; echo "$mtu_lan0|$routes_lan0|$config_eth1"'
    said = subprocess.run(["sh", "-c", told], capture_output=True, text=True, check=True).stdout
    assert said == "9000|default via 10.7.0.1\n10.0.0.0/8 via 10.7.0.2\n192.168.0.0/16 via 10.7.0.3|x\n"
    nothing_of_it(gentoo)
    assert "# net" in conf.read_text() and 'config_eth1="x"' in conf.read_text()

    void = tmp_path / "void"
    put(void, "etc/os-release", 'ID="void"\n')
    link(void, "sbin/init", "/usr/bin/runit-init")
    more(void)
    script = void / "etc/rc.local"
    assert "mtu 9000" in script.read_text() and "ip route add 10.0.0.0/8 via 10.7.0.2" in script.read_text()
    subprocess.run(["sh", "-n", script], check=True)
    nothing_of_it(void)


@pytest.mark.parametrize("bad", [
    {"mtu": 70000}, {"mtu": "9000"}, {"routes": "x"}, {"routes": ["10.0.0.0/8"]}, {"routes": ["10.0.0.0/8 via x"]},
    {"routes": ["10.0.0.1/8 via 10.7.0.2"]}, {"routes": ["10.0.0.0/8 via 10.7.0.2"] * 33},
])  # fmt: skip
def test_impossible_ones_are_refused(tmp_path: Path, bad: dict[str, object]) -> None:
    root = systems.debian(tmp_path)
    before = systems.picture(root)
    with pytest.raises(GildError, match="edit network"):
        network.apply(str(root), {**OPTIONS, **bad})
    assert systems.picture(root) == before
