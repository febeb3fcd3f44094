"""A tree with one of everything that a file can be, have or be called."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from images.sources.acl import encode_acl

# What a golden client is asked for, short of -c and what to pack.
GNU_TAR = ["tar", "--format=posix", "--xattrs", "--xattrs-include=*", "--acls", "--selinux", "--numeric-owner"]
GNU_TAR.append("--sparse")
CAPABILITY = bytes.fromhex("0100000200200000000000000000000000000000")  # cap_net_raw=ep
LABEL = b"system_u:object_r:bin_t:s0\0"
ACL = encode_acl("user::rw-,user:7:r-x,user:70000:r--,group::r--,group:3:---,mask::rwx,other::---", {})
NAMES = b"root:x:0:0::/:\nlp:x:7:7::/:\n"


def rich_tree(root: Path) -> Path:
    """Fill the directory `root`, made if it is missing, and give it back. Needs root. Its files with holes have 3 GB
    and some kilobytes of data."""
    for name in ("etc", "dev", "usr/share/doc", "var/chroot/dev", "var/empty", "var/sticky", "var/acl"):
        (root / name).mkdir(parents=True, exist_ok=True)
    (root / "etc/passwd").write_bytes(NAMES)
    (root / "etc/group").write_bytes(b"root:x:0:\nsys:x:3:\n")
    os.mknod(root / "dev/sda1", stat.S_IFBLK | 0o660, os.makedev(8, 1))
    os.mknod(root / "dev/large", stat.S_IFCHR | 0o600, os.makedev(300, 70000))
    os.mknod(root / "var/chroot/dev/null", stat.S_IFCHR | 0o666, os.makedev(1, 3))
    os.mkfifo(root / "var/fifo")
    long = "n" * 200
    (root / "var" / long / long).mkdir(parents=True)
    (root / "var" / long / long / long).write_text("deep")
    os.symlink("/".join([long] * 5), root / "var/longlink")
    os.symlink("../../../../nowhere", root / "var/sym")
    os.chown(root / "var/sym", 3_000_000, 4_000_000_000, follow_symlinks=False)
    os.link(root / "var/sym", root / "var/hardsym", follow_symlinks=False)
    os.link(root / "var" / long / long / long, root / "usr/share/hard")
    for odd in (b"\xff\xfe \n\t'\"\\", "ü".encode(), b" leading", b"-dash", b"trailing ", b"%25=", b"*?["):
        with open(os.path.join(os.fsencode(root / "var"), odd), "wb") as file:
            file.write(odd)
    (root / "var/large-owner").write_text("x")
    os.chown(root / "var/large-owner", 4_294_967_293, 2_097_152)
    for name, mode in (("setuid", 0o4755), ("setgid", 0o2711), ("nothing", 0), ("all", 0o7777)):
        (root / "var" / name).write_text(name)
        os.chown(root / "var" / name, 5, 6)
        os.chmod(root / "var" / name, mode)
    os.chmod(root / "var/sticky", 0o1777)
    os.chmod(root / "var/empty", 0)
    with (root / "var/hole").open("wb") as file:
        file.truncate(3_000_000_000)
        os.pwrite(file.fileno(), b"data", 2_500_000_000)
    with (root / "var/many-holes").open("wb") as file:
        for number in range(100):
            os.pwrite(file.fileno(), b"%05d" % number * 500, number * 20_000)
        file.truncate(2_005_000)
    with (root / "var/only-hole").open("wb") as file:
        file.truncate(1 << 20)
    (root / "var/zeros").write_bytes(bytes(100_000))
    (root / "var/zero-length").touch()
    with_all = root / "var/attributes"
    with_all.write_text("x")
    os.setxattr(with_all, "user.binary", bytes(range(256)) * 8)
    os.setxattr(with_all, "user.empty", b"")
    os.setxattr(with_all, "user.=%3D%", b"12 a=b\n")
    os.setxattr(with_all, "trusted.note", b"\n")
    os.setxattr(with_all, "security.selinux", LABEL)
    os.setxattr(root / "var/hardsym", "security.selinux", LABEL, follow_symlinks=False)
    os.setxattr(root / "var/setuid", "security.capability", CAPABILITY)
    os.setxattr(with_all, "system.posix_acl_access", ACL)
    os.setxattr(root / "var/acl", "system.posix_acl_access", ACL)
    (root / "var/acl/before").mkdir()
    os.setxattr(root / "var/acl", "system.posix_acl_default", ACL)
    (root / "var/acl/inherited").touch()
    (root / "var/acl/below").mkdir()
    for path in root.rglob("*"):
        os.utime(path, (1_500_000_000, 1_500_000_000), follow_symlinks=False)
    os.utime(root / "var/zeros", (0, 0))
    os.utime(root / "var/zero-length", (-1_000_000, -1_000_000))
    os.utime(root, (1_400_000_000, 1_400_000_000))
    return root
