"""Users written into a tree by hand."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from images.errors import RecipeInvalid
from images.sources.accounts import add_users, owner_of
from images.sources.recipetables import User
from images.tree import TreeInvalid
from tests.images.keys import KEY
from tests.images.systems import put

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")

HASH = "$6$saltsalt$" + "x" * 86


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    put(tmp_path, "etc/passwd", "root:x:0:0:root:/root:/bin/bash\nold:x:1000:1000::/home/old:/bin/sh\n")
    put(tmp_path, "etc/shadow", "root:*:19000:0:99999:7:::\nold:!:19000:0:99999:7:::\n", 0o640)
    put(tmp_path, "etc/group", "root:x:0:\nold:x:1000:\nadm:x:4:old\ntaken:x:2000:\nready:x:77:\n")
    put(tmp_path, "etc/gshadow", "root:*::\nadm:*::old\n", 0o640)
    put(tmp_path, "bin/bash", "", 0o755)
    put(tmp_path, "etc/skel/.bashrc", "skel\n")
    put(tmp_path, "etc/skel/bin/tool", "tool\n", 0o755)
    (tmp_path / "etc/skel/link").symlink_to("bin/tool")
    (tmp_path / "etc/sudoers.d").mkdir()
    os.chown(tmp_path / "etc/shadow", 0, 42)
    return tmp_path


def lines(tree: Path, path: str) -> list[str]:
    return (tree / path).read_text().splitlines()


def test_a_user_gets_account_group_home_and_keys(tree: Path) -> None:
    add_users(str(tree), [User("anna", 1500, ("adm",), keys=(KEY, KEY), comment="Anna A.")])
    assert lines(tree, "etc/passwd")[-1] == "anna:x:1500:1500:Anna A.:/home/anna:/bin/bash"
    assert lines(tree, "etc/shadow")[-1] == "anna:*::0:99999:7:::"
    assert "adm:x:4:old,anna" in lines(tree, "etc/group") and lines(tree, "etc/group")[-1] == "anna:x:1500:"
    assert "adm:*::old,anna" in lines(tree, "etc/gshadow") and lines(tree, "etc/gshadow")[-1] == "anna:!::"
    home = tree / "home/anna"
    assert (home / ".bashrc").read_text() == "skel\n" and os.readlink(home / "link") == "bin/tool"
    assert lines(tree, "home/anna/.ssh/authorized_keys") == [KEY]
    modes = {path.name: oct(path.stat().st_mode & 0o777) for path in (home, home / ".ssh", home / "bin/tool")}
    assert modes == {"anna": "0o700", ".ssh": "0o700", "tool": "0o755"}
    for path in (home, home / ".bashrc", home / "link", home / "bin", home / ".ssh/authorized_keys"):
        assert (path.lstat().st_uid, path.lstat().st_gid) == (1500, 1500), path
    assert (tree / "etc/shadow").stat().st_gid == 42 and (tree / "etc/shadow").stat().st_mode & 0o777 == 0o640


def test_numbers_are_the_next_free_ones_and_those_given_come_first(tree: Path) -> None:
    add_users(str(tree), [User("anna"), User("bert", 1001), User("cora", 2000), User("ready")])
    found = {line.split(":")[0]: line.split(":")[2:4] for line in lines(tree, "etc/passwd")}
    assert found["bert"] == ["1001", "1001"] and found["anna"] == ["1003", "1003"], "1002 became cora's group"
    assert found["cora"][0] == "2000" and found["cora"][1] != "2000", "the group of that number is another's"
    assert found["ready"][1] == "77", "a group of that name is the user's"


def test_a_user_the_system_has_gets_keys_password_and_sudo(tree: Path) -> None:
    add_users(str(tree), [User("root", keys=(KEY,), password_hash=HASH), User("old", 1000, ("adm",), sudo=True)])
    assert lines(tree, "etc/shadow")[0] == f"root:{HASH}:19000:0:99999:7:::"
    assert len(lines(tree, "etc/passwd")) == 2 and lines(tree, "root/.ssh/authorized_keys") == [KEY]
    assert lines(tree, "etc/sudoers.d/old") == ["old ALL=(ALL:ALL) NOPASSWD: ALL"]
    assert (tree / "etc/sudoers.d/old").stat().st_mode & 0o777 == 0o440


def test_who_has_a_password_is_asked_for_it(tree: Path) -> None:
    add_users(str(tree), [User("anna", sudo=True, password_hash=HASH)])
    assert lines(tree, "etc/sudoers.d/anna") == ["anna ALL=(ALL:ALL) ALL"]
    assert lines(tree, "etc/shadow")[-1].startswith(f"anna:{HASH}:")


@pytest.mark.parametrize(
    ("user", "message"),
    [
        (User("anna", 1000), "the number 1000 is that of old"),
        (User("old", 1234), "the system has one already, with the number 1000"),
        (User("anna", groups=("wheel",)), "the system has no group wheel"),
        (User("anna", shell="/bin/zsh"), "the system has no /bin/zsh"),
    ],
)
def test_what_the_system_lacks(tree: Path, user: User, message: str) -> None:
    before = (tree / "etc/passwd").read_bytes()
    with pytest.raises(RecipeInvalid, match=message):
        add_users(str(tree), [user])
    assert (tree / "etc/passwd").read_bytes() == before


def test_without_sudo_there_is_no_right(tree: Path) -> None:
    (tree / "etc/sudoers.d").rmdir()
    with pytest.raises(RecipeInvalid, match="the system has no sudo"):
        add_users(str(tree), [User("anna", sudo=True)])


def test_no_link_in_the_tree_leads_out(tree: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    outside = tmp_path_factory.mktemp("outside")
    (tree / "home").symlink_to(outside)
    add_users(str(tree), [User("anna", keys=(KEY,))])
    assert list(outside.iterdir()) == []
    assert (tree / str(outside).lstrip("/") / "anna/.ssh/authorized_keys").is_file()


def test_a_home_that_is_a_file(tree: Path) -> None:
    put(tree, "home/anna", "")
    with pytest.raises(TreeInvalid):
        add_users(str(tree), [User("anna")])


def test_owners_are_looked_up_in_the_tree(tree: Path) -> None:
    assert owner_of(str(tree), "old") == (1000, 1000) and owner_of(str(tree), "old:adm") == (1000, 4)
    assert owner_of(str(tree), "5") == (5, 5) and owner_of(str(tree), "root:7") == (0, 7)
    for owner in ("anna", "old:none"):
        with pytest.raises(RecipeInvalid, match="the system has no"):
            owner_of(str(tree), owner)
