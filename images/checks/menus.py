"""Read what the boot menus of a tree start: GRUB's, Boot Loader Specification entries, extlinux's."""

from __future__ import annotations

import re
from dataclasses import dataclass

from images.tree import Tree

GRUB = ("boot/grub/grub.cfg", "boot/grub2/grub.cfg")
ENTRIES = ("boot/loader/entries", "boot/efi/loader/entries", "efi/loader/entries")
EXTLINUX = ("boot/extlinux/extlinux.conf", "boot/extlinux.conf", "boot/syslinux/syslinux.cfg")
MAX_CFG = 4 << 20  # bytes; a grub.cfg with dozens of kernels has 50 KiB
MAX_ENTRIES = 200
_LINUX = ("linux", "linux16", "linuxefi")
_INITRD = ("initrd", "initrd16", "initrdefi")


@dataclass(frozen=True, slots=True)
class Entry:
    """One entry of a menu: the file it stands in, the paths it names as they are written, and the kernel's words."""

    file: str
    kernel: str
    initrds: tuple[str, ...]
    words: tuple[str, ...]


def entries(tree: Tree) -> list[Entry]:
    """Every entry, at most MAX_ENTRIES, in the order of the files; what would start first comes first in each kind but
    the Boot Loader Specification's. Raises TreeInvalid."""
    found: list[Entry] = []
    for path in GRUB:
        found += _grub(path, tree.text(path, MAX_CFG))
    for directory in ENTRIES:
        for name in tree.names(directory, "*.conf"):
            found += _specified(tree, f"{directory}/{name}")
    for path in EXTLINUX:
        found += _extlinux(path, tree.text(path))
    return found[:MAX_ENTRIES]


def place(tree: Tree, path: str) -> str:
    """A path as a boot loader writes it, "(hd0,gpt4)/boot/x", or "/x" where boot/ is a partition of its own, as a file
    of the tree; "" if there is none, "?" if only the loader itself can tell."""
    path = re.sub(r"^\([^)]*\)|^\$\{?root\}?", "", path.strip("\"'"))
    if "$" in path or not path:
        return "?"
    for candidate in (path, f"boot/{path}", f"boot/efi/{path}", f"efi/{path}"):
        if tree.is_file(candidate):
            return tree.resolve(candidate)
    return ""


def _grub(file: str, text: str) -> list[Entry]:
    found = []
    blocks = re.split(r"(?m)^[ \t]*menuentry\s", text)
    for block in blocks[1:] or blocks:
        kernel, words, images = "", list[str](), list[str]()
        for row in block.split("\n"):
            first, *rest = row.split() or [""]
            if first in _LINUX and rest and not kernel:
                kernel, words = rest[0], rest[1:]
            elif first in _INITRD and kernel and not images:
                images = rest
            elif first == "}" and kernel:
                break
        if kernel:
            found.append(Entry(file, kernel, tuple(images), tuple(words)))
    return found


def _specified(tree: Tree, file: str) -> list[Entry]:
    keys: dict[str, str] = {}
    for row in tree.text(file).split("\n"):
        key, _, value = row.strip().replace("\t", " ").partition(" ")
        keys.setdefault(key, value.strip())
    options = keys.get("options", "")
    if "$kernelopts" in options:  # EL 8 keeps the value in GRUB's environment block
        block = tree.text("boot/grub2/grubenv").split("\n")
        options = options.replace("$kernelopts", next((row[11:] for row in block if row[:11] == "kernelopts="), ""))
    initrds = tuple(keys.get("initrd", "").split())
    return [Entry(file, keys["linux"], initrds, tuple(options.split()))] if keys.get("linux") else []


def _extlinux(file: str, text: str) -> list[Entry]:
    found = []
    for block in re.split(r"(?im)^[ \t]*label\s", text):
        keys: dict[str, str] = {}
        for row in block.split("\n"):
            key, _, value = row.strip().replace("\t", " ").partition(" ")
            keys.setdefault(key.lower(), value.strip())
        kernel = keys.get("linux") or keys.get("kernel", "")
        words = keys.get("append", "").split()
        given = next((word.removeprefix("initrd=") for word in words if word.startswith("initrd=")), "")
        initrds = keys.get("initrd") or given
        # menu.c32 and its like are programs of the loader, not kernels.
        if kernel and not kernel.endswith((".c32", ".bin")):
            found.append(Entry(file, kernel, tuple(initrds.split(",")) if initrds else (), tuple(words)))
    return found
