"""A second version: what 30 more packages cost the store, and what one changed file costs the processor.

The floor is what is new in the second tree, file by file, compressed as one stream: nothing that keeps both versions
readable can store less.
"""

from __future__ import annotations

import os
import resource
import subprocess
from collections.abc import Iterator
from pathlib import Path

from images import working
from images.editing.edit import edit
from images.namespace import in_private_namespace, mounted
from images.options import Options
from images.sources.recipe import build_recipe
from images.store import Store
from tests.bench.rig import Rig, Row, against, at_most

BASE = "systemd systemd-sysv linux-image-amd64 initramfs-tools openssh-server iproute2 udev kmod"
MORE = (
    "python3 perl vim-tiny git rsync tcpdump htop tmux zsh curl wget jq lsof nfs-common strace sqlite3 nginx-light "
    "unzip parted xfsprogs btrfs-progs mdadm smartmontools pciutils make gcc less file chrony nmap"
)


def run(rig: Rig) -> Iterator[Row]:
    """Both versions are built by the recipe engine from this system's own package sources."""
    store = Store(rig.folder / "store")
    for packages in (BASE, f"{BASE} {MORE}"):
        rig.say(f"building an image of {len(packages.split())} packages and what they need")
        names = ", ".join(f'"{name}"' for name in packages.split())
        build_recipe(store, f'name = "bench"\npackages = [{names}]\n', "bench", Options())
    first, second = (store.load(f"bench:{number}")[0] for number in (1, 2))
    new = {pack for pack in second.packs if pack not in first.packs}
    stored = sum(store.pack_path(pack).stat().st_size for pack in new)
    floor = in_private_namespace(lambda: _new_data(store, rig.folder))
    yield against("republish", "30 packages", stored / 1e6, floor / 1e6, "MB", "<= 1.20")

    def change(root: Path) -> None:
        (root / "etc" / "motd").write_text("one changed file\n")

    before = _cpu()
    assert edit(store, "bench:2", change, Options(message="one file")) is not None
    used = sum(partition.used for partition in second.partitions) >> 20
    yield at_most("republish", f"one file in {used} MiB", _cpu() - before, 4.0, "CPU s")


def _cpu() -> float:
    """Processor seconds of this process and of every child that has ended."""
    return sum(
        usage.ru_utime + usage.ru_stime
        for usage in (resource.getrusage(resource.RUSAGE_SELF), resource.getrusage(resource.RUSAGE_CHILDREN))
    )


def _new_data(store: Store, folder: Path) -> int:
    """Compressed bytes of the files of version 2 that version 1 does not have at the same place."""
    trees = []
    for number in (1, 2):
        image, at = folder / f"image{number}", folder / f"at{number}"
        working.restore(store, store.load(f"bench:{number}")[0], 0, image)
        at.mkdir()
        trees.append((image, at))
    names = folder / "names"
    with mounted(*trees[0], read_only=True) as old, mounted(*trees[1], read_only=True) as new:
        with names.open("wb") as listed:
            for base, _, files in os.walk(os.fsencode(new)):
                for name in files:
                    path = os.path.join(base, name)
                    was = os.path.join(os.fsencode(old), os.path.relpath(path, os.fsencode(new)))
                    if os.path.isfile(path) and not os.path.islink(path) and not _same(path, was):
                        listed.write(os.path.relpath(path, os.fsencode(new)) + b"\0")
        tar = f"tar -C '{new}' --null -T '{names}' -cf - | zstd -q -3 -T0 | wc -c"
        return int(subprocess.run(tar, shell=True, check=True, capture_output=True).stdout)


def _same(one: bytes, other: bytes) -> bool:
    if not os.path.isfile(other) or os.path.getsize(one) != os.path.getsize(other):
        return False
    with open(one, "rb") as a, open(other, "rb") as b:
        while True:
            piece = a.read(1 << 20)
            if piece != b.read(1 << 20):
                return False
            if not piece:
                return True
