"""Disks as machines have them: partition table, filesystems, a small system with its fstab."""

from __future__ import annotations

import os
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from images.namespace import in_private_namespace, mounted
from images.treesync import sync_tree
from tests.images.tinytree import tiny_tree

MIB = 1 << 20
TYPES = {
    "bios": "21686148-6449-6E6F-744E-656564454649",
    "esp": "C12A7328-F81F-11D2-BA4B-00A0C93EC93B",
    "swap": "0657FD6D-A4AB-43C4-84E5-0933C84B4F4F",
    "linux": "0FC63DAF-8483-4772-8E79-3D69D8477DE4",
    "lvm": "E6D6D379-F507-44C2-A23C-238F2A3DF928",
}
ROOT, BOOT, HOME = (f"{digit * 8}-1111-4222-8333-444444444444" for digit in "abc")


@dataclass(frozen=True)
class Slice:
    """One partition: MiB, type, the file with what stands in it, PARTUUID."""

    size: int
    kind: str = "linux"
    file: Path | None = None
    uuid: str = ""


def disk(path: Path, slices: list[Slice], label: str = "gpt") -> Path:
    """A sparse disk with these partitions."""
    rows, at, places = [f"label: {label}"], 1, []
    for part in slices:
        kind = (
            TYPES[part.kind] if label == "gpt" else {"linux": "83", "swap": "82", "esp": "ef", "lvm": "8e"}[part.kind]
        )
        rows.append(f"start={at}MiB, size={part.size}MiB, type={kind}" + (f", uuid={part.uuid}" if part.uuid else ""))
        places.append((at, part))
        at += part.size
    with path.open("wb") as file:
        file.truncate((at + 2) * MIB)
    subprocess.run(["sfdisk", "-q", str(path)], input="\n".join(rows).encode(), check=True, capture_output=True)
    for start, part in places:
        if part.file:
            argv = [
                "dd",
                f"if={part.file}",
                f"of={path}",
                "bs=1M",
                f"seek={start}",
                "conv=notrunc,sparse",
                "status=none",
            ]
            subprocess.run(argv, check=True)
    return path


def blank(path: Path, size: int) -> Path:
    """A sparse file of `size` MiB."""
    with path.open("wb") as file:
        file.truncate(size * MIB)
    return path


def ext4(path: Path, tree: Path | None, size: int, *options: str) -> Path:
    """An ext4 of `size` MiB that holds a tree."""
    argv = ["mke2fs", "-q", "-F", "-t", "ext4", *options, *(["-d", str(tree)] if tree else []), str(blank(path, size))]
    subprocess.run(argv, check=True, capture_output=True)
    return path


def filesystem(path: Path, tree: Path, size: int, fs: str, uuid: str) -> Path:
    """A filesystem of another kind that holds a tree."""
    argv = {
        "xfs": ["mkfs.xfs", "-q", "-f", "-m", f"uuid={uuid}"],
        "btrfs": ["mkfs.btrfs", "-q", "-f", "-U", uuid],
    }[fs]
    subprocess.run([*argv, str(blank(path, size))], check=True, capture_output=True)
    at = path.with_suffix(".at")
    at.mkdir()

    def fill() -> None:
        with mounted(path, at):
            if fs == "btrfs":
                subprocess.run(["btrfs", "-q", "subvolume", "create", str(at / "root")], check=True)
            sync_tree(tree, at / "root" if fs == "btrfs" else at)

    in_private_namespace(fill)
    at.rmdir()
    return path


def swap(path: Path, size: int) -> Path:
    subprocess.run(["mkswap", "-q", str(blank(path, size))], check=True, capture_output=True)
    return path


def fat(path: Path, size: int) -> Path:
    subprocess.run(["mkfs.vfat", str(blank(path, size))], check=True, capture_output=True)
    return path


def trees(at: Path, fstab: str) -> tuple[Path, Path, Path]:
    """Root, /boot and /home of a small system."""
    root = tiny_tree(at / "root")
    (root / "etc/fstab").write_text(fstab)
    shutil.move(root / "boot", at / "boot")
    (root / "boot").mkdir()
    (root / "home").mkdir()
    (at / "home/one").mkdir(parents=True)
    (at / "home/one/work").write_bytes(os.urandom(300_000))
    (at / "home/one/zeros").write_bytes(bytes(200_000))
    os.chown(at / "home/one/work", 1000, 1000)
    return root, at / "boot", at / "home"


def convert(path: Path, form: str, *options: str) -> Path:
    """The same disk in another format."""
    target = path.with_suffix(f".{form}")
    argv = ["qemu-img", "convert", "-f", "raw", "-O", form, *options, str(path), str(target)]
    subprocess.run(argv, check=True, capture_output=True)
    return target
