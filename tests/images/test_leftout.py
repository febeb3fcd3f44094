"""What is taken of a running system: real mount tables, and wishes that fit them or do not."""

from __future__ import annotations

import ctypes

import pytest
from hypothesis import given
from hypothesis import strategies as st

from images.errors import SourceInvalid
from images.sources.leftout import (
    MAX_MOUNTS,
    RULES,
    Selection,
    Wishes,
    check_wishes,
    escape,
    read_mounts,
    select,
    unescape,
)


def lines(*mounts: str) -> list[str]:
    """mountinfo from "point type [root [options]]"."""
    made = []
    for number, text in enumerate(mounts):
        point, fs, root, options = [*text.split(" "), "/", "rw"][:4] if len(text.split(" ")) < 4 else text.split(" ")
        made.append(f"{number + 20} 1 8:{number} {root} {point} rw,relatime shared:1 - {fs} /dev/x{number} {options}")
    return made


def chosen(*mounts: str, wishes: Wishes | None = None, running: tuple[str, ...] = ()) -> Selection:
    return select(read_mounts(lines("/ ext4", *mounts)), [], running, wishes or Wishes())


def why(selection: Selection, pattern: str) -> str:
    return next((left.reason for left in selection.left if left.pattern == pattern), "")


# Ubuntu 22.04 server with LVM, snaps, docker, an NFS home and a data disk, as its mountinfo shows it.
SERVER = (
    "/sys sysfs", "/proc proc", "/dev devtmpfs", "/dev/pts devpts", "/run tmpfs", "/sys/fs/cgroup cgroup2",
    "/proc/sys/fs/binfmt_misc autofs", "/boot ext4", "/boot/efi vfat", "/var ext4", "/var/log ext4", "/home nfs4",
    "/snap/core20/1974 squashfs", "/srv xfs", "/data xfs", "/mnt/share cifs", "/net autofs",
    "/var/lib/docker/overlay2/3c/merged overlay", "/run/user/1000 tmpfs", "/home/ann/.gvfs fuse.gvfsd-fuse",
    "/run/netns nsfs", "/export ext4 /srv/export", "/var/snap/lxd/common/ns tmpfs",
)  # fmt: skip


def test_a_server_with_a_bit_of_everything() -> None:
    selection = chosen(*SERVER)
    assert selection.taken == ("/", "/boot", "/srv", "/var", "/var/log") and selection.warnings == ()
    assert selection.points == ("/home", "/mnt/share", "/net")
    # Not even the name of these is looked at; of the others the mount point stays, and stays empty.
    assert {left.pattern for left in selection.left} > {"/home", "/mnt/share", "/net", "/data/*", "/boot/efi/*"}
    assert "EFI" in why(selection, "/boot/efi/*") and "--with" in why(selection, "/data/*")
    assert "network" in why(selection, "/home") and "bind" in why(selection, "/export/*")
    # What lies below something that is left out needs no pattern: a container host has thousands.
    assert not [left for left in selection.left if "overlay2" in left.pattern or "gvfs" in left.pattern]
    assert len({left.pattern for left in selection.left}) == len(selection.left)


def test_subvolumes_of_btrfs_are_filesystems_and_directories_of_them_are_not() -> None:
    selection = select(
        read_mounts(
            lines(
                "/ btrfs /@ rw,subvolid=256,subvol=/@",
                "/var btrfs /@var rw,subvol=/@var",
                "/usr/local btrfs /@usr rw,subvol=/@usr",
                "/home btrfs /@home rw,subvol=/@home",
                "/.snapshots btrfs /@snapshots rw,subvol=/@snapshots",
                "/import btrfs /@home/files rw,subvol=/@home",
            )
        ),
        [], [], Wishes(),
    )  # fmt: skip
    assert selection.taken == ("/", "/usr/local", "/var")
    assert "bind" in why(selection, "/import/*") and "--with" in why(selection, "/home/*")
    assert why(selection, "/.snapshots/*")


@pytest.mark.parametrize(
    ("mounts", "wishes", "taken"),
    [
        (("/home xfs",), Wishes(include=("/home",)), ("/", "/home")),
        (("/home nfs",), Wishes(include=("/home/",)), ("/", "/home")),
        (("/home xfs", "/var xfs"), Wishes(one_file_system=True), ("/",)),
        (("/home xfs", "/var xfs"), Wishes(one_file_system=True, include=("/home",)), ("/", "/home")),
        (("/boot vfat",), Wishes(), ("/", "/boot")),
        (("/efi vfat", "/data vfat"), Wishes(), ("/",)),
        (("/var/lib/docker xfs",), Wishes(), ("/",)),
        (("/var/lib/docker xfs",), Wishes(include=("/var/lib/docker",)), ("/", "/var/lib/docker")),
        (("/usr/share xfs", "/var/lib/mysql xfs"), Wishes(), ("/", "/usr/share")),
        (("/var xfs", "/var tmpfs"), Wishes(), ("/",)),
    ],
)
def test_which_filesystems_are_taken(mounts: tuple[str, ...], wishes: Wishes, taken: tuple[str, ...]) -> None:
    assert chosen(*mounts, wishes=wishes).taken == taken


def test_a_place_that_is_left_out_by_itself_can_be_had() -> None:
    selection = chosen(wishes=Wishes(include=("/var/lib/containers/storage", "/root/.cache")))
    patterns = {left.pattern for left in selection.left}
    assert "/var/lib/containers/storage/*" not in patterns and "/root/.cache/*" not in patterns
    assert "/var/lib/docker/*" in patterns


def test_wishes_and_the_heads_own_places_are_left_out() -> None:
    selection = chosen(wishes=Wishes(exclude=("/srv/big/", "/home/*/tmp"), own=("/data/g*ld",)))
    assert why(selection, "/srv/big") == why(selection, "/home/*/tmp") == "asked for"
    assert why(selection, r"/data/g\*ld/*") and why(selection, "/var/lib/gild/*")


def test_swap_files_that_are_in_use_are_left_out() -> None:
    swaps = [
        "Filename\t\t\t\tType\t\tSize\t\tUsed\t\tPriority",
        "/dev/dm-1                               partition\t999420\t\t0\t\t-2",
        "/big\\040swap                           file\t\t1048572\t\t0\t\t-3",
    ]
    patterns = [left.pattern for left in select(read_mounts(lines("/ ext4")), swaps, [], Wishes()).left]
    assert "/big swap" in patterns and not any("dm-1" in pattern for pattern in patterns)


@pytest.mark.parametrize(
    ("mounts", "running", "word"),
    [
        (("/boot vfat",), (), "owners and modes"),
        (("/usr/share vfat",), (), "/usr/share is left out"),
        (("/var tmpfs",), (), "/var is left out"),
        ((), ("bash", "mysqld"), "mysqld runs"),
        ((), ("postgres", "slapd"), "slapd runs"),
        (("/ overlay",), (), "overlay"),
        (("/ tmpfs",), (), "live medium"),
        (("/ ext4 /ostree/deploy/fedora/1",), (), "ostree"),
    ],
)
def test_what_one_should_know(mounts: tuple[str, ...], running: tuple[str, ...], word: str) -> None:
    assert word in " ".join(chosen(*mounts, running=running).warnings)


@pytest.mark.parametrize(
    ("wishes", "word"),
    [
        (Wishes(include=("/nothing",)), "no filesystem mounted there"),
        (Wishes(include=("/run",)), "in memory"),
        (Wishes(include=("/proc",)), "no filesystem mounted there"),
        (Wishes(include=("/run/media/disk",)), "which is left out"),
        (Wishes(exclude=("relative",)), "not a path"),
        (Wishes(exclude=("/a/../b",)), "not a path"),
        (Wishes(exclude=("/new\nline",)), "not a path"),
        (Wishes(exclude=("//",)), "all of the system"),
        (Wishes(exclude=("/x",) * 201), "more than 200"),
    ],
)
def test_wishes_that_cannot_be(wishes: Wishes, word: str) -> None:
    with pytest.raises(SourceInvalid, match=word):
        chosen("/run tmpfs", "/run/media/disk ext4", wishes=wishes)


def test_a_wish_for_nothing_names_what_there_is() -> None:
    with pytest.raises(SourceInvalid) as caught:
        chosen("/data xfs", wishes=Wishes(include=("/dota",)))
    assert "/data" in caught.value.hint


def test_below_another_root_only_what_is_mounted_there_counts() -> None:
    found = read_mounts(lines("/ ext4", "/mnt/sys ext4", "/mnt/sys/boot ext4", "/mnt/system ext4"), "/mnt/sys")
    assert [mount.point for mount in found] == ["/", "/boot"]


def test_too_many_mounts_are_refused() -> None:
    with pytest.raises(SourceInvalid, match="more than"):
        read_mounts(["x"] * (MAX_MOUNTS + 1))
    with pytest.raises(SourceInvalid, match="so many mounts"):
        chosen(*(f"/data/{number} xfs" for number in range(1500)))


def test_names_with_blanks_and_wildcards_stand_for_themselves() -> None:
    assert unescape(r"/a\040b\134c\011") == "/a b\\c\t"
    selection = chosen(r"/mnt/st*r\040[1] xfs")
    assert why(selection, r"/mnt/st\*r \[1]/*")


def test_every_rule_is_a_path_with_a_reason() -> None:
    for rule in RULES:
        check_wishes(Wishes(exclude=(rule.pattern,)))
        assert rule.reason and rule.pattern not in ("/*", "/usr/*", "/etc/*")


@given(st.text(st.characters(codec="ascii", exclude_characters="\0"), min_size=1, max_size=20), st.integers(0, 19))
def test_an_escaped_path_matches_itself_alone(path: str, at: int) -> None:
    fnmatch = ctypes.CDLL(None).fnmatch  # what GNU tar decides by
    assert fnmatch(escape(path).encode(), path.encode(), 0) == 0
    other = path[: at % len(path)] + "q" + path[at % len(path) :]
    assert fnmatch(escape(path).encode(), other.encode(), 0) != 0


@given(st.lists(st.text(max_size=80), max_size=20))
def test_any_lines_are_read_or_skipped(noise: list[str]) -> None:
    for mount in read_mounts([*noise, *lines("/ ext4")]):
        assert mount.point
    select(read_mounts(lines("/ ext4")), noise, noise, Wishes())
