"""A shell inside a tree: what it sees, what it cannot reach, and what is left of it."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from images import ext4
from images.editing import chroot
from images.editing.chroot import Disk, enter
from images.errors import CommandFailed, SourceInvalid
from images.namespace import in_private_namespace, loop_of
from images.publish import Part
from images.working import mounted_parts
from tests.images.shelltree import shell_tree
from tests.images.systems import picture

pytestmark = [pytest.mark.root, pytest.mark.skipif(os.geteuid() != 0, reason="needs root")]


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    return shell_tree(tmp_path / "tree")


def inside(tree: Path, script: str, *disks: Disk) -> int:
    return in_private_namespace(lambda: enter(tree, ["sh", "-c", script], title="x:1", disks=disks))


def said(tree: Path, script: str, capfd: pytest.CaptureFixture[str], *disks: Disk) -> str:
    assert inside(tree, script, *disks) == 0
    return capfd.readouterr().out.strip()


def test_what_a_package_expects_is_there_and_the_head_is_not(tree: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert said(tree, "echo $HOME $SYSTEMD_OFFLINE $DEBIAN_FRONTEND", capfd) == "/root 1 noninteractive"
    assert said(tree, "echo x > /dev/null; echo y > /dev/shm/y; echo z > /run/lock/z; ls /dev", capfd).split() == [
        *("disk", "fd", "full", "null", "ptmx", "pts", "random", "shm", "stderr", "stdin", "stdout", "tty"),
        *("urandom", "zero"),
    ]
    assert said(tree, "/usr/sbin/policy-rc.d; echo $?", capfd) == "101"
    assert said(tree, "echo 1 > /proc/sys/kernel/sysrq || echo refused", capfd) == "refused"
    assert 2 <= len(said(tree, "ls -d /proc/[0-9]*", capfd).split()) <= 3
    assert said(tree, "hostname", capfd) == "localhost"


def test_the_disk_of_the_image_is_the_only_one(tree: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """Two partitions, by names of devices that are there: grub-probe looks them up, and no other disk can be found."""
    boot = tmp_path / "boot"
    (boot / "grub").mkdir(parents=True)
    parts = {}
    for name, mount, source in (("root", "/", tree), ("boot", "/boot", boot)):
        image = tmp_path / f"{name}.img"
        ext4.make(source, image, name=name, identity=ext4.filesystem_uuid(name), size=256 << 20, inodes=100)
        parts[name] = Part(name, image, "ext4", mount, ext4.filesystem_uuid(name))
    (tmp_path / "at").mkdir()
    script = """
    while read -r _ _ _ _ point rest; do
        case $rest in *gild*) echo "$point ${rest##* - }" ;; esac
    done < /proc/self/mountinfo
    for device in /dev/disk/by-uuid/*; do test -b "$device" && echo "$device"; done
    ls -d /boot/* /dev/gild*
    """

    def work() -> int:
        with mounted_parts(list(parts.values()), tmp_path / "at") as root:
            disks = []
            for part in parts.values():
                number = os.stat(f"/dev/{loop_of(part.file)}").st_rdev
                disks.append(Disk(f"gild-{part.role}", number, part.fs, part.mount, part.uuid))
            return enter(root, ["sh", "-c", script], title="x:1", disks=disks)

    assert in_private_namespace(work) == 0
    assert capfd.readouterr().out.split("\n") == [
        "/ ext4 /dev/gild-root rw",
        "/boot ext4 /dev/gild-boot rw",
        *(f"/dev/disk/by-uuid/{uuid}" for uuid in sorted(part.uuid for part in parts.values())),
        "/boot/grub",
        "/boot/lost+found",
        "/dev/gild-boot",
        "/dev/gild-root",
        "",
    ]
    assert not any(loop_of(part.file) for part in parts.values())


def test_the_exit_code_comes_back(tree: Path) -> None:
    assert inside(tree, "exit 7") == 7
    assert inside(tree, "kill -9 $$") == 137


def test_a_tree_comes_out_as_it_was(tree: Path) -> None:
    before = picture(tree)
    assert inside(tree, "cat /etc/resolv.conf /usr/sbin/policy-rc.d > /dev/null") == 0
    assert picture(tree) == before


def test_name_servers_are_those_of_the_head(tree: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert said(tree, "cat /etc/resolv.conf", capfd) == Path("/etc/resolv.conf").read_text().strip()
    (tree / "etc/resolv.conf").unlink()
    (tree / "etc/resolv.conf").symlink_to("../run/systemd/resolve/stub-resolv.conf")
    assert said(tree, "cat /etc/resolv.conf", capfd) == Path("/etc/resolv.conf").read_text().strip()
    assert os.readlink(tree / "etc/resolv.conf") == "../run/systemd/resolve/stub-resolv.conf"
    assert list((tree / "run").iterdir()) == []


def test_what_was_put_in_the_place_of_a_lent_file_stays(tree: Path) -> None:
    assert inside(tree, "rm /etc/resolv.conf; ln -s ../run/x /etc/resolv.conf; echo mine > /usr/sbin/policy-rc.d") == 0
    assert os.readlink(tree / "etc/resolv.conf") == "../run/x"
    assert (tree / "usr/sbin/policy-rc.d").read_text() == "mine\n"
    assert not list(tree.rglob(f"*{chroot.ASIDE}"))


def test_a_daemon_dies_with_the_shell(tree: Path, tmp_path: Path) -> None:
    mark = f"sleep 98{os.getpid()}"
    assert inside(tree, f"setsid {mark} > /dev/null 2>&1 & exit 0") == 0
    commands = [path.read_bytes().replace(b"\0", b" ") for path in Path("/proc").glob("[0-9]*/cmdline") if _there(path)]
    assert not any(mark.encode() in command for command in commands)


def _there(path: Path) -> bool:
    try:
        path.read_bytes()
    except OSError:
        return False
    return True


@pytest.mark.parametrize("name", ["dev", "proc", "sys", "run"])
def test_links_that_lead_out_are_not_followed(tree: Path, tmp_path: Path, name: str) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "resolv.conf").write_text("theirs")
    before = picture(outside)
    if name == "dev":
        (tree / "dev/null").unlink()
    (tree / name).rmdir()
    (tree / name).symlink_to(outside)
    (tree / "etc/resolv.conf").unlink()
    (tree / "etc/resolv.conf").symlink_to(outside / "resolv.conf")
    (tree / "usr/sbin/policy-rc.d").symlink_to(outside / "policy")
    assert inside(tree, f"test -d /{name} && test ! -L /{name} && cat /etc/resolv.conf > /dev/null") == 0
    assert picture(outside) == before
    assert os.readlink(tree / "etc/resolv.conf") == str(outside / "resolv.conf")


def test_what_cannot_be_started_is_named(tree: Path) -> None:
    with pytest.raises(CommandFailed, match="nope cannot be started in the image: No such file"):
        in_private_namespace(lambda: enter(tree, ["nope"], title="x:1"))
    (tree / "usr/bin/sh").unlink()
    with pytest.raises(SourceInvalid, match="no shell"):
        in_private_namespace(lambda: enter(tree, title="x:1"))


def test_nothing_is_mounted_for_anybody_else(tree: Path) -> None:
    before = Path("/proc/self/mountinfo").read_text()
    assert inside(tree, "mount > /dev/null") == 0
    assert Path("/proc/self/mountinfo").read_text() == before
