"""Files copied into a tree: where they go, whose they are, and that none goes out."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from images.editing.copyin import copy_in
from images.errors import ImageError, SourceInvalid
from tests.images.systems import debian, picture

pytestmark = [pytest.mark.root, pytest.mark.skipif(os.geteuid() != 0, reason="needs root")]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return debian(tmp_path / "root")


@pytest.fixture
def site(tmp_path: Path) -> Path:
    """A directory to copy: a file with another owner, a link, a directory below lib."""
    site = tmp_path / "site"
    (site / "lib/site").mkdir(parents=True)
    (site / "lib/site/data").write_bytes(b"data" * 700_000)
    (site / "run.sh").write_text("#!/bin/sh\n")
    (site / "run.sh").chmod(0o4750)
    (site / "alias").symlink_to("/etc/outside")
    os.chown(site / "run.sh", 33, 44)
    (site / "run.sh").chmod(0o4750)
    os.setxattr(site / "run.sh", "user.note", b"kept")
    os.utime(site / "run.sh", (10**9, 10**9))
    return site


@pytest.mark.parametrize(
    ("target", "place"),
    [
        ("/etc/run", "etc/run"),
        ("/etc", "etc/run.sh"),
        ("/opt/new/", "opt/new/run.sh"),
        ("/opt/new/name", "opt/new/name"),
        ("/sbin", "usr/sbin/run.sh"),
        ("/../../etc/run", "etc/run"),
    ],
)
def test_a_file_goes_where_cp_would_put_it(root: Path, site: Path, target: str, place: str) -> None:
    assert copy_in(root, site / "run.sh", target) == 1
    made = (root / place).lstat()
    assert (made.st_uid, made.st_gid, stat.S_IMODE(made.st_mode), made.st_mtime) == (0, 0, 0o4750, 10**9)
    assert (root / place).read_text() == "#!/bin/sh\n" and os.listxattr(root / place) == []


def test_a_directory_joins_the_one_that_is_there(root: Path, site: Path) -> None:
    (root / "usr/lib").chmod(0o700)
    assert copy_in(root, site, "/") == 5
    assert (root / "lib").is_symlink() and stat.S_IMODE((root / "usr/lib").stat().st_mode) == 0o700
    assert (root / "usr/lib/site/data").read_bytes() == b"data" * 700_000
    assert os.readlink(root / "alias") == "/etc/outside" and (root / "usr/lib/systemd/systemd").exists()


def test_owners_and_attributes_are_kept_on_request(root: Path, site: Path) -> None:
    copy_in(root, site, "/srv/site", preserve=True)
    made = (root / "srv/site/run.sh").lstat()
    assert (made.st_uid, made.st_gid, stat.S_IMODE(made.st_mode)) == (33, 44, 0o4750)
    assert os.getxattr(root / "srv/site/run.sh", "user.note") == b"kept"


def test_nothing_goes_out_through_a_link(root: Path, site: Path, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "victim").write_text("theirs")
    before = picture(outside)
    (root / "opt").symlink_to(outside)
    (root / "srv").symlink_to("../" * 20 + str(outside).lstrip("/"))
    (root / "etc/run").symlink_to(outside / "victim")
    copy_in(root, site / "run.sh", "/opt/victim")
    copy_in(root, site, "/srv")
    copy_in(root, site / "run.sh", "/etc/run")
    assert picture(outside) == before
    assert not (root / "etc/run").is_symlink() and (root / "etc/run").read_text() == "#!/bin/sh\n"


def test_what_is_no_file_is_refused(root: Path, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(SourceInvalid, match="neither a file"):
        copy_in(root, tmp_path / "pipe", "/etc/pipe")
    with pytest.raises(ImageError, match=r"copying .*none into the image: No such file"):
        copy_in(root, tmp_path / "none", "/etc/x")
    (tmp_path / "file").touch()
    with pytest.raises(ImageError, match="no directory"):
        copy_in(root, tmp_path / "file", "/etc/hostname/x")


def test_progress_is_told_and_may_stop_it(root: Path, site: Path) -> None:
    seen: list[int] = []

    def stop(count: int) -> None:
        seen.append(count)
        if count == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        copy_in(root, site, "/srv", on_entry=stop)
    assert seen == [1, 2, 3]
