"""The text of gild.service: the rights that serving needs, and no others."""

from __future__ import annotations

import re
from dataclasses import dataclass

NAME = "gild.service"
MARK = "# Written by gild.pyz service install; gild.pyz service remove takes it away."
TARGET = "multi-user.target"

# Each line is from systemd.exec(5), systemd.service(5) or systemd.resource-control(5).
_UNIT = """\
{mark}
# Do not edit it: systemctl edit gild puts what differs into a file of its own.

[Unit]
Description=gild, PXE boot and images for bare machines
Documentation=https://www.freedesktop.org/software/systemd/man/systemd.service.html
Wants=network-online.target
After=network-online.target
RequiresMountsFor={state}
# The interface may come late: try for ever.
StartLimitIntervalSec=0

[Service]
Type=notify
NotifyAccess=main
ExecStart={command}
Restart=on-failure
RestartSec=5
# A wrong command line or setting stays wrong.
RestartPreventExitStatus=2 9
TimeoutStartSec=60
TimeoutStopSec=15
# Told once a second; a write to a dying disk may take 30.
WatchdogSec=90
LimitNOFILE=65536

{rights}
ProtectSystem=strict
ReadWritePaths={writes}
ProtectHome={home}
PrivateTmp=yes

[Install]
WantedBy={target}
"""
_FEW = """\
# Low ports, SO_BINDTODEVICE and raw ICMPv6, large socket buffers; no other right of root.
CapabilityBoundingSet={capabilities}
AmbientCapabilities={capabilities}
NoNewPrivileges=yes
RestrictAddressFamilies=AF_UNIX AF_INET AF_INET6 AF_NETLINK AF_PACKET
PrivateDevices=yes
ProtectProc=invisible
ProtectClock=yes
ProtectHostname=yes
ProtectControlGroups=yes
ProtectKernelLogs=yes
ProtectKernelModules=yes
ProtectKernelTunables=yes
KeyringMode=private
LockPersonality=yes
MemoryDenyWriteExecute=yes
RestrictNamespaces=yes
RestrictRealtime=yes
RestrictSUIDSGID=yes
SystemCallArchitectures=native
SystemCallFilter=@system-service
SystemCallErrorNumber=EPERM
"""
_CAPTURES = """\
# With the rights of root: what `node capture` brings is checked and published by mounts, loop devices and chroot.
"""
CAPABILITIES = ("CAP_NET_BIND_SERVICE", "CAP_NET_RAW", "CAP_NET_ADMIN")
_HOMES = ("/home/", "/root/", "/run/user/")  # what ProtectHome hides


@dataclass(frozen=True)
class Unit:
    """What runs: a Python, the .pyz, the state directory, the flags of serve; `writes` are more paths it writes to
    (an image store on another disk). `captures`: it also publishes what `node capture` brings. All paths absolute."""

    python: str
    file: str
    state: str
    flags: tuple[str, ...] = ()
    writes: tuple[str, ...] = ()
    captures: bool = False

    @property
    def command(self) -> tuple[str, ...]:
        """The command line."""
        return (self.python, self.file, "--state", self.state, "serve", *self.flags)


def render(unit: Unit) -> str:
    """The unit file."""
    home = any(f"{path}/".startswith(_HOMES) for path in (unit.python, unit.file, unit.state, *unit.writes))
    return _UNIT.format(
        mark=MARK,
        state=quote(unit.state),
        command=" ".join(map(quote_command, unit.command)),
        rights=_CAPTURES if unit.captures else _FEW.format(capabilities=" ".join(CAPABILITIES)),
        writes=" ".join(map(quote, (unit.state, *unit.writes))),
        home="read-only" if home else "yes",
        target=TARGET,
    )


def read(text: str) -> Unit | None:
    """The unit in a file that `render` wrote, by this version or another; None if it is not such a file."""
    command = re.search(r"^ExecStart=(.*)$", text, re.MULTILINE)
    writes = re.search(r"^ReadWritePaths=(.*)$", text, re.MULTILINE)
    if not text.startswith(MARK) or command is None or writes is None:
        return None
    words, paths = _words(command[1], "$%"), _words(writes[1], "%")
    if len(words) < 5 or words[2] != "--state" or words[4] != "serve" or not paths:
        return None
    return Unit(
        words[0], words[1], words[3], tuple(words[5:]), tuple(paths[1:]), "\nCapabilityBoundingSet=" not in text
    )


def quote(word: str) -> str:
    """A word of a unit file (systemd.syntax(7), "Quoting"): specifiers doubled, quoted where it must be."""
    word = word.replace("%", "%%")
    if re.fullmatch(r"[\w@%+=:,./{}-]+", word, re.ASCII):
        return word
    return '"' + word.replace("\\", "\\\\").replace('"', '\\"') + '"'


def quote_command(word: str) -> str:
    """A word of a command line, where $ stands for variables besides (systemd.service(5), "Command lines")."""
    return quote(word.replace("$", "$$"))


def _words(text: str, doubled: str) -> list[str]:
    words = []
    for quoted, plain in re.findall(r'"((?:[^"\\]|\\.)*)"|(\S+)', text):
        word = re.sub(r"\\(.)", r"\1", quoted) if quoted else plain
        for sign in doubled:
            word = word.replace(sign * 2, sign)
        words.append(word)
    return words
