"""A system of a few hundred kilobytes: everything publishing looks at, nothing that could run."""

from __future__ import annotations

import os
import random
import struct
from pathlib import Path

KERNEL = "6.1.0-9-test"
STORAGE = ("ahci", "nvme", "sd_mod", "megaraid_sas", "mpt3sas", "virtio-blk")
NETWORK = ("e1000e", "igb", "ixgbe", "i40e", "tg3", "bnxt_en", "r8169", "virtio_net")


def newc(names: list[str], data: bytes = b"x") -> bytes:
    """A newc cpio archive of files with these names."""
    out = b""
    for number, name in enumerate([*names, "TRAILER!!!"], 1):
        body = b"" if name == "TRAILER!!!" else data
        encoded = name.encode() + b"\0"
        fields = (number, 0o100644, 0, 0, 1, 0, len(body), 0, 0, 0, 0, len(encoded), 0)
        out += b"070701" + b"".join(b"%08X" % field for field in fields) + encoded
        out += bytes(-len(out) % 4) + body
        out += bytes(-len(out) % 4)
    return out


def tiny_tree(root: Path, *, modules: tuple[str, ...] = (*STORAGE, *NETWORK), seed: int = 1) -> Path:
    """Make the tree at `root` and give it back."""
    for directory in ("etc/ssh", "usr/bin", "usr/lib", "boot", "var/lib/dbus", "var/lib/systemd", "dev", "root", "tmp"):
        (root / directory).mkdir(parents=True, exist_ok=True)
    drivers = root / "usr/lib/modules" / KERNEL / "kernel/drivers"
    drivers.mkdir(parents=True)
    for name in modules:
        (drivers / f"{name}.ko").write_bytes(b"ko")
    (root / "usr/lib/modules" / KERNEL / "modules.builtin").write_text("kernel/fs/ext4/ext4.ko\n")
    (root / "usr/bin/env").write_bytes(b"\x7fELF\x02\x01\x01" + bytes(9) + struct.pack("<HH", 2, 62) + b"rest")
    os.chmod(root / "usr/bin/env", 0o4755)
    os.link(root / "usr/bin/env", root / "usr/bin/env2")
    (root / "usr/lib/os-release").write_text('ID=debian\nVERSION_ID="12"\nPRETTY_NAME="Tiny \'12\'"\n')
    os.symlink("../usr/lib/os-release", root / "etc/os-release")
    (root / "boot" / f"vmlinuz-{KERNEL}").write_bytes(random.Random(seed).randbytes(700_000))
    inside = [f"usr/lib/modules/{KERNEL}/kernel/drivers/{name}.ko" for name in modules]
    (root / "boot" / f"initrd.img-{KERNEL}").write_bytes(newc(["init", *inside]))
    (root / "etc/ssh/ssh_host_rsa_key").write_text("secret")
    (root / "etc/machine-id").write_text("0123456789abcdef0123456789abcdef\n")
    (root / "var/lib/dbus/machine-id").write_text("0123456789abcdef0123456789abcdef\n")
    (root / "var/lib/systemd/random-seed").write_bytes(b"r" * 32)
    (root / "etc/hostname").write_text("builder\n")
    (root / "etc/resolv.conf").write_text("nameserver 192.0.2.1\n")
    (root / "etc/fstab").write_text("# nothing\n")
    (root / "usr/lib/zeros").write_bytes(bytes(600_000))
    (root / "usr/lib/text").write_bytes(b"golden " * 60_000)
    if os.geteuid() == 0:
        os.chown(root / "usr/lib/text", 7, 8)
        os.setxattr(root / "usr/lib/text", "user.note", b"kept\xff\0")
        os.mknod(root / "dev/null", 0o20666, os.makedev(1, 3))
    return root
