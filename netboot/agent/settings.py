"""What this agent was started with: the head's segment of the initrd, and the kernel command line over it."""

from __future__ import annotations

import ipaddress
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from images.errors import GildError
from netboot.agent.network import Address, boot_mac, given_address

HTTPS_PORT = 443
MAX_FILE = 1 << 20  # bytes of one file of the segment
_TOKEN = re.compile(r"[0-9a-fA-F]{16,128}")


class SettingsInvalid(GildError):
    """The initrd has no usable part from its head."""


@dataclass(frozen=True)
class Settings:
    """`pem` is the head's certificate, `mac` the boot NIC's ("" = unknown), `token` the order's ("" = none)."""

    head: str
    https_port: int
    pem: str
    mac: str = ""
    address: Address | None = None
    token: str = field(default="", repr=False)  # a secret: not even in a traceback


def read(folder: str, words: Mapping[str, str]) -> Settings:
    """Read `folder`/head.pem and settings.json; `gild.head=`, `gild.token=`, `gild.ip=` and `BOOTIF=` of the kernel
    command line count over them. Raises SettingsInvalid, or NetworkFailed for an impossible gild.ip."""
    try:
        with open(f"{folder}/head.pem", encoding="ascii") as file:
            pem = file.read(MAX_FILE)
        with open(f"{folder}/settings.json", "rb") as raw:
            body = json.loads(raw.read(MAX_FILE))
    except (OSError, ValueError, RecursionError) as error:
        raise SettingsInvalid(
            f"this initrd has no part from a head: {error}",
            "the loader has to load two: head.cpio from the head, then the installer's initrd",
        ) from None
    if not isinstance(body, dict):
        raise SettingsInvalid("settings.json of this initrd is not an object")
    head, port = words.get("gild.head") or body.get("head"), body.get("https_port", HTTPS_PORT)
    try:
        ipaddress.ip_address(str(head))
    except ValueError:
        raise SettingsInvalid(f"the head's address {str(head)[:80]!r} is not an IP address") from None
    if not isinstance(port, int) or isinstance(port, bool) or not 0 < port < 65536:
        raise SettingsInvalid(f"the head's port {str(port)[:80]!r} is not a port")
    token = words.get("gild.token", "")
    if token and not _TOKEN.fullmatch(token):
        raise SettingsInvalid("the order's token on the kernel command line is not a hexadecimal number")
    return Settings(str(head), port, pem, boot_mac(words), given_address(words), token)
