"""Disks of machines become versions, and come back as the filesystems they were."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from images.errors import NoSpace, SourceInvalid
from images.manifest import Manifest
from images.namespace import in_private_namespace, mounted
from images.options import Options
from images.sources import disk as source
from images.sources import diskfile
from images.sources.disk import import_disk
from images.store import Store
from images.working import restore
from tests.images.filled import missing
from tests.images.sametree import differences
from tests.images.virtualdisk import BOOT, HOME, ROOT, Slice, blank, convert, disk, ext4, fat, filesystem, swap, trees

pytestmark = [pytest.mark.root, pytest.mark.skipif(os.geteuid() != 0, reason="needs root")]
FSTAB = f"""UUID={ROOT} / ext4 defaults 0 1
UUID={BOOT} /boot ext4 defaults 0 2
PARTUUID={HOME} /home ext4 defaults 0 2
LABEL=ESP /boot/efi vfat umask=0077 0 1
/dev/sda3 none swap sw 0 0
"""


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "store")


def sha(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def usual(at: Path, fstab: str = FSTAB, root: Callable[[Path], Path] | None = None) -> tuple[Path, tuple[Path, ...]]:
    """A disk with a system on all kinds of partitions, and its trees."""
    at.mkdir()
    tree, boot, home = made = trees(at, fstab)
    slices = [
        Slice(1, "bios"),
        Slice(16, "esp", fat(at / "esp.fs", 16)),
        Slice(8, "swap", swap(at / "swap.fs", 8)),
        Slice(40, "linux", ext4(at / "boot.fs", boot, 40, "-U", BOOT)),
        Slice(40, "linux", ext4(at / "old.fs", None, 40)),
        Slice(320 if root else 64, "linux", root(tree) if root else ext4(at / "root.fs", tree, 64, "-U", ROOT)),
        Slice(24, "linux", ext4(at / "home.fs", home, 24), HOME),
        Slice(4, "linux"),
    ]
    return disk(at / "disk.raw", slices), made


def back(store: Store, manifest: Manifest, role: str, tmp_path: Path, look: Callable[[Path], None]) -> None:
    """Look at a partition of a version as a node would get it, on a disk full of other things."""
    index = next(n for n, part in enumerate(manifest.partitions) if part.role == role)
    restore(store, manifest, index, tmp_path / "restored")
    (tmp_path / "at").mkdir(exist_ok=True)

    def work() -> None:
        with mounted(
            tmp_path / "restored",
            tmp_path / "at",
            read_only=True,
            options="norecovery" if manifest.partitions[index].fs == "xfs" else "",
        ):
            look(tmp_path / "at")

    in_private_namespace(work)


def row(manifest: Manifest, number: int) -> dict[str, object]:
    return next(dict(entry) for entry in manifest.source["partitions"] if entry["number"] == number)


@pytest.mark.parametrize("form", ["raw", "qcow2", "vmdk", "vdi", "vhdx"])
def test_a_disk_of_every_format_becomes_its_partitions(tmp_path: Path, store: Store, form: str) -> None:
    if form != "raw" and missing("qemu-img"):
        pytest.skip("qemu-img is not installed")
    raw, (root, boot, home) = usual(tmp_path / "machine")
    path = raw if form == "raw" else convert(raw, form)
    before, said = sha(path), []
    manifest = import_disk(store, "x", path, Options(message="m", progress=lambda *step: said.append(step)))
    assert sha(path) == before
    assert [(p.role, p.fs, manifest.mount(p.role)) for p in manifest.partitions] == [
        ("root", "ext4", "/"),
        ("boot", "ext4", "/boot"),
        ("home", "ext4", "/home"),
    ]
    assert [p.uuid for p in manifest.partitions][:2] == [ROOT, BOOT]
    assert {phase for phase, _, _ in said} >= {"copy", "store"} | ({"convert"} if form != "raw" else set())
    told = manifest.source
    assert (told["kind"], told["format"], told["label"], told["sector"]) == ("disk", form, "gpt", 512)
    assert row(manifest, 2)["left_out"] == "EFI system partition, which a node makes itself"
    assert "boot loader" in str(row(manifest, 1)["left_out"]) and "swap" in str(row(manifest, 3)["left_out"])
    assert row(manifest, 5)["left_out"] == "not in etc/fstab" and row(manifest, 8)["left_out"] == "no filesystem in it"
    assert (row(manifest, 6)["role"], row(manifest, 6)["mount"]) == ("root", "/")
    assert (row(manifest, 7)["fs"], row(manifest, 7)["size"]) == ("ext4", 24 << 20)

    def same(tree: Path, *below: str) -> Callable[[Path], None]:
        def look(at: Path) -> None:
            for name in below:
                assert differences(tree / name, at / name, ignore=["lost+found", "grub"], times=name != "") == []

        return look

    back(store, manifest, "home", tmp_path, same(home, "one"))
    back(store, manifest, "root", tmp_path, same(root, "usr"))
    back(store, manifest, "boot", tmp_path, same(boot, ""))
    assert [path.name for path in sorted((store.work("x")).rglob("*"))] == [
        "current", "boot.img", "digest", "home.img", "root.img",
    ]  # fmt: skip


def test_an_mbr_names_by_device_and_a_second_version(tmp_path: Path, store: Store) -> None:
    (tmp_path / "m").mkdir()
    root, boot, _ = trees(
        tmp_path / "m", "/dev/vda1 / auto defaults 0 1\n/dev/vda2 /boot ext4 ro 0 2\n/dev/vdb1 /home ext4\n"
    )
    slices = [Slice(64, "linux", ext4(tmp_path / "r", root, 64)), Slice(40, "linux", ext4(tmp_path / "b", boot, 40))]
    path = disk(tmp_path / "d", slices, "dos")
    first = import_disk(store, "x", path, Options())
    assert [(p.role, first.mount(p.role)) for p in first.partitions] == [("root", "/"), ("boot", "/boot")]
    assert first.source["label"] == "dos" and row(first, 1)["type"] == "0x83"
    packs = sum(p.stat().st_size for p in store.packs.glob("*.pack"))
    second = import_disk(store, "x", path, Options())
    assert second.version == 2
    assert sum(p.stat().st_size for p in store.packs.glob("*.pack")) - packs < packs * 0.8  # times differ, files do not


def test_a_filesystem_without_a_table_is_one_root(tmp_path: Path, store: Store) -> None:
    (tmp_path / "m").mkdir()
    root, _, _ = trees(tmp_path / "m", "")
    manifest = import_disk(store, "x", ext4(tmp_path / "fs", root, 64), Options())
    assert [(p.role, p.fs) for p in manifest.partitions] == [("root", "ext4")]
    assert manifest.source["label"] == "none" and len(manifest.source["partitions"]) == 1


@pytest.mark.parametrize("fs", ["xfs", "btrfs"])
def test_a_root_of_another_filesystem(tmp_path: Path, store: Store, fs: str) -> None:
    if missing(f"mkfs.{fs}"):
        pytest.skip(f"mkfs.{fs} is not installed")
    fstab = FSTAB.replace("/ ext4 defaults", f"/ {fs} {'subvol=root' if fs == 'btrfs' else 'defaults'}")
    raw, (root, _, _) = usual(tmp_path / "m", fstab, lambda tree: filesystem(tmp_path / "root.fs", tree, 320, fs, ROOT))
    manifest = import_disk(store, "x", raw, Options())
    assert (manifest.partitions[0].fs, manifest.partitions[0].uuid) == (fs, ROOT)
    # XFS is kept by its own map; btrfs has none and is as large as what was ever written to it.
    assert (manifest.partitions[0].used < 200 << 20) == (fs == "xfs")

    def look(at: Path) -> None:
        assert differences(root / "usr", at / "usr") == []

    back(store, manifest, "root", tmp_path, look)
    if fs == "btrfs":
        assert "subvolume" in manifest.source["notes"][0]


@pytest.mark.parametrize("fs", ["ext4", "xfs"])
def test_a_machine_that_lost_its_power_is_recovered_on_our_copy(tmp_path: Path, store: Store, fs: str) -> None:
    """A copy of a filesystem that is mounted: what was synced last stands in its journal alone."""
    if fs == "xfs" and missing("mkfs.xfs"):
        pytest.skip("mkfs.xfs is not installed")
    (tmp_path / "m").mkdir()
    root, _, _ = trees(tmp_path / "m", "")
    path = ext4(tmp_path / "fs", root, 64) if fs == "ext4" else filesystem(tmp_path / "fs", root, 320, "xfs", ROOT)
    (tmp_path / "live").mkdir()

    def crash() -> None:
        with mounted(path, tmp_path / "live"):
            (tmp_path / "live/usr/lib/late").write_bytes(b"written at last" * 5000)
            fd = os.open(tmp_path / "live/usr/lib/late", os.O_RDONLY)
            os.fsync(fd)
            os.close(fd)
            subprocess.run(["cp", "--sparse=always", path, tmp_path / "crashed"], check=True)

    in_private_namespace(crash)
    before = sha(tmp_path / "crashed")
    manifest = import_disk(store, "x", tmp_path / "crashed", Options())
    assert sha(tmp_path / "crashed") == before

    def look(at: Path) -> None:
        assert (at / "usr/lib/late").read_bytes() == b"written at last" * 5000

    back(store, manifest, "root", tmp_path, look)


@pytest.mark.parametrize("form", ["raw", "qcow2"])
def test_a_whole_disk_comes_back_bit_for_bit(tmp_path: Path, store: Store, form: str) -> None:
    raw, _ = usual(tmp_path / "machine")
    with raw.open("r+b") as file:
        file.seek(2 << 20)
        file.write(os.urandom(3 << 20))  # over the EFI system partition: nobody looks
    path = raw if form == "raw" else convert(raw, form)
    manifest = import_disk(store, "x", path, Options(), whole=True)
    (part,) = manifest.partitions
    assert manifest.whole and (part.role, part.fs, manifest.mount("whole")) == ("whole", "whole", "")
    assert part.size == part.used == raw.stat().st_size
    assert (manifest.source["label"], len(manifest.source["partitions"])) == ("gpt", 8)
    restore(store, manifest, 0, tmp_path / "restored")
    assert sha(tmp_path / "restored") == sha(raw)
    stored = sum(p.stat().st_size for p in store.packs.glob("*.pack"))
    assert stored < 8 << 20


@pytest.mark.parametrize(
    ("what", "match", "hint"),
    [
        ("nothing", "neither a partition table nor a filesystem", "--whole"),
        ("no system", "no Linux system", "--whole"),
        ("lvm", "partition 1 is a physical volume of LVM", "capture"),
        ("luks", "partition 1 is an encrypted volume", "capture"),
        ("damaged table", "partition table .* is damaged", "--whole"),
        ("damaged root", "partition 1: the filesystem is damaged", "--whole"),
        ("esp on boot", "keeps its kernels on the EFI system partition", "--whole"),
        ("windows", "no Linux system .*: partition 1 is ntfs", "--whole"),
        ("cd", "is a CD", "recipe"),
        ("bare lvm", "the disk is a physical volume of LVM", "capture"),
        ("gzip", "compressed", "gunzip"),
        ("directory", "neither a file nor a disk", ""),
        ("absent", "cannot be read", ""),
    ],
)
def test_what_cannot_be_imported_is_named(tmp_path: Path, store: Store, what: str, match: str, hint: str) -> None:
    path, at = tmp_path / "d", tmp_path / "m"
    at.mkdir()
    if what == "nothing":
        blank(path, 8)
    elif what == "gzip":
        path.write_bytes(b"\x1f\x8b" + bytes(5000))
    elif what == "directory":
        path.mkdir()
    elif what == "windows":
        if missing("mkntfs"):
            pytest.skip("mkntfs is not installed")
        subprocess.run(["mkntfs", "-F", "-q", "-f", str(blank(at / "c", 16))], check=True, capture_output=True)
        disk(path, [Slice(16, "linux", at / "c")])
    elif what == "cd":
        with blank(path, 1).open("r+b") as file:
            file.seek(0x8000)
            file.write(b"\1CD001")
    elif what in ("lvm", "luks", "bare lvm"):
        head = bytearray(1 << 20)
        head[:8] = b"LUKS\xba\xbe\0\2" if what == "luks" else bytes(8)
        head[512:544] = b"LABELONE" + bytes(16) + b"LVM2 001" if "lvm" in what else bytes(32)
        (at / "pv").write_bytes(head)
        if what == "bare lvm":
            path.write_bytes(head)
        else:
            disk(path, [Slice(8, "lvm", at / "pv")])
    elif what != "absent":
        root, _, _ = trees(at, "UUID=1234-5678 /boot vfat defaults 0 0\n")
        if what == "no system":
            shutil.rmtree(root / "etc")
        slices = [Slice(64, "linux", ext4(at / "fs", root, 64))]
        if what == "esp on boot":
            subprocess.run(["mkfs.vfat", "-i", "12345678", blank(at / "esp", 16)], check=True, capture_output=True)
            slices.append(Slice(16, "esp", at / "esp"))
        disk(path, slices)
        if what == "damaged table":
            for place in (512, path.stat().st_size - 512):
                with path.open("r+b") as file:
                    file.seek(place)
                    file.write(b"\xff" * 100)
        if what == "damaged root":
            subprocess.run(["debugfs", "-w", "-R", "clri <2>", at / "fs"], check=True, capture_output=True)
            with path.open("r+b") as file:
                file.seek(1 << 20)
                file.write((at / "fs").read_bytes())
    with pytest.raises(SourceInvalid, match=match) as caught:
        import_disk(store, "x", path, Options())
    assert hint in caught.value.hint and "\n" not in str(caught.value)
    assert store.versions("x") == [] and not list(store.work("x").glob("*"))


def test_a_disk_of_this_machine(tmp_path: Path, store: Store) -> None:
    """A block device is read as well, if nothing uses it."""
    raw, _ = usual(tmp_path / "machine")
    argv = ["losetup", "--find", "--show", "--partscan", str(raw)]
    loop = subprocess.run(argv, capture_output=True, text=True, check=True).stdout.strip()
    try:
        manifest = import_disk(store, "x", Path(loop), Options())
        assert [part.role for part in manifest.partitions] == ["root", "boot", "home"]

        def in_use() -> None:
            (tmp_path / "used").mkdir()
            subprocess.run(["mount", "-o", "ro", loop, tmp_path / "used"], check=True)
            try:
                with pytest.raises(SourceInvalid, match="busy"):
                    import_disk(store, "x", Path(loop), Options())
            finally:
                subprocess.run(["umount", tmp_path / "used"], check=True)

        subprocess.run(["losetup", "--detach", loop], check=True)
        boot = ["losetup", "--find", "--show", str(tmp_path / "machine/boot.fs")]
        loop = subprocess.run(boot, capture_output=True, text=True, check=True).stdout.strip()
        in_private_namespace(in_use)
    finally:
        subprocess.run(["losetup", "--detach", loop], check=True)


def test_an_old_table_of_a_disk_with_large_sectors(tmp_path: Path, store: Store) -> None:
    (tmp_path / "m").mkdir()
    root, _, _ = trees(tmp_path / "m", "")
    path = blank(tmp_path / "d", 80)
    (tmp_path / "script").write_text("label: dos\nstart=256, size=16384, type=83\n")
    argv = ["fdisk", "-b", "4096", "-w", "never", str(path)]
    subprocess.run(argv, input=f"I\n{tmp_path / 'script'}\nw\n".encode(), check=True, capture_output=True)
    fs = ext4(tmp_path / "fs", root, 64)
    argv = ["dd", f"if={fs}", f"of={path}", "bs=1M", "seek=1", "conv=notrunc,sparse", "status=none"]
    subprocess.run(argv, check=True)
    manifest = import_disk(store, "x", path, Options())
    assert manifest.source["sector"] == 4096 and manifest.partitions[0].size == 64 << 20


def test_a_name_of_any_bytes(tmp_path: Path, store: Store) -> None:
    (tmp_path / "m").mkdir()
    root, _, _ = trees(tmp_path / "m", "")
    path = ext4(tmp_path / os.fsdecode(b"d\xff\nx"), root, 64)
    assert import_disk(store, "x", path, Options()).source["file"] == "d\ufffd?x"


def test_a_full_disk_keeps_nothing(tmp_path: Path, store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    raw, _ = usual(tmp_path / "machine")
    monkeypatch.setattr(source, "free_space", lambda directory: 100_000)
    with pytest.raises(NoSpace, match="MiB"):
        import_disk(store, "x", raw, Options())
    monkeypatch.setattr(diskfile, "free_space", lambda directory: 100_000)
    if not missing("qemu-img"):
        with pytest.raises(NoSpace, match="at least"):
            import_disk(store, "x", convert(raw, "qcow2"), Options())
        free = iter([1 << 40, 1 << 40])  # full while it is being converted
        monkeypatch.setattr(diskfile, "free_space", lambda directory: next(free, -1))
        with pytest.raises(NoSpace, match="full"):
            import_disk(store, "x", raw.with_suffix(".qcow2"), Options(), whole=True)
    assert store.versions("x") == [] and not list(store.work("x").glob("*"))
