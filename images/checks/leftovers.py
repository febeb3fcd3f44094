"""What a build, an installation or a long life leaves in a tree and no node needs."""

from __future__ import annotations

import os
import re
import stat

from images.checks.check import Check, finding
from images.checks.subject import Subject
from images.tree import Tree

POLICY = "usr/sbin/policy-rc.d"
DOCKER = (".dockerenv", "run/.containerenv", ".containerenv")
# Lines as apt.conf(5), dnf.conf(5), environment(5) and their like have them.
PROXY = re.compile(
    r"(?i)[^#/]*(?:Acquire::(?:https?|ftp)::proxy|\bproxy[ \t]+\"|_proxy[ \t]*=|^[ \t]*proxy[ \t]*=)[ \t]*\S"
)
PROXIES = ("etc/apt/apt.conf", "etc/dnf/dnf.conf", "etc/yum.conf", "etc/environment", "etc/pip.conf", "root/.curlrc",
           "root/.wgetrc", "root/.config/pip/pip.conf", "etc/zypp/zypp.conf", "etc/sysconfig/proxy")  # fmt: skip
CACHES = ("var/tmp", "root/.cache", "root/.ccache", "root/.npm", "root/.cargo", "root/go", "var/cache/pip", "var/log",
          "var/crash", "usr/src", "var/cache/man", "var/lib/docker", "var/lib/containers", "srv/build")  # fmt: skip
MIN_CACHE = 16 << 20  # bytes worth a word
MAX_COUNTED = 200_000  # files of one such directory
COMPILERS = ("usr/bin/gcc", "usr/bin/cc", "usr/bin/make", "usr/bin/clang", "usr/bin/g++")
CRON = ("var/spool/cron", "var/spool/cron/crontabs", "var/spool/cron/tabs", "var/spool/at")
MIB = 1 << 20


def mended(tree: Tree, subject: Subject) -> list[Check]:
    """What goes: memory dumps; what tells packages that they are in a container or a build and must start nothing."""
    cores = subject.survey.cores
    for path in cores:
        os.unlink(tree.place(path, last=False))
    policy = []
    # Only the plain one that every build tool writes; one that asks something was made by a person.
    if tree.is_file(POLICY) and _words(tree.text(POLICY)) == ["exit 101"]:
        tree.remove(POLICY)
        policy.append(POLICY)
    marks = [path for path in DOCKER if tree.is_file(path) and tree.remove(path)]
    return [
        finding("memory dumps", cores, "removed; they hold whatever the program knew"),
        finding("services held back", policy, "removed; packages could not start their services on a node"),
        finding("marks of a container", marks, "removed; programs would take a node for one"),
    ]


def left(tree: Tree, subject: Subject) -> list[Check]:
    """What is only named: proxies of the build, large caches and logs, compilers, timed jobs, typed commands, and the
    golden client's name in etc/hosts."""
    confs = (f"etc/apt/apt.conf.d/{name}" for name in tree.names("etc/apt/apt.conf.d"))
    proxies = [path for path in (*PROXIES, *confs) if tree.is_file(path) and _proxy(tree.text(path))]
    caches = [f"{path}: {size // MIB} MiB" for path in CACHES if (size := _size(tree, path)) >= MIN_CACHE]
    jobs = [f"{directory}/{name}" for directory in CRON for name in tree.names(directory) if name[0] != "."]
    jobs = [path for path in jobs if tree.is_file(path)]
    return [
        finding("proxies", proxies, "right if nodes have the same; else remove them", "warning"),
        finding("caches and logs", caches, "they go to every node: empty them in the image"),
        finding("compilers", [path for path in COMPILERS if tree.lexists(path)], "right if nodes compile"),
        finding("timed jobs", jobs, "every node does them at the same minute"),
        finding("typed commands", subject.survey.histories, "they may hold passwords: remove them"),
        finding("names of the golden client", _hosts(tree, subject), "it stands in etc/hosts of every node"),
    ]


def _words(script: str) -> list[str]:
    """The lines of a script that do something."""
    return [line.strip() for line in script.split("\n") if line.strip() and not line.lstrip().startswith("#")]


def _proxy(text: str) -> bool:
    return any(PROXY.match(line[:1000]) for line in text.split("\n"))


def _hosts(tree: Tree, subject: Subject) -> list[str]:
    """Lines of etc/hosts with the golden client's name. The node's edit takes the one of 127.0.1.1 away."""
    name = subject.hostname.partition(".")[0]
    rows = [row.split("#")[0].split() for row in tree.text("etc/hosts").split("\n")]
    lines = [words for words in rows if words and words[0] != "127.0.1.1"]
    return [" ".join(words) for words in lines if name and {name, subject.hostname} & set(words[1:])]


def _size(tree: Tree, path: str) -> int:
    """Bytes below a directory, counted over at most MAX_COUNTED entries."""
    if tree.link(path) or not tree.is_dir(path):
        return 0
    total, seen, stack = 0, 0, [tree.place(path)]
    while stack and seen < MAX_COUNTED:
        with os.scandir(stack.pop()) as entries:
            for entry in entries:
                status = entry.stat(follow_symlinks=False)
                seen += 1
                if stat.S_ISDIR(status.st_mode):
                    stack.append(entry.path)
                else:
                    total += min(status.st_size, status.st_blocks * 512)
    return total
