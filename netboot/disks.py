"""Which disk of a machine is written: one rule, one answer or a failure. The head predicts with it, the node obeys."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from fnmatch import fnmatchcase

from images.errors import GildError
from netboot.plan import DiskRule
from netboot.report import Disk

PICKS = ("only", "smallest", "largest")
MAX_TOLD = 12  # disks named in one message; a storage server has hundreds


class DiskRuleFailed(GildError):
    """No disk fits the rule, or more than one does; the message lists the disks that were seen."""


def choose(disks: Sequence[Disk], rule: DiskRule) -> Disk:
    """The one disk that fits `rule`. Raises DiskRuleFailed for none, for a tie, and for a rule that says nothing sane.

    Removable disks never fit. USB disks fit only if the rule names the bus, the serial or the WWN: an installer stick,
    a BMC's virtual media and a person's backup disk all hang there, and not all of them say that they are removable.
    """
    if rule.pick not in PICKS:
        raise DiskRuleFailed(f"the disk rule picks {rule.pick[:40]!r}", f"it can pick {', '.join(PICKS)}")
    if rule.max_size and rule.max_size < rule.min_size:
        raise DiskRuleFailed("the disk rule wants a maximum size below its minimum size")
    reasons = [(disk, refusal(disk, rule)) for disk in disks]
    fit = [disk for disk, reason in reasons if not reason]
    if fit and rule.pick != "only":
        best = (min if rule.pick == "smallest" else max)(disk.size for disk in fit)
        fit = [disk for disk in fit if disk.size == best]
    if len(fit) == 1:
        return fit[0]
    if not disks:
        raise DiskRuleFailed(
            "this machine shows no disk at all",
            "a controller in RAID mode without volumes, a missing driver, or no disk built in",
        )
    if not fit:
        seen = _list(f"{describe(disk)}: {reason}" for disk, reason in reasons)
        raise DiskRuleFailed(f"no disk fits the rule ({tell(rule)}); seen: {seen}", "change the profile's disk rule")
    tie = "equally fit" if rule.pick == "only" else f"are the {rule.pick}"
    raise DiskRuleFailed(
        f"{len(fit)} disks {tie} ({tell(rule)}): {_list(map(describe, fit))}",
        "name one by serial or wwn in the disk rule, or pick the smallest or largest",
    )


def refusal(disk: Disk, rule: DiskRule) -> str:
    """Why `disk` does not fit `rule`, in a few words, or "" if it does."""
    named = bool(rule.serial or rule.wwn or "usb" in rule.bus)
    checks = (
        (disk.removable, "removable"),
        (disk.size <= 0, "empty, no medium"),
        (disk.bus == "usb" and not named, "on USB, and the rule does not name it"),
        (bool(rule.serial) and disk.serial.strip() != rule.serial.strip(), "another serial"),
        (bool(rule.wwn) and _wwn(disk.wwn) != _wwn(rule.wwn), "another WWN"),
        (bool(rule.model) and not fnmatchcase(disk.model.lower(), rule.model.lower()), "another model"),
        (bool(rule.bus) and disk.bus not in rule.bus, "another bus"),
        (disk.size < rule.min_size, "too small"),
        (bool(rule.max_size) and disk.size > rule.max_size, "too large"),
        (rule.rotational is not None and disk.rotational != rule.rotational, "SSD" if rule.rotational else "rotating"),
    )
    return next((reason for refused, reason in checks if refused), "")


def tell(rule: DiskRule) -> str:
    """The rule for people: "nvme, at least 200 GB, the smallest"."""
    words = [
        rule.serial and f"serial {rule.serial}",
        rule.wwn and f"wwn {rule.wwn}",
        rule.model and f"model {rule.model}",
        " or ".join(rule.bus),
        rule.min_size and f"at least {_size(rule.min_size)}",
        rule.max_size and f"at most {_size(rule.max_size)}",
        "" if rule.rotational is None else "rotating" if rule.rotational else "SSD",
        "the only disk" if rule.pick == "only" else f"the {rule.pick}",
    ]
    return _plain(", ".join(str(word) for word in words if word), 200)


def describe(disk: Disk) -> str:
    """A disk for people, one line: "sda 480 GB sata SSD SAMSUNG MZ7LH480 serial S45PNA0M (ext4 'root')"."""
    kind = "" if disk.bus in ("nvme", "virtio") else "disk" if disk.rotational else "SSD"
    words = [disk.path.rsplit("/", 1)[-1], _size(disk.size), disk.bus, kind, disk.model.strip()]
    if disk.serial.strip():
        words.append(f"serial {disk.serial.strip()}")
    elif disk.wwn:
        words.append(f"wwn {disk.wwn}")
    line = " ".join(_plain(word, 64) for word in words if word)
    return f"{line} ({_plain(disk.content, 80)})" if disk.content else line


def _wwn(text: str) -> str:
    """A WWN without the prefix that lsblk, /sys and the label on the drive each write differently."""
    bare = text.strip().lower()
    for prefix in ("naa.", "eui.", "0x"):
        bare = bare.removeprefix(prefix)
    return bare


def _list(items: Iterable[str]) -> str:
    told = list(items)
    more = f"; and {len(told) - MAX_TOLD} more" if len(told) > MAX_TOLD else ""
    return "; ".join(told[:MAX_TOLD]) + more


def _size(size: int) -> str:
    """Decimal units, as on the drive's label."""
    for unit, factor in (("TB", 10**12), ("GB", 10**9), ("MB", 10**6)):
        if size >= factor:
            value = size / factor
            return f"{value:.0f} {unit}" if value >= 10 else f"{value:.1f} {unit}"
    return f"{size} B"


def _plain(text: str, most: int) -> str:
    """Serial and model are what the drive says: printable, on one line, bounded."""
    return "".join(c if c.isprintable() else "?" for c in text)[:most]
