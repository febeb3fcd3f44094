"""Time: what keeps it, in which zone, and files that claim to come from the future."""

from __future__ import annotations

import os

from images.checks import advice
from images.checks.check import Check, finding
from images.checks.subject import Subject
from images.distro import inits
from images.ext4 import EPOCH
from images.tree import Tree

# Program -> names under which an init system starts it.
CLIENTS = {
    "usr/lib/systemd/systemd-timesyncd": ("systemd-timesyncd",),
    "lib/systemd/systemd-timesyncd": ("systemd-timesyncd",),
    "usr/sbin/chronyd": ("chrony", "chronyd"),
    "usr/bin/chronyd": ("chrony", "chronyd"),
    "usr/sbin/ntpd": ("ntp", "ntpd", "ntpsec", "openntpd", "openntp", "busybox-ntpd"),
    "usr/bin/ntpd": ("ntp", "ntpd", "openntpd"),
    "etc/init.d/ntpd": ("ntpd",),  # Alpine's busybox is the program
}
PACKAGES = {
    "debian": "systemd-timesyncd",
    "redhat": "chrony",
    "suse": "chrony",
    "alpine": "chrony",
    "arch": "chrony",
    "void": "chrony",
    "gentoo": "net-misc/chrony",
}


def service(tree: Tree, subject: Subject) -> list[Check]:
    """A client for NTP, and that it is started. Clocks that differ break Kerberos, make, and every shared log."""
    found = {path: names for path, names in CLIENTS.items() if tree.is_file(path)}
    if not found:
        fix = f"nodes will not agree on the time: {advice.install(subject.family, PACKAGES)}"
        return [finding("time service", ["neither systemd-timesyncd nor chrony nor ntpd"], fix, "warning")]
    names = list(dict.fromkeys(name for more in found.values() for name in more))
    if any(_started(tree, subject.system.init, name) for name in names):
        return [Check("time service")]
    service = "chronyd" if "usr/sbin/chronyd" in found and subject.family in ("redhat", "suse") else names[0]
    enable = {"systemd": f"systemctl enable {service}", "openrc": f"rc-update add {service} default"}
    how = advice.edit(enable[subject.system.init]) if subject.system.init in enable else "start it at boot"
    return [finding("time service", [f"/{next(iter(found))} is there and not started"], how, "warning")]


def zone(tree: Tree, subject: Subject) -> list[Check]:
    """etc/localtime, where it is a link, leads to an installed time zone (localtime(5)); without it UTC holds."""
    target = tree.link("etc/localtime")
    found = [f"etc/localtime -> {target}"] if target and not tree.is_file("etc/localtime") else []
    how = advice.edit("ln -sf /usr/share/zoneinfo/UTC /etc/localtime")
    return [finding("time zone", found, f"that zone is not installed, so it is UTC: add tzdata, or {how}", "warning")]


def future(tree: Tree, subject: Subject) -> list[Check]:
    """Files later than now: make and dpkg --configure are confused by them, and nobody can tell what changed. They get
    the time of everything that is generated."""
    for path in subject.survey.future:
        os.utime(tree.place(path, last=False), (EPOCH, EPOCH), follow_symlinks=False)
    return [finding("files from the future", subject.survey.future, "dated 2026-01-01")]


def _started(tree: Tree, init: str, name: str) -> bool:
    if init == "openrc":
        return inits.in_runlevel(tree, name)
    if init == "runit":
        return tree.lexists(f"etc/runit/runsvdir/default/{name}") or bool(tree.names("etc/rc2.d", f"S??{name}"))
    if init == "sysvinit":
        return bool(tree.names("etc/rc2.d", f"S??{name}") or tree.names("etc/rc3.d", f"S??{name}"))
    return inits.enabled(tree, f"{name}.service")
