"""SSH host keys: made by the head, the same ones after every reinstallation."""

from __future__ import annotations

import re
from typing import Any

from images.edits import option
from images.tree import Tree

OPTIONS = {"keys": "object: file name in etc/ssh -> content"}
MAX_KEY = 64 * 1024  # characters of one file
_FILE = re.compile(r"ssh_host_(?:rsa|dsa|ecdsa|ed25519)_key(?:\.pub)?")


def apply(root: str, options: dict[str, Any]) -> list[str]:
    """Write the keys of `keys` into etc/ssh and remove all other host keys. Private ones get mode 0600, which every
    sshd takes (Debian 12 and earlier make no keys at boot by themselves); where there is a group ssh_keys (EL 7 to 9),
    which ssh-keysign runs as, they get 0640 and that group. Without keys, or in a tree without etc/ssh, nothing is
    done. Raises OptionInvalid, TreeInvalid."""
    keys = options.get("keys", {})
    if not isinstance(keys, dict):
        raise option.OptionInvalid("edit host_keys: keys is not an object")
    for name, content in keys.items():
        if not _FILE.fullmatch(str(name)) or not isinstance(content, str) or not 0 < len(content) <= MAX_KEY:
            raise option.OptionInvalid(f"edit host_keys: {str(name)[:60]!r} is not a host key's file")
        start = "-----BEGIN " if not name.endswith(".pub") else ("ssh-", "ecdsa-")
        if not content.startswith(start):
            raise option.OptionInvalid(f"edit host_keys: the content of {name} is not a key")
    tree = Tree(root)
    if not keys:
        return []
    if not tree.is_dir("etc/ssh"):
        return ["no etc/ssh: the image has no SSH server, its host keys are left out"]
    for name in tree.names("etc/ssh", "ssh_host_*"):
        if _FILE.fullmatch(name) and name not in keys:
            tree.remove(f"etc/ssh/{name}")
    signers = re.search(r"(?m)^ssh_keys:[^:\n]*:([0-9]{1,9}):", tree.text("etc/group"))
    private = (0o640, int(signers[1])) if signers else (0o600, 0)
    changed = []
    for name, content in sorted(keys.items()):
        mode, group = (0o644, 0) if name.endswith(".pub") else private
        if tree.write(f"etc/ssh/{name}", content, mode, group=group):
            changed.append(name)
    # cloud-init takes every new machine-id for a new instance and deletes the keys of the old one (ssh_deletekeys).
    if tree.is_dir("etc/cloud/cloud.cfg.d"):
        tree.write("etc/cloud/cloud.cfg.d/99-gild-keys.cfg", "ssh_deletekeys: false\n", 0o644)
    return [f"{len(changed)} files of SSH host keys"] if changed else []
