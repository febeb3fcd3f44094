"""Users of a recipe, written into a tree by hand: useradd would be another program in every family, and dates what it
writes by the day. What stands where: passwd(5), shadow(5), group(5), gshadow(5).
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable, Sequence

from images.errors import RecipeInvalid
from images.sources.recipetables import NOBODY, User
from images.tree import Tree

FIRST_ID, LAST_ID = 1000, 59999  # UID_MIN of login.defs(5), and the last of Debian policy 9.2.2's dynamic range
SHELL = "/bin/bash"
MAX_SKEL = 1000  # entries of /etc/skel
KEYS = ".ssh/authorized_keys"


def add_users(root: str, users: Sequence[User], keys: Sequence[str] = ()) -> None:
    """Put users into the tree at `root`: account, group of their own, memberships, home with what /etc/skel holds, ssh
    keys, sudo without a password unless they have one. `keys` are root's. A user the system has already (root, say)
    keeps id, home and shell and gets the rest. Needs root.
    Raises RecipeInvalid for an id in use, a group, shell or sudo that the system lacks; TreeInvalid, OSError."""
    tree = Tree(root)
    if users:
        _accounts(tree, users)
    if keys:
        _write_keys(tree, "/root", keys, 0, 0)


def owner_of(root: str, owner: str) -> tuple[int, int]:
    """The numbers of "user", "user:group" or numbers in the tree. Raises RecipeInvalid if it has no such user."""
    tree = Tree(root)
    user, _, group = owner.partition(":")
    account = next((line for line in _lines(tree, "etc/passwd") if line[0] == user and len(line) > 3), None)
    if account is None and not user.isdecimal():
        raise RecipeInvalid(
            f"recipe: owner {owner!r}: the system has no user {user}", "users come from packages or users"
        )
    uid, gid = (int(account[2]), int(account[3])) if account else (int(user), int(user))
    if group:
        found = next((line for line in _lines(tree, "etc/group") if line[0] == group and len(line) > 2), None)
        if found is None and not group.isdecimal():
            raise RecipeInvalid(f"recipe: owner {owner!r}: the system has no group {group}")
        gid = int(found[2]) if found else int(group)
    return uid, gid


def _accounts(tree: Tree, users: Sequence[User]) -> None:
    passwd, shadow = _lines(tree, "etc/passwd"), _lines(tree, "etc/shadow")
    group, gshadow = _lines(tree, "etc/group"), _lines(tree, "etc/gshadow")
    made = []
    # Those with a number first, so that none of them finds it given to another.
    for user in sorted(users, key=lambda user: user.uid is None):
        old = next((line for line in passwd if line[0] == user.name), None)
        if old is not None:
            if len(old) != 7 or user.uid not in (None, int(old[2])):
                raise RecipeInvalid(f"user {user.name}: the system has one already, with the number {old[2]}")
            home = old[5]
            if user.password_hash:
                shadow = [_with_hash(line, user) if line[0] == user.name else line for line in shadow]
            uid, gid = int(old[2]), int(old[3])
        else:
            uid, gid = _ids(user, passwd, group)
            home, shell = user.home or f"/home/{user.name}", user.shell or SHELL
            if not tree.is_file(shell):
                raise RecipeInvalid(f"user {user.name}: the system has no {shell}", "add its package, or another shell")
            passwd.append([user.name, "x", str(uid), str(gid), user.comment, home, shell])
            # "*" and not "!": to sshd without PAM the latter is a locked account, which no key opens. No date of the
            # last change: it would be the only thing that differs between two builds.
            shadow.append([user.name, user.password_hash or "*", "", "0", "99999", "7", "", "", ""])
            if not any(line[0] == user.name for line in group):
                group.append([user.name, "x", str(gid), ""])
                gshadow.append([user.name, "!", "", ""])
        for name in user.groups:
            _join(user.name, name, group, gshadow)
        if user.sudo:
            _sudo(tree, user)
        made.append((user, uid, gid, home, old is None))
    tree.write("etc/passwd", _text(passwd), 0o644)
    tree.write("etc/group", _text(group), 0o644)
    tree.write("etc/shadow", _text(shadow))
    if tree.is_file("etc/gshadow"):
        tree.write("etc/gshadow", _text(gshadow))
    for user, uid, gid, home, new in made:
        if new:
            _home(tree, home, uid, gid)
        if user.keys:
            _write_keys(tree, home, user.keys, uid, gid)


def _ids(user: User, passwd: list[list[str]], group: list[list[str]]) -> tuple[int, int]:
    """User and group number: the same one where it is free. Raises RecipeInvalid if the number wanted is in use."""
    uids, gids = _numbers(passwd), _numbers(group)
    own = next((int(line[2]) for line in group if line[0] == user.name), None)
    uid = user.uid
    if uid is None:
        uid = next((n for n in range(FIRST_ID, LAST_ID + 1) if n not in uids and n not in gids), None)
        if uid is None:
            raise RecipeInvalid(f"user {user.name}: no number of a user is free")
    if uid in uids or uid in NOBODY:
        holder = next((line[0] for line in passwd if line[2:3] == [str(uid)]), "nobody")
        raise RecipeInvalid(f"user {user.name}: the number {uid} is that of {holder}", "choose another uid")
    if own is not None:
        return uid, own
    return uid, uid if uid not in gids else next(n for n in range(FIRST_ID, 2**31) if n not in gids)


def _join(user: str, name: str, group: list[list[str]], gshadow: list[list[str]]) -> None:
    found = next((line for line in group if line[0] == name and len(line) == 4), None)
    if found is None:
        raise RecipeInvalid(
            f"user {user}: the system has no group {name}", "its package brings it, or a script makes it"
        )
    for line in (found, *(line for line in gshadow if line[0] == name and len(line) == 4)):
        members = [member for member in line[3].split(",") if member]
        line[3] = ",".join([*members, user] if user not in members else members)


def _sudo(tree: Tree, user: User) -> None:
    if not tree.is_dir("etc/sudoers.d"):
        raise RecipeInvalid(f"user {user.name}: the system has no sudo", 'packages = ["sudo"]')
    asked = "" if user.password_hash else "NOPASSWD: "
    # sudoers(5) passes over files with a dot in their name; user names have none.
    tree.write(f"etc/sudoers.d/{user.name}", f"{user.name} ALL=(ALL:ALL) {asked}ALL\n", 0o440)


def _home(tree: Tree, home: str, uid: int, gid: int) -> None:
    """The home directory with a copy of /etc/skel; one that is there already is only given to its user."""
    tree.make_dir(os.path.dirname(home))
    tree.make_dir(home, 0o700)
    skel, given = tree.place("etc/skel"), [home]
    count = 0
    for folder, names, files in os.walk(skel):
        below = os.path.relpath(folder, skel)
        for name in sorted((*names, *files)):
            count += 1
            if count > MAX_SKEL:
                raise RecipeInvalid(f"/etc/skel of the system holds more than {MAX_SKEL} entries")
            path, place = os.path.join(folder, name), os.path.normpath(f"{home}/{below}/{name}")
            status = os.lstat(path)
            if stat.S_ISLNK(status.st_mode):
                tree.make_link(place, os.readlink(path))
            elif stat.S_ISDIR(status.st_mode):
                tree.make_dir(place, stat.S_IMODE(status.st_mode))
            elif stat.S_ISREG(status.st_mode):
                tree.write(place, tree.read(os.path.relpath(path, tree.root)), stat.S_IMODE(status.st_mode))
            given.append(place)
    _give(tree, given, uid, gid)


def _write_keys(tree: Tree, home: str, keys: Sequence[str], uid: int, gid: int) -> None:
    tree.make_dir(home, 0o700)
    tree.make_dir(f"{home}/.ssh", 0o700)
    # Without the marks of who owns them sshd refuses the keys (StrictModes of sshd_config(5)).
    tree.write(f"{home}/{KEYS}", "".join(f"{key}\n" for key in dict.fromkeys(keys)), 0o600)
    _give(tree, [f"{home}/.ssh", f"{home}/{KEYS}"], uid, gid)


def _give(tree: Tree, paths: Iterable[str], uid: int, gid: int) -> None:
    for path in paths:
        os.chown(tree.place(path, last=False), uid, gid, follow_symlinks=False)


def _with_hash(line: list[str], user: User) -> list[str]:
    return [line[0], user.password_hash, *line[2:]]


def _lines(tree: Tree, path: str) -> list[list[str]]:
    return [line.split(":") for line in tree.text(path).splitlines() if line.strip()]


def _numbers(lines: list[list[str]]) -> set[int]:
    return {int(line[2]) for line in lines if len(line) > 2 and line[2].isdecimal()}


def _text(lines: list[list[str]]) -> str:
    return "".join(":".join(line) + "\n" for line in lines)
