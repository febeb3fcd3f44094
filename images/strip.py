"""What a golden tree must not carry into every node: identities, secrets, pins to one machine, traces of the build.

Each check names what it found and what was done, for the version's manifest and for the person who publishes. Sources:
systemd BUILDING_IMAGES (machine-id, random-seed, credential.secret), machine-id(5), systemd.link(5), lvmdevices(8).
Clones that share a machine-id get one DHCP lease between them, clones that share host keys can impersonate each other.
"""

from __future__ import annotations

import glob
import os
import shutil
import stat
from pathlib import Path

from images.checks.check import Check, finding

MOUNT_POINTS = {"dev": 0o755, "proc": 0o555, "sys": 0o555, "run": 0o755, "tmp": 0o1777}

# name of the check, patterns of files or directories that go, what that means
REMOVE: tuple[tuple[str, tuple[str, ...], str], ...] = (
    ("ssh host keys", ("etc/ssh/ssh_host_*",), "removed; every node gets its own"),
    ("dbus machine-id", ("var/lib/dbus/machine-id",), "removed; systemd would take it over when machine-id is empty"),
    (
        "random seeds",
        ("var/lib/systemd/random-seed", "var/lib/random-seed", "var/lib/urandom/*", "var/lib/misc/random-seed",
         "boot/loader/random-seed", "boot/efi/loader/random-seed", "efi/loader/random-seed"),
        "removed; every node makes its own",
    ),
    ("credential secret", ("var/lib/systemd/credential.secret",), "removed; every node makes its own"),
    (
        "network interface pins",
        ("etc/udev/rules.d/70-persistent-net.rules", "etc/udev/rules.d/75-persistent-net-generator.rules",
         "etc/udev/rules.d/85-persistent-net-cloud-init.rules", "etc/udev/rules.d/75-gild-net.rules",
         "etc/systemd/network/10-gild-*.network"),
        "removed; interfaces are named on the node by MAC address",
    ),
    (
        "swap to resume from",
        ("etc/initramfs-tools/conf.d/resume",),
        "removed; the start would wait for a swap partition that one machine has",
    ),
    ("LVM devices file", ("etc/lvm/devices/system.devices", "etc/lvm/cache/*"), "removed; it pins one machine's disks"),
    (
        "storage identities",
        ("etc/nvme/hostid", "etc/nvme/hostnqn", "etc/iscsi/initiatorname.iscsi", "etc/multipath/bindings",
         "etc/multipath/wwids", "boot/grub/device.map", "boot/grub2/device.map", "etc/blkid.tab", "run/blkid/*",
         "etc/hostid", "etc/zfs/zpool.cache", "etc/default/grub_installdevice"),
        "removed; each names one machine or its disks",
    ),
    (
        "leases and network state",
        ("var/lib/dhcp/*", "var/lib/dhclient/*", "var/lib/dhcpcd/*", "var/lib/wicked/*", "var/lib/systemd/network/*",
         "var/lib/NetworkManager/*.lease", "var/lib/NetworkManager/secret_key", "var/lib/NetworkManager/timestamps",
         "var/lib/NetworkManager/seen-bssids"),
        "removed",
    ),
    (
        "subscription of one machine",
        ("etc/pki/consumer/*.pem", "var/lib/rhsm/facts/*", "var/lib/rhsm/cache/*",
         "etc/zypp/credentials.d/SCCcredentials"),
        "removed; every node registers for itself",
    ),
    (
        "questions at the first start",
        ("var/lib/YaST2/reconfig_system", "boot/ignition.firstboot"),
        "removed; a node is set up before it starts",
    ),
    ("cloud-init instance", ("var/lib/cloud/*",), "removed; the instance was another machine"),
    (
        "package caches",
        ("var/cache/apt/archives/*.deb", "var/cache/apt/archives/partial/*", "var/cache/apt/*.bin",
         "var/lib/apt/lists/*", "var/cache/dnf/*", "var/cache/yum/*", "var/cache/zypp/*", "var/cache/pacman/pkg/*"),
        "removed; they only take room",
    ),
    (
        "traces of the build",
        ("var/log/apt/*", "var/log/dpkg.log", "var/log/alternatives.log", "var/log/bootstrap.log", "var/log/journal/*",
         "var/cache/ldconfig/aux-cache", "root/.bash_history", "etc/apt/sources.list.d/0000*.list.dpkg-old"),
        "removed",
    ),
)  # fmt: skip


def strip_tree(root: Path) -> list[Check]:
    """Remove from the tree what must not be cloned; gives every check that was made, in order. A symbolic link in the
    tree is removed or replaced itself and never followed out of it. Raises OSError."""
    checks = [_remove(root, name, patterns, fix) for name, patterns, fix in REMOVE]
    checks += [check(root) for check in (_link_files, _machine_id, _resolv_conf, _hostname, _mount_points)]
    return checks


def inside(root: Path, path: str) -> Path | None:
    """`path` under `root`, or None if one of its directories is a symbolic link (it could lead out of the tree) or
    missing."""
    at = root
    for part in path.split("/")[:-1]:
        at = at / part
        if at.is_symlink() or not at.is_dir():
            return None
    return at / path.split("/")[-1]


def _remove(root: Path, name: str, patterns: tuple[str, ...], fix: str) -> Check:
    found = []
    for pattern in patterns:
        for match in sorted(glob.glob(pattern, root_dir=root, include_hidden=True)):
            path = inside(root, match)
            if path is None or not os.path.lexists(path):
                continue
            status = path.lstat()
            if stat.S_ISDIR(status.st_mode):
                if pattern.startswith("var/lib/apt/lists") and path.name == "partial":
                    continue
                shutil.rmtree(path)
            else:
                path.unlink()
            found.append(match)
    return finding(name, found, fix)


def _link_files(root: Path) -> Check:
    """.link files that name one machine's cards; one that matches by driver or path is a choice and stays."""
    found = []
    for match in sorted(glob.glob("etc/systemd/network/*.link", root_dir=root)):
        path = inside(root, match)
        if path is not None and path.is_file() and not path.is_symlink() and b"MACAddress=" in path.read_bytes():
            path.unlink()
            found.append(match)
    return finding("link files by MAC address", found, "removed; interfaces are named on the node by MAC address")


def _machine_id(root: Path) -> Check:
    """An empty file: no id, and not the word "uninitialized", which would make systemd apply presets to all units. The
    node writes a real one before its first boot."""
    path = inside(root, "etc/machine-id")
    if path is None:
        return Check("machine-id")
    if path.is_file() and not path.is_symlink() and path.stat().st_size == 0:
        return Check("machine-id")
    found = os.path.lexists(path)
    path.unlink(missing_ok=True)
    _write(path, b"", 0o444)
    return Check("machine-id", ("etc/machine-id",) if found else (), "emptied; every node gets its own")


def _resolv_conf(root: Path) -> Check:
    """The build host's name servers. A symbolic link (systemd-resolved, NetworkManager) belongs to the tree."""
    path = inside(root, "etc/resolv.conf")
    if path is None or path.is_symlink() or not path.is_file() or path.stat().st_size == 0:
        return Check("resolv.conf")
    _write(path, b"", 0o644)
    return Check("resolv.conf", ("etc/resolv.conf",), "emptied; it held the build host's name servers")


def _hostname(root: Path) -> Check:
    path = inside(root, "etc/hostname")
    if path is None or path.is_symlink() or not path.is_file() or path.read_bytes().strip() in (b"", b"localhost"):
        return Check("hostname")
    was = path.read_bytes()[:64].decode("utf-8", "replace").strip()
    _write(path, b"localhost\n", 0o644)
    return Check("hostname", (f"etc/hostname: {was}",), "set to localhost; every node gets its own")


def _mount_points(root: Path) -> Check:
    """Empty directories to mount on. What stands in them came with an archive of a running system."""
    made, emptied = [], []
    for name, mode in MOUNT_POINTS.items():
        path = root / name
        if path.is_symlink() or (os.path.lexists(path) and not path.is_dir()):
            path.unlink()
        if not path.is_dir():
            path.mkdir()
            made.append(name)
        device = path.lstat().st_dev
        for entry in list(path.iterdir()):
            status = entry.lstat()
            if status.st_dev != device:
                continue
            if stat.S_ISDIR(status.st_mode):
                shutil.rmtree(entry)
            else:
                entry.unlink()
            if name not in emptied:
                emptied.append(name)
        os.chmod(path, mode)
    fix = "; ".join(
        text
        for text in (f"made {', '.join(made)}" if made else "", f"emptied {', '.join(emptied)}" if emptied else "")
        if text
    )
    return Check("mount points", tuple(dict.fromkeys([*made, *emptied])), fix)


def _write(path: Path, data: bytes, mode: int) -> None:
    path.write_bytes(data)
    os.chmod(path, mode)
