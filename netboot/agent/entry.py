"""What an installed tree would boot: its kernel, initramfs and arguments, from its own boot configuration."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace

from images.kernels import version_key
from images.tree import Tree

GRUB_CFGS = ("boot/grub/grub.cfg", "boot/grub2/grub.cfg")
ENTRIES = "boot/loader/entries"
MAX_CFG = 4 << 20  # bytes; a grub.cfg with dozens of kernels has 50 KiB
_LINUX = re.compile(r"^(\s*linux(?:16|efi)?\s+)(\S+)(.*)$")
_INITRD = re.compile(r"^\s*initrd(?:16|efi)?\s+(.*\S)\s*$")


@dataclass(frozen=True)
class Entry:
    """One way to start the system. `kernel` and `initrd` are paths in the tree without links ("boot/vmlinuz-6.1.0-9"),
    `initrd` "" for none; `version` is the kernel's own ("6.1.0-9-amd64"), "" if it could not be told."""

    kernel: str
    initrd: str
    cmdline: str
    version: str = ""


def default_entry(tree: Tree) -> Entry | None:
    """The first entry of grub.cfg, else the newest Boot Loader Specification entry, else the newest kernel in boot/
    with its initramfs and no arguments; None for a tree without a kernel. Raises TreeInvalid."""
    for path in GRUB_CFGS:
        if tree.is_file(path):
            found = _from_grub(tree, tree.text(path, MAX_CFG))
            if found is not None:
                return _with_version(tree, found)
    found = _from_entries(tree) or newest_kernel(tree)
    return _with_version(tree, found) if found else None


def newest_kernel(tree: Tree) -> Entry | None:
    """The kernel in boot/ with the highest version, and the initramfs that belongs to it by its name."""
    names = [name for name in tree.names("boot", "vmlinuz-*") if tree.is_file(f"boot/{name}") and "rescue" not in name]
    for name in sorted(names, key=version_key, reverse=True):
        version = name.removeprefix("vmlinuz-")
        # Debian, EL and Void, SUSE, Arch, Alpine: each has its own word for it.
        forms = ("initrd.img-{}", "initramfs-{}.img", "initrd-{}", "initramfs-{}")
        images = [f"boot/{form.format(version)}" for form in forms]
        return Entry(f"boot/{name}", next((path for path in images if tree.is_file(path)), ""), "")
    return None


def add_words(line: str, more: str) -> str:
    """`line` with those words of `more` at its end that are not in it."""
    have = line.split()
    new = [word for word in more.split() if word not in have]
    if not new:
        return line
    return f"{line.rstrip()} {' '.join(new)}" if line else " ".join(new)


def add_arguments(tree: Tree, more: str) -> list[str]:
    """Add kernel arguments to every entry of the boot configuration in place, and to what makes the next one. Gives
    the paths that changed. Raises TreeInvalid."""
    changed = []
    for path in GRUB_CFGS:
        if tree.is_file(path):
            rows = tree.text(path, MAX_CFG).split("\n")
            new = "\n".join(
                f"{m[1]}{m[2]}{add_words(m[3] or ' ', more)}" if (m := _LINUX.match(r)) else r for r in rows
            )
            if tree.write(path, new):
                changed.append(path)
    for name in tree.names(ENTRIES, "*.conf"):
        changed += _edit(tree, f"{ENTRIES}/{name}", r"^(options[ \t]+)(.*)()$", more)
    changed += _edit(tree, "etc/default/grub", r'^(GRUB_CMDLINE_LINUX=")([^"\n]*)(")', more)
    return changed + _edit(tree, "etc/kernel/cmdline", r"\A()([^\n]*)()", more)


def _edit(tree: Tree, path: str, pattern: str, more: str) -> list[str]:
    if not tree.is_file(path):
        return []
    text = tree.text(path)
    new = re.sub(pattern, lambda m: m[1] + add_words(m[2], more) + m[3], text, count=1, flags=re.M)
    return [path] if tree.write(path, new) else []


def _from_grub(tree: Tree, text: str) -> Entry | None:
    """The first menuentry whose kernel exists; without any menuentry, the first linux line."""
    blocks = re.split(r"(?m)^\s*menuentry\s", text)
    for block in blocks[1:] or blocks:
        kernel, initrd, words = "", "", ""
        for row in block.split("\n"):
            line = _LINUX.match(row)
            if line and not kernel:
                kernel, words = _file(tree, line[2]), line[3]
            images = _INITRD.match(row)
            if images and kernel:
                # Of several, the first is the processor's microcode; kexec takes one file.
                initrd = next(filter(None, (_file(tree, path) for path in reversed(images[1].split()))), "")
            if kernel and row.strip() == "}":
                break
        if kernel:
            # What GRUB would put in place of a variable is nothing the kernel needs ($vt_handoff of Ubuntu).
            return Entry(kernel, initrd, " ".join(word for word in words.split() if not word.startswith("$")))
    return None


def _from_entries(tree: Tree) -> Entry | None:
    """The newest entry of boot/loader/entries (uapi-group.org, Boot Loader Specification), rescue entries last."""
    names = sorted(tree.names(ENTRIES, "*.conf"), key=lambda name: ("rescue" not in name, version_key(name)))
    for name in reversed(names):
        keys: dict[str, str] = {}
        for row in tree.text(f"{ENTRIES}/{name}").split("\n"):
            key, _, value = row.strip().partition(" ")
            keys.setdefault(key, value.strip())
        kernel, options = _file(tree, keys.get("linux", "")), keys.get("options", "")
        if kernel:
            if "$kernelopts" in options:  # EL 8 keeps the value in GRUB's environment block
                block = tree.text("boot/grub2/grubenv")
                value = next((row[11:] for row in block.split("\n") if row.startswith("kernelopts=")), "")
                options = options.replace("$kernelopts", value)
            words = [word for word in options.split() if not word.startswith("$")]
            images = [word for word in keys.get("initrd", "").split() if not word.startswith("$")]
            return Entry(kernel, _file(tree, images[-1]) if images else "", " ".join(words))
    return None


def _file(tree: Tree, path: str) -> str:
    """A path as GRUB sees it, "(hd0,gpt4)/boot/x" or "/x" where boot/ is a partition of its own, in the tree; "" if
    there is no such file."""
    path = re.sub(r"^\([^)]*\)|^\$\{?root\}?", "", path.strip("\"'"))
    for candidate in (path, f"boot/{path}"):
        if path and "$" not in path and tree.is_file(candidate):
            return tree.resolve(candidate)
    return ""


def _with_version(tree: Tree, entry: Entry) -> Entry:
    name = entry.kernel.rpartition("/")[2].removeprefix("vmlinuz-")
    if any(tree.is_dir(f"{lib}/modules/{name}") for lib in ("usr/lib", "lib")):
        return replace(entry, version=name)
    # The setup header names the place of the version, 0x200 bytes short (kernel Documentation/arch/x86/boot.rst).
    with open(tree.place(entry.kernel), "rb") as file:
        head = file.read(65536)
    if head[0x202:0x206] != b"HdrS":
        return entry
    at = int.from_bytes(head[0x20E:0x210], "little") + 0x200
    return replace(entry, version=head[at : at + 128].split(b"\0")[0].split(b" ")[0].decode("ascii", "replace"))
