"""The firmware's own list of what to start (UEFI): an entry for the disk, and the network still before it."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

from images.errors import GildError
from images.run import run

LABEL = "gild"
# How firmware names its network entries (the words curtin looks for, install_grub.py).
NETWORK = re.compile(r"network|pxe|nic\b|ethernet|\blan\b|ip ?v?4|ip ?v?6|http", re.I)
MAX_ENTRIES = 512
_ENTRY = re.compile(r"^Boot([0-9A-Fa-f]{4})(\*?) ([^\t\n]*)", re.M)


@dataclass(frozen=True)
class Order:
    """What efibootmgr tells: entries by number ("0003" -> name), in the firmware's order, and the one it started."""

    names: dict[str, str]
    order: tuple[str, ...]
    current: str


def parse(text: str) -> Order:
    """Read the output of efibootmgr(8) without options; anything else in it is passed over."""
    names = {m[1].upper(): m[3].strip()[:200] for m in list(_ENTRY.finditer(text))[:MAX_ENTRIES]}
    order = re.search(r"(?m)^BootOrder: ([0-9A-Fa-f,]+)", text)
    current = re.search(r"(?m)^BootCurrent: ([0-9A-Fa-f]{4})", text)
    return Order(
        names, tuple(order[1].upper().split(",")) if order else (), current[1].upper() if current else "",
    )  # fmt: skip


def arrange(old: Order, own: str) -> list[str]:
    """The new order: what this boot came from, other network entries, ours, the rest as it was."""
    rest = [number for number in old.order if number != own and number in old.names]
    current = [old.current] if old.current in old.names and old.current != own else []
    network = [number for number in rest if NETWORK.search(old.names[number])]
    return list(dict.fromkeys([*current, *network, own, *rest]))


def register(disk: str, part: int, loader: str, log: Callable[[str], None]) -> None:
    """Make an entry for `loader` (path on partition `part` of `disk`, with backslashes). Whatever fails is a line in
    the log: firmware without entries starts EFI/BOOT/BOOTX64.EFI of the disk by itself (UEFI 2.10, section 3.5.1.1)."""
    try:
        before = parse(_efibootmgr())
        for number, name in before.names.items():
            if name == LABEL:  # of an earlier installation; the disk may be another one now
                _efibootmgr("-b", number, "-B")
        # -C makes the entry without putting it first, as -c does.
        _efibootmgr("-C", "-d", disk, "-p", str(part), "-L", LABEL, "-l", loader)
        after = parse(_efibootmgr())
        own = next((number for number, name in after.names.items() if name == LABEL), "")
        if own:
            _efibootmgr("-o", ",".join(arrange(after, own)))
            log(f"firmware: entry {own} starts the disk; the network stays before it")
    except GildError as error:
        log(f"firmware: no entry was made, it has to find the disk by itself: {error.message}")


def _efibootmgr(*arguments: str) -> str:
    quiet = ["-q"] if arguments else []
    done = run(["efibootmgr", *quiet, *arguments], timeout=60, act="setting the firmware's boot entries")
    return done.stdout.decode("utf-8", "replace")
