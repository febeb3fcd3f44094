"""The few lines of GRUB that lead from the EFI system partition to the image's configuration, or stand in for it."""

from __future__ import annotations

import re
from dataclasses import dataclass

from images.errors import GildError
from images.tree import Tree
from netboot.agent import entry as entries

# Commands that only the GRUB of Fedora and EL has, or only its BIOS or its UEFI form.
OWN_COMMANDS = re.compile(r"(?m)^\s*(?:blscfg|linux16|linuxefi)\b")


class BootFailed(GildError):
    """The disk cannot be made to start with this image and these boot loader files."""


@dataclass(frozen=True)
class Stub:
    """The grub.cfg on the ESP. `uuid` is that of the filesystem with boot/, which is `folder` on it ("" or "/boot")."""

    tree: Tree
    uuid: str
    folder: str

    def text(self, platform: str, *, own: bool) -> str:
        """Leads to the image's own grub.cfg, or is the menu itself where that one needs commands that this GRUB does
        not have. `own`: the GRUB is the image's; any other must not load modules from the image's folder for
        `platform`, which are of another version and fit it by name alone. Raises BootFailed."""
        path = next((path for path in entries.GRUB_CFGS if self.tree.is_file(path)), "")
        if path and (own or not OWN_COMMANDS.search(self.tree.text(path, entries.MAX_CFG))):
            place = f"{self.folder}/{path.removeprefix('boot/').rpartition('/')[0]}"
            foreign = not own and self.tree.is_dir(f"{path.rpartition('/')[0]}/{platform}")
            prefix = [] if foreign else [f"set prefix=($root){place}"]
            return "\n".join([*_search(self.uuid), *prefix, f"configfile ($root){place}/grub.cfg", ""])
        found = entries.default_entry(self.tree)
        if found is None or not found.cmdline:
            raise BootFailed(
                f"the image's boot configuration ({path or entries.ENTRIES}) names no kernel that is there"
            )
        kernel, initrd = (_seen(path, self.folder) if path else "" for path in (found.kernel, found.initrd))
        return menu(kernel, initrd, found.cmdline, self.uuid)


def _search(uuid: str) -> list[str]:
    """Find a filesystem, first on the disk that GRUB itself came from: another one may hold the same image."""
    return [
        "if regexp --set=1:disk '^([^,]+),' \"$root\"; then",
        # With the comma: any partition of it.
        f'    search --no-floppy --fs-uuid --set=root --hint="$disk," {uuid}',
        "else",
        f"    search --no-floppy --fs-uuid --set=root {uuid}",
        "fi",
    ]


def menu(kernel: str, initrd: str, cmdline: str, uuid: str) -> str:
    """A grub.cfg with one entry. `kernel` and `initrd` ("" for none) as GRUB sees them on the filesystem `uuid`."""
    rows = ["set default=0", "set timeout=1", *_search(uuid), "menuentry 'Linux' {"]
    rows += [f"    linux {kernel} {cmdline}", *([f"    initrd {initrd}"] if initrd else []), "}", ""]
    return "\n".join(rows)


def _seen(path: str, folder: str) -> str:
    """A path of the tree as GRUB sees it on the partition that holds boot/."""
    return f"/{path}" if folder else f"/{path.removeprefix('boot/')}"
