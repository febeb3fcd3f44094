"""Whether a node can become a node: something starts it, its network can be set, it can say that it is up."""

from __future__ import annotations

from images.checks import advice
from images.checks.check import Check, finding, plain
from images.checks.subject import Subject
from images.distro.find import refusal
from images.tree import Tree, TreeInvalid

INIT = {
    "debian": "systemd-sysv",
    "redhat": "systemd",
    "suse": "systemd",
    "alpine": "alpine-base",
    "arch": "systemd",
    "void": "runit-void",
    "gentoo": "sys-apps/systemd",
}
SSH = {
    "debian": "openssh-server",
    "redhat": "openssh-server",
    "suse": "openssh-server",
    "alpine": "openssh-server",
    "arch": "openssh",
    "void": "openssh",
    "gentoo": "net-misc/openssh",
}
SERVERS = ("usr/sbin/sshd", "usr/bin/sshd", "usr/sbin/dropbear", "usr/bin/dropbear", "usr/lib/ssh/sshd")
CLOUD = "etc/cloud/cloud.cfg"


def starts(tree: Tree, subject: Subject) -> list[Check]:
    """What starts the system is known; a node refuses an image without."""
    try:
        reason = refusal(tree.root)
    except TreeInvalid as error:
        return [Check("what starts the system", (plain(error.message),), "a node refuses it: mend that file", "error")]
    how = f"a node refuses it: {advice.install(subject.family, INIT)}"
    if reason or tree.lexists("sbin/init"):
        return [finding("what starts the system", [reason] if reason else [], how, "error")]
    return [
        finding("what starts the system", ["there is no /sbin/init"], advice.install(subject.family, INIT), "error")
    ]


def network(tree: Tree, subject: Subject) -> list[Check]:
    """The style of its network configuration is known; without it an installation stops at the edit "network"."""
    found = [] if subject.system.network else ["nothing that configures a network"]
    packages = {"debian": "ifupdown", "redhat": "NetworkManager", "suse": "NetworkManager", "alpine": "ifupdown-ng",
                "arch": "networkmanager", "void": "dhcpcd", "gentoo": "net-misc/netifrc"}  # fmt: skip
    how = f"an installation stops there: {advice.install(subject.family, packages)}"
    return [finding("network configuration", found, how, "error")]


def remote(tree: Tree, subject: Subject) -> list[Check]:
    """A server for ssh."""
    found = [] if any(tree.is_file(path) for path in SERVERS) else ["no ssh server"]
    how = f"nobody can log in over the network: {advice.install(subject.family, SSH)}"
    return [finding("ssh server", found, how)]


def cloud_init(tree: Tree, subject: Subject) -> list[Check]:
    """cloud-init, which takes every node for a new machine of a cloud."""
    off = tree.lexists("etc/cloud/cloud-init.disabled")
    found = [f"/{CLOUD}"] if tree.is_file(CLOUD) and not off else []
    how = f"nodes keep it from network and host keys; to end its search for a cloud: {advice.edit(_OFF)}"
    return [finding("cloud-init", found, how)]


_OFF = "touch /etc/cloud/cloud-init.disabled"
