"""iPXE scripts, as text. Nothing a machine said about itself gets into a script without passing a check here.

iPXE expands ${...} anywhere in a line and takes a line break for the next command, so both are kept out.
https://ipxe.org/scripting, https://ipxe.org/cmd
"""

from __future__ import annotations

import re

from images.errors import GildError
from netboot.plan import CMDLINE

KERNEL, INITRD, HEAD_SEGMENT, LOCAL_EFI = "vmlinuz", "initrd.img", "head.cpio", "local.efi"
TRIES = 30  # with 4 s between them: longer than the 50 s a switch port may take for spanning tree

_MAC = re.compile(r"([0-9a-f]{2}:){5}[0-9a-f]{2}")
_TOKEN = re.compile(r"[0-9a-f]{32,128}")
_ADDRESS = re.compile(r"\d{1,3}(\.\d{1,3}){3}")


class ScriptInvalid(GildError):
    """A value cannot stand in a boot script."""


def kernel_arguments(head: str, mac: str, token: str, more: str = "") -> str:
    """The installer's command line. `mac` as aa:bb:cc:dd:ee:ff or "" (then the loader fills it in); `token` hex or
    ""; `more` is the site's own arguments. Raises ScriptInvalid."""
    card = _checked(mac, _MAC, "MAC").replace(":", "-") if mac else "${netX/mac:hexhyp}"
    words = ["quiet", "console=tty0", "console=ttyS0,115200", f"BOOTIF=01-{card}"]
    words.append(f"gild.head={_checked(head, _ADDRESS, 'address')}")
    if token:
        words.append(f"gild.token={_checked(token, _TOKEN, 'token')}")
    if more:
        words.append(_checked(more, CMDLINE, "kernel arguments"))
    return " ".join(words)


def agent_script(head: str, port: int, mac: str, token: str, why: str, more: str = "") -> str:
    """Load kernel and installer from `head`, and try again for two minutes if that fails; then leave the machine to
    its next boot device. `why` is for people who read the script. Raises ScriptInvalid."""
    base = base_url(head, port)
    # UEFI kernels find their initrds by name and in the order of these arguments; BIOS ones take what was loaded.
    names = f"initrd={HEAD_SEGMENT} initrd={INITRD}"
    return "\n".join([
        "#!ipxe",
        f"# {plain(why)}",
        "set tries:int32 0",
        ":again",
        "imgfree",
        f"kernel {base}/boot/{KERNEL} {names} {kernel_arguments(head, mac, token, more)} || goto failed",
        f"initrd {base}/boot/{HEAD_SEGMENT} || goto failed",
        f"initrd {base}/boot/{INITRD} || goto failed",
        "boot || goto failed",
        ":failed",
        "inc tries",
        f"iseq ${{tries}} {TRIES} && goto enough ||",
        f"echo gild: the head at {head} does not answer, trying again",
        "sleep 4",
        "goto again",
        ":enough",
        f"echo gild: gave up on the head at {head}",
        "exit 1",
    ]) + "\n"  # fmt: skip


def local_script(head: str, port: int, platform: str | None, why: str) -> str:
    """Boot from the machine's own disk. `platform` is iPXE's word ("efi" or "pcbios") or None to let iPXE decide.

    UEFI goes through a small boot loader of ours: a plain `exit` ends in the firmware's menu on some machines, and
    `exit 1` makes others try every other network boot first (measured: a minute). Raises ScriptInvalid.
    """
    bios = ["sanboot --no-describe --drive 0x80 || exit 1"]
    efi = [f"chain {base_url(head, port)}/boot/{LOCAL_EFI} || exit 1"]
    lines = ["#!ipxe", f"# {plain(why)}"]
    if platform == "efi":
        lines += efi
    elif platform == "pcbios":
        lines += bios
    else:
        lines += ["iseq ${platform} efi && goto efi ||", *bios, ":efi", *efi]
    return "\n".join(lines) + "\n"


def base_url(head: str, port: int) -> str:
    """http://HEAD, with the port if it is not 80. Raises ScriptInvalid."""
    address = _checked(head, _ADDRESS, "address")
    return f"http://{address}" if port == 80 else f"http://{address}:{int(port)}"


def plain(text: str) -> str:
    """Text fit for a comment: printable ASCII without '$', '{' and '}', at most 160 characters."""
    return "".join(c if " " <= c <= "~" and c not in "${}" else "?" for c in text)[:160]


def _checked(value: str, pattern: re.Pattern[str], what: str) -> str:
    if not pattern.fullmatch(value):
        raise ScriptInvalid(f"{value[:80]!r} is not the {what} of a boot script")
    return value
