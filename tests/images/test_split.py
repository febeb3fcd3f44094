"""Systems on several filesystems, with real mounts: /boot stays a partition, the rest becomes part of the root."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from images.errors import SourceInvalid
from images.manifest import Manifest
from images.namespace import in_private_namespace
from images.options import Options
from images.sources.golden import capture_here
from images.sources.leftout import Left, Selection, Wishes, read_mounts, select
from images.sources.split import from_tree_and_boot, settle_fstab
from images.store import Store
from images.tree import Tree
from tests.images.sound import damaged
from tests.images.test_leftout import lines
from tests.images.tinytree import KERNEL, tiny_tree

pytestmark = [pytest.mark.root, pytest.mark.skipif(os.geteuid() != 0, reason="needs root")]

ROOT, BOOT = "11111111-2222-3333-4444-555555555555", "99999999-8888-7777-6666-555555555555"
# What an installer writes, and some lines by hand.
FSTAB = f"""# written by an installer
UUID={ROOT} / ext4 defaults 0 1
UUID={BOOT} /boot ext4 defaults 0 2
/dev/vg/var /var/ xfs defaults 0 2
UUID=1234-ABCD /boot/efi vfat umask=0077 0 1
/swapfile none swap sw 0 0
UUID={BOOT[::-1]} /data xfs defaults 0 2
UUID={BOOT[::-1]} /tape xfs nofail 0 2
LABEL=scratch /scratch xfs defaults 0 2
nfs:/home /home nfs defaults 0 0
"""


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "store")


def with_mounts(system: Path, work: Callable[[], Manifest]) -> Manifest:
    """`work` where boot, var and data of a system are filesystems of their own, as a client's are."""

    def inside() -> Manifest:
        for name in ("boot", "var", "data"):
            (system / name).mkdir(exist_ok=True)
            image = system.parent / f"{name}.img"
            if not image.exists():
                size = ["-U", BOOT] if name == "boot" else []
                subprocess.run(["mke2fs", "-q", "-t", "ext4", *size, "-d", system / name, image, "16M"], check=True)
            subprocess.run(["mount", "-o", "loop", image, system / name], check=True)
        (system / "run").mkdir(exist_ok=True)
        subprocess.run(["mount", "-t", "tmpfs", "x", system / "run"], check=True)
        (system / "run/left").write_text("x")
        try:
            return work()
        finally:
            for name in ("run", "data", "var", "boot"):
                subprocess.run(["umount", system / name], check=True)

    return in_private_namespace(inside)


def listed(image: Path, path: str) -> str:
    done = subprocess.run(["debugfs", "-R", f"ls -p {path}", image], capture_output=True, text=True, check=True)
    return done.stdout


def test_a_boot_of_its_own_stays_one_and_the_rest_is_the_root(store: Store, tmp_path: Path) -> None:
    system = tiny_tree(tmp_path / "system")
    (system / "etc/fstab").write_text(FSTAB)
    (system / "boot/rescue").write_bytes(os.urandom(4 << 20))
    (system / "data").mkdir()
    (system / "data/big").write_text("x")
    first = with_mounts(system, lambda: capture_here(store, "gold", Wishes(), Options(), root=str(system)))
    assert [(p.role, p.uuid, p.fs) for p in first.partitions] == [("root", ROOT, "ext4"), ("boot", BOOT, "ext4")]
    assert first.mount("boot") == "/boot" and first.source["filesystems"] == ["/", "/boot", "/var"]
    root, boot = (store.work("gold") / "current" / f"{role}.img" for role in ("root", "boot"))
    assert f"/vmlinuz-{KERNEL}/" in listed(boot, "/") and "vmlinuz" not in listed(root, "/boot")
    assert "/lib/" in listed(root, "/var") and "big" not in listed(root, "/data") and "left" not in listed(root, "/run")
    fstab = subprocess.run(["debugfs", "-R", "cat /etc/fstab", root], capture_output=True, text=True).stdout
    assert "# part of / in this image: /dev/vg/var" in fstab and f"\nUUID={BOOT} /boot ext4" in fstab
    assert not (store.work("gold") / "tree").exists() and not (store.work("gold") / "boot").exists()
    # Again, with what is on /data too: a small step on the same two partitions.
    (system / "etc/motd").write_text("new")
    wishes = Wishes(include=("/data",))
    second = with_mounts(system, lambda: capture_here(store, "gold", wishes, Options(), root=str(system)))
    assert [(p.role, p.uuid) for p in second.partitions] == [("root", ROOT), ("boot", BOOT)]
    assert "/big/" in listed(root, "/data") and "/motd/" in listed(root, "/etc")
    old, new = ({chunk for run in store.runs(m, 1) for chunk, _ in run.chunks} for m in (first, second))
    assert len(new - old) <= 4 and len(old) > 10  # nothing in /boot has changed but its superblock and tables


def test_from_one_partition_to_two_and_back(store: Store, tmp_path: Path) -> None:
    system = tiny_tree(tmp_path / "system")
    (system / "etc/fstab").write_text("/dev/sda1 / ext4 defaults 0 1\n")
    plain = capture_here(store, "gold", Wishes(), Options(), root=str(system))
    split = with_mounts(system, lambda: capture_here(store, "gold", Wishes(), Options(), root=str(system)))
    back = capture_here(store, "gold", Wishes(one_file_system=True), Options(), root=str(system))
    assert [len(manifest.partitions) for manifest in (plain, split, back)] == [1, 2, 1]
    assert split.partitions[1].uuid == BOOT and damaged(store, "gold") == []


def test_a_boot_that_is_no_directory_is_refused(store: Store) -> None:
    def fill(tree: Path) -> dict[str, object]:
        (tree / "boot").symlink_to("/boot")
        return {}

    with pytest.raises(SourceInvalid, match="no directory"):
        from_tree_and_boot(store, "gold", BOOT, fill, Options())
    assert store.images() == [] and not (store.work("gold") / "tree").exists() and Path("/boot").is_dir()


def test_fstab_loses_what_no_node_has_and_nothing_else(tmp_path: Path) -> None:
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc/fstab").write_text(FSTAB)
    mounts = read_mounts(lines("/ ext4", "/boot ext4", "/var xfs", "/boot/efi vfat", "/data xfs", "/tape xfs",
                               "/scratch xfs", "/home nfs"))  # fmt: skip
    selection = select(mounts, [], [], Wishes())
    assert settle_fstab(Tree(str(tmp_path)), selection, split=True) == ["/var", "/swapfile", "/data"]
    text = (tmp_path / "etc/fstab").read_text()
    assert [row.split()[-6] for row in text.splitlines()[1:] if not row.startswith("#")] == [
        f"UUID={ROOT}", f"UUID={BOOT}", "UUID=1234-ABCD", f"UUID={BOOT[::-1]}", "LABEL=scratch", "nfs:/home",
    ]  # fmt: skip
    assert text.count("\n") == FSTAB.count("\n")
    assert settle_fstab(Tree(str(tmp_path)), selection, split=False) == ["/boot"]
    assert settle_fstab(Tree(str(tmp_path)), selection, split=False) == []


def test_no_fstab_is_no_trouble(tmp_path: Path) -> None:
    (tmp_path / "etc").mkdir()
    selection = Selection(("/", "/var"), (Left("/swapfile", "swap space"),))
    assert settle_fstab(Tree(str(tmp_path)), selection, split=False) == []
    assert not (tmp_path / "etc/fstab").exists()
