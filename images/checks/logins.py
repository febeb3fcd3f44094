"""Secrets that would go to every node, and who could log in there. Names only: no check ever repeats a secret."""

from __future__ import annotations

import re

from images.checks import advice
from images.checks.check import Check, finding
from images.checks.subject import Subject
from images.tree import Tree

LOCKED = ("*", "!")  # what a field of shadow(5) starts with when no password fits
KEYS = (".ssh/authorized_keys", ".ssh/authorized_keys2")
CONNECTIONS = "etc/NetworkManager/system-connections"
_SECRET = re.compile(r"(?m)^[ \t]*(?:psk|password|private-key-password|wep-key\d|secret)[ \t]*=[ \t]*\S")


def secrets(tree: Tree, subject: Subject) -> list[Check]:
    """Private keys and credentials of persons and services."""
    wireless = [
        f"{CONNECTIONS}/{name}"
        for name in tree.names(CONNECTIONS)
        if tree.is_file(f"{CONNECTIONS}/{name}") and _SECRET.search(tree.text(f"{CONNECTIONS}/{name}"))
    ]
    munge = [path for path in ("etc/munge/munge.key", "etc/krb5.keytab") if tree.is_file(path)]
    return [
        finding(
            "private keys",
            subject.survey.keys,
            "every node, and everybody who can fetch the image, would have them: remove them",
            "warning",
        ),
        finding(
            "credentials",
            [*subject.survey.credentials, *wireless],
            "every node, and everybody who can fetch the image, would have them: remove them",
            "warning",
        ),
        finding(
            "keys of services",
            munge,
            "the same on every node; a keytab belongs to one host: put it there by the edit files of a profile",
        ),
    ]


def passwords(tree: Tree, subject: Subject) -> list[Check]:
    """Accounts that need no password, or all share one. Only etc/shadow counts where it is (shadow(5))."""
    rows = [row.split(":") for row in tree.text("etc/shadow").split("\n") if row.count(":") >= 7]
    shells = _shells(tree)
    empty = [words[0] for words in rows if words[1] == "" and shells.get(words[0], True)]
    given = [words[0] for words in rows if words[1] and words[1][0] not in LOCKED]
    root = [name for name in given if name == "root"]
    return [
        finding(
            "accounts without a password",
            empty,
            f"whoever reaches a console is in: {advice.edit('passwd -l ' + (_word(empty[0]) if empty else 'NAME'))}",
            "warning",
        ),
        finding("password of root", root, f"the same on every node: {advice.edit('passwd -l root')}", "warning"),
        finding("accounts with a password", [name for name in given if name != "root"], "the same on every node"),
    ]


def doors(tree: Tree, subject: Subject) -> list[Check]:
    """Whose keys open every node, who becomes root without a password, and whether anybody can log in at all."""
    found, total = [], 0
    for home in ("root", *(f"home/{name}" for name in tree.names("home"))):
        for name in KEYS:
            path = f"{home}/{name}"
            lines = tree.text(path).split("\n") if tree.is_file(path) else []
            count = sum(1 for line in lines if line.strip() and not line.lstrip().startswith("#"))
            total += count
            if count:
                found.append(f"{path}: {count} {'key' if count == 1 else 'keys'}")
    sudo = [path for path in ("etc/sudoers", *(f"etc/sudoers.d/{name}" for name in tree.names("etc/sudoers.d")))
            if tree.is_file(path) and re.search(r"(?m)^[^#\n]*NOPASSWD:", tree.text(path))]  # fmt: skip
    rows = [row.split(":") for row in tree.text("etc/shadow").split("\n") if row.count(":") >= 7]
    nobody = bool(rows) and not total and all(words[1][:1] in LOCKED for words in rows)
    return [
        finding("keys that open every node", found, "right if they are those of your administrators"),
        finding("root without a password", sudo, "right if you put it there"),
        finding(
            "nobody can log in",
            ["every account is locked and no key is there"] if nobody else [],
            "give your key by the edit files of a profile (/root/.ssh/authorized_keys), or in the recipe",
        ),
    ]


def _shells(tree: Tree) -> dict[str, bool]:
    """Account -> whether its shell lets anybody in."""
    rows = [row.split(":") for row in tree.text("etc/passwd").split("\n") if row.count(":") >= 6]
    return {words[0]: not words[6].endswith(("nologin", "false", "sync", "halt", "shutdown")) for words in rows}


def _word(name: str) -> str:
    return name if re.fullmatch(r"[a-z_][a-z0-9_.-]*", name) else "NAME"
