"""What names the disks of one machine: mended where there is no doubt, else told."""

from __future__ import annotations

from pathlib import Path

from images.checks import disks
from images.edits import fstab
from tests.images.checks.looked import UUID, look
from tests.images.systems import put


def test_the_line_for_the_root_names_the_image(tmp_path: Path) -> None:
    text = "# by the installer\n/dev/sda2\t/  ext4\tnoatime 0 1 # mine\n/dev/sda1 /boot/efi vfat defaults 0 2\n"
    put(tmp_path, "etc/fstab", text)
    check = look(disks.root_line, tmp_path)["fstab: the line for /"]
    assert check.found == ("/dev/sda2 (ext4)",) and check.severity == "info"
    assert (tmp_path / "etc/fstab").read_text() == text.replace("/dev/sda2", f"UUID={UUID}")
    assert look(disks.root_line, tmp_path) == {}


def test_options_of_another_filesystem_go_with_it(tmp_path: Path) -> None:
    put(tmp_path, "etc/fstab", "UUID=11111111-1111-1111-1111-111111111111 / btrfs subvol=@,compress=zstd 0 0\n")
    assert look(disks.root_line, tmp_path)
    assert (tmp_path / "etc/fstab").read_text() == f"UUID={UUID} / ext4 defaults,errors=remount-ro 0 0\n"
    put(tmp_path, "etc/fstab", f"UUID={UUID.upper()} / auto noatime 0 0\noverlay / overlay rw 0 0\n")
    assert look(disks.root_line, tmp_path) == {}


def test_the_node_and_the_check_agree_on_the_root(tmp_path: Path) -> None:
    put(tmp_path, "etc/fstab", "LABEL=old / xfs defaults 0 0\n")
    look(disks.root_line, tmp_path)
    mended = (tmp_path / "etc/fstab").read_text()
    fstab.apply(str(tmp_path), {"mounts": [{"mount": "/", "fs": "ext4", "uuid": UUID}]})
    assert (tmp_path / "etc/fstab").read_text() == mended


def test_other_disks_are_told_by_what_they_do_to_a_node(tmp_path: Path) -> None:
    rows = [
        "UUID=1 / ext4 defaults 0 1", "UUID=2 none swap sw 0 0", "UUID=A-B /boot/efi vfat defaults 0 2",
        "/dev/sda3 /home xfs defaults 0 2", "/dev/sdb1 /data xfs defaults 0 2", "/dev/sdc1 /more xfs nofail 0 2",
        "/dev/sr0 /media/cd udf noauto 0 0", "nfs:/home /nfs nfs4 rw 0 0", "nfs:/x /x nfs rw,nofail 0 0",
        "tmpfs /tmp tmpfs defaults 0 0", "#/dev/sdz /z ext4 defaults 0 0", "broken",
        "/dev/mapper/vg-scratch /scratch ext4 rw 0 0",
    ]  # fmt: skip
    put(tmp_path, "etc/fstab", "\n".join(rows))
    found = look(disks.other_lines, tmp_path, mounts={"root": "/", "home": "/home"})
    alone = found["fstab: disks that not every node has"]
    assert alone.found == ("/dev/sdb1 on /data", "/dev/mapper/vg-scratch on /scratch") and alone.severity == "warning"
    assert found["fstab: file servers"].found == ("nfs:/home on /nfs",)
    known = found["fstab: partitions of the node"].found
    assert known == ("UUID=2 on none", "UUID=A-B on /boot/efi", "/dev/sda3 on /home")
    assert (tmp_path / "etc/fstab").read_text() == "\n".join(rows)


def test_arrays_are_commented_out_once(tmp_path: Path) -> None:
    path = put(tmp_path, "etc/mdadm/mdadm.conf", "HOMEHOST <system>\n ARRAY /dev/md0 UUID=1:2\n# ARRAY no\n")
    assert look(disks.arrays, tmp_path)["arrays of another machine"].found == (
        "etc/mdadm/mdadm.conf: ARRAY /dev/md0 UUID=1:2",
    )
    assert path.read_text() == "HOMEHOST <system>\n# of another machine:  ARRAY /dev/md0 UUID=1:2\n# ARRAY no\n"
    assert look(disks.arrays, tmp_path) == {}


def test_crypttab_filters_and_multipath(tmp_path: Path) -> None:
    put(tmp_path, "etc/crypttab", "# c\nroot UUID=1 none luks\nmore /dev/sdb none luks,nofail\n\n")
    put(tmp_path, "etc/lvm/lvm.conf", '# filter = [ "a|/dev/sda|" ]\n\tglobal_filter = [ "a|/dev/sda|", "r|.*|" ]\n')
    put(tmp_path, "etc/multipath.conf", "multipaths {\n  wwid 3600\n}\n")
    found = look(disks.other_pins, tmp_path)
    assert found["encrypted disks"].found == ("etc/crypttab: root UUID=1",)
    assert found["LVM filters"].found == ('global_filter = [ "a|/dev/sda|", "r|.*|" ]',)
    assert found["multipath devices"].found == ("wwid 3600",)
