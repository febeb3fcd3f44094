"""The one walk through a tree that all checks share: whatever can lie anywhere is noted on the way."""

from __future__ import annotations

import os
import stat
from dataclasses import dataclass, field

from images.tree import Tree

MAX_NOTED = 1000  # of one kind
MAX_DEPTH = 512  # of nested directories, as in images.treesync
# What of one person lies in home directories, by the name of the file: kind -> names.
KINDS = {
    "keys": ("id_rsa", "id_dsa", "id_ecdsa", "id_ed25519", "id_ecdsa_sk", "id_ed25519_sk", "identity"),
    "credentials": (".netrc", ".git-credentials", ".pgpass", ".my.cnf", ".pypirc", ".npmrc", ".vault-token",
                    ".docker/config.json", ".aws/credentials", ".kube/config", ".config/gh/hosts.yml",
                    ".config/gcloud/credentials.db", ".config/rclone/rclone.conf", ".azure/msal_token_cache.json"),
    "histories": (".bash_history", ".zsh_history", ".sh_history", ".ash_history", ".python_history", ".mysql_history",
                  ".psql_history", ".lesshst", ".viminfo", ".wget-hsts", ".node_repl_history"),
}  # fmt: skip
LAST = {path.rpartition("/")[2]: (kind, path) for kind, paths in KINDS.items() for path in paths}
# Nothing a person left lies below these, and half of all files do.
SYSTEM = ("usr", "lib", "lib64", "bin", "sbin")
ELF_CORE = 4  # e_type of a memory dump (elf(5), ET_CORE)


@dataclass(slots=True)
class Survey:
    """Paths found, relative to the tree: `future` later than the moment given, `cores` memory dumps, the others as in
    KINDS; `entries` is how many files, directories and links there are."""

    entries: int = 0
    future: list[str] = field(default_factory=list)
    cores: list[str] = field(default_factory=list)
    keys: list[str] = field(default_factory=list)
    credentials: list[str] = field(default_factory=list)
    histories: list[str] = field(default_factory=list)


def survey(tree: Tree, latest: float) -> Survey:
    """Walk the tree once; `latest` is in seconds since 1970. No link is followed. Measured: 0.05 s of processor time
    for 7,800 entries. Raises OSError."""
    found = Survey()
    stack: list[tuple[str, str, int]] = [(tree.root, "", 0)]
    while stack:
        place, prefix, depth = stack.pop()
        of_system = prefix.startswith(tuple(f"{name}/" for name in SYSTEM))
        with os.scandir(place) as entries:
            for entry in entries:
                status = entry.stat(follow_symlinks=False)
                found.entries += 1
                if status.st_mtime > latest:
                    _note(found.future, prefix + entry.name)
                if stat.S_ISDIR(status.st_mode):
                    if depth < MAX_DEPTH:
                        stack.append((entry.path, f"{prefix}{entry.name}/", depth + 1))
                elif stat.S_ISREG(status.st_mode) and not of_system:
                    _look(found, entry, prefix, status.st_size)
    for paths in (found.future, found.cores, found.keys, found.credentials, found.histories):
        paths.sort()
    return found


def _look(found: Survey, entry: os.DirEntry[str], prefix: str, size: int) -> None:
    name = entry.name
    if name in LAST and size:
        kind, path = LAST[name]
        if f"/{prefix}{name}".endswith(f"/{path}"):
            _note(getattr(found, kind), prefix + name)
    elif (name.startswith("core") or name.endswith(".core")) and size >= 18 and _is_core(entry.path):
        _note(found.cores, prefix + name)


def _note(paths: list[str], path: str) -> None:
    if len(paths) < MAX_NOTED:
        paths.append(path)


def _is_core(path: str) -> bool:
    with open(path, "rb") as file:
        head = file.read(18)
    return head[:4] == b"\x7fELF" and head[16:18] == bytes([ELF_CORE, 0])
