"""grub.cfg for the signed shim and GRUB, one for each client's address, as text.

Debian's signed network GRUB has no HTTP module, so kernel and installer come by TFTP. It asks for /grub/grub.cfg only
(measured: never for grub.cfg-01-MAC), so the TFTP server renders that name for whoever asks.
"""

from __future__ import annotations

from netboot.ipxe import HEAD_SEGMENT, INITRD, KERNEL, kernel_arguments, plain

TRIES = 10
MARK = "/EFI/gild/grub.cfg"  # on the EFI system partition of every disk gild has written
_FALLBACK = {"x64": "BOOTX64.EFI", "aa64": "BOOTAA64.EFI"}


def agent_config(head: str, mac: str, token: str, why: str, more: str = "") -> str:
    """Load kernel and installer by TFTP, again if that fails, then leave the machine to its next boot device.
    Raises netboot.ipxe's ScriptInvalid."""
    arguments = kernel_arguments(head, mac, token, more).replace("${netX/mac:hexhyp}", "$net_default_mac")
    attempts = " ".join(map(str, range(1, TRIES + 1)))
    return "\n".join([
        f"# {plain(why)}",
        "set timeout=0",
        f"for try in {attempts}; do",
        f"  if linux /{KERNEL} {arguments}; then",
        f"    if initrd /{HEAD_SEGMENT} /{INITRD}; then",
        "      boot",
        "    fi",
        "  fi",
        f'  echo "gild: the head at {head} does not answer, trying again"',
        "  sleep 5",
        "done",
        "exit",
    ]) + "\n"  # fmt: skip


def local_config(arch: str, why: str) -> str:
    """Boot from the disk. `arch` is "x64" or "aa64"."""
    # GRUB hands the chainloaded program the device of $root, and shim looks for its second stage there: with root
    # still the network it fails. So root is set first, to the disk that bears our mark.
    return "\n".join([
        f"# {plain(why)}",
        "set timeout=0",
        f"if search --no-floppy --file --set=root {MARK}; then",
        f"  chainloader /EFI/BOOT/{_FALLBACK.get(arch, _FALLBACK['x64'])}",
        "  boot",
        "fi",
        'echo "gild: no disk with an installed system was found"',
        "sleep 5",
        "exit",
    ]) + "\n"  # fmt: skip
