"""The tables inside a recipe: files, scripts, users, repositories, a layout. Each is read and checked on its own."""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

from images.errors import RecipeInvalid
from images.sources.recipelines import Where

OWNER = re.compile(r"[a-z0-9_][a-z0-9_.-]*(?::[a-z0-9_][a-z0-9_.-]*)?")
# useradd(8): begins with a letter or underscore; at most 32 characters, which is what utmp(5) has room for.
USER = re.compile(r"[a-z_][a-z0-9_-]{0,31}")
# crypt(5): the methods that shadow-utils and libxcrypt still call fit for new passwords; no DES, MD5 or plain text.
HASH = re.compile(r"\$(?:y|gy|7|2[aby]|6|5)\$[./A-Za-z0-9$=,]{10,500}")
KEY_TYPES = "ssh-ed25519|ssh-rsa|ecdsa-sha2-nistp(?:256|384|521)|sk-(?:ssh-ed25519|ecdsa-sha2-nistp256)@openssh.com"
PUBLIC_KEY = re.compile(rf"(?:[^\s#][^\n]* )?({KEY_TYPES}) ([A-Za-z0-9+/]+={{0,2}})(?: [^\n]*)?")
NOBODY = (65534, 65535)  # the overflow ids of the kernel (Documentation/admin-guide/sysctl/kernel.rst) and "none"
MAX_ID = 2**31 - 1
SCRIPT_LIMIT = 3600  # seconds
MAX_SCRIPT_LIMIT = 24 * 3600
SIZE = re.compile(r"[0-9]{1,15} ?(?:[KMGT]i?B|B)?|ram|rest")
MOUNT = re.compile(r"swap|/|(/[A-Za-z0-9_][A-Za-z0-9._-]*){1,8}")
FILE_KEYS = ("content", "source", "mode", "owner")
USER_KEYS = ("name", "uid", "groups", "shell", "home", "comment", "keys", "password_hash", "sudo")
REPO_KEYS = ("url", "key", "unsigned")
PART_KEYS = ("name", "size", "kind", "fs", "mount", "label")
KINDS = ("bios", "esp", "linux", "swap", "home", "data")
FILESYSTEMS = ("ext4", "xfs", "btrfs", "vfat", "swap")


@dataclass(frozen=True, slots=True)
class RecipeFile:
    """One file of a recipe: either its content or the file it is copied from; `template`: ${names} are put in."""

    path: str
    content: str | None
    source: str
    mode: int
    owner: str
    template: bool = False


@dataclass(frozen=True, slots=True)
class Script:
    """A script of a recipe: its text, or the file that holds it; `limit` is in seconds."""

    text: str = ""
    file: str = ""
    limit: int = SCRIPT_LIMIT


@dataclass(frozen=True, slots=True)
class User:
    """An account of every node. `uid` None: the next free one; `home` and `shell` empty: as the system has it."""

    name: str
    uid: int | None = None
    groups: tuple[str, ...] = ()
    shell: str = ""
    home: str = ""
    comment: str = ""
    keys: tuple[str, ...] = ()
    password_hash: str = ""
    sudo: bool = False


@dataclass(frozen=True, slots=True)
class Repo:
    """A repository of RPM packages; `key` is the file or URL of the key it is signed with, empty if it is not."""

    name: str
    url: str
    key: str = ""


def file_of(where: Where, path: str, value: Any, *, template: bool = False) -> RecipeFile:
    """One entry of `files` or `templates`. Raises RecipeInvalid."""
    at = f"{where.key(path)}: file {path!r}"
    if not path.startswith("/") or path.endswith("/") or ".." in path.split("/") or "\0" in path or "\n" in path:
        raise RecipeInvalid(f"{at}: the path must be absolute and without '..'")
    if not isinstance(value, dict):
        raise RecipeInvalid(f"{at}: must be a table", '{ content = "...", mode = "0644" }')
    _known(where, value, FILE_KEYS, f"file {path!r}")
    content, source, owner, mode = (value.get(key) for key in ("content", "source", "owner", "mode"))
    if (content is None) == (source is None):
        raise RecipeInvalid(f"{at}: needs either content or source")
    if not isinstance(content if source is None else source, str):
        raise RecipeInvalid(f"{at}: content and source are texts")
    owner = "root:root" if owner is None else owner
    if not isinstance(owner, str) or not OWNER.fullmatch(owner):
        raise RecipeInvalid(f"{at}: owner {owner!r} is not user or user:group")
    mode = "0644" if mode is None else mode
    if not isinstance(mode, str) or not re.fullmatch(r"[0-7]{3,4}", mode):
        raise RecipeInvalid(f"{at}: mode {mode!r} is not octal digits in quotes", 'mode = "0755"')
    return RecipeFile(path, content, source or "", int(mode, 8), owner, template)


def script_of(where: Where, value: Any) -> Script:
    """One entry of `scripts`: shell text, or { text | file, limit }. Raises RecipeInvalid."""
    if isinstance(value, str) and value.strip() and "\0" not in value:
        return Script(value)
    at = where.key("scripts")
    if isinstance(value, dict) and set(value) <= {"text", "file", "limit"} and ("text" in value) != ("file" in value):
        text, file, limit = value.get("text", ""), value.get("file", ""), value.get("limit", SCRIPT_LIMIT)
        if type(limit) is not int or not 0 < limit <= MAX_SCRIPT_LIMIT:
            raise RecipeInvalid(f"{at}: scripts: limit {limit!r} is not 1 to {MAX_SCRIPT_LIMIT} seconds")
        if isinstance(text, str) and isinstance(file, str) and (text + file).strip() and "\0" not in text + file:
            return Script(text, file, limit)
    raise RecipeInvalid(f"{at}: scripts must hold shell texts or {{ file = '...' }}")


def user_of(where: Where, value: Any) -> User:
    """One entry of `users`. Raises RecipeInvalid."""
    if not isinstance(value, dict):
        raise RecipeInvalid(f"{where.key('users')}: users must hold tables", '[[users]] name = "anna"')
    name = value.get("name")
    if not isinstance(name, str) or not USER.fullmatch(name):
        raise RecipeInvalid(f"{where.key('users')}: {name!r} is no user name", "a-z, 0-9, '_', '-', at most 32")
    at = f"{where.value(name, 'users')}: user {name!r}"
    if "password" in value:
        raise RecipeInvalid(
            f"{at}: a password in clear would be in every copy of the image", 'password_hash = "...", from mkpasswd'
        )
    _known(where, value, USER_KEYS, f"user {name!r}")
    uid = value.get("uid")
    if uid is not None and (type(uid) is not int or not 0 <= uid <= MAX_ID or uid in NOBODY):
        raise RecipeInvalid(f"{at}: uid {uid!r} is not possible", "1000 to 59999 is usual")
    if (uid == 0) != (name == "root") and uid is not None:
        raise RecipeInvalid(f"{at}: uid 0 is root's, and root has no other", "sudo = true gives a user its rights")
    words = {key: value.get(key, "") for key in ("shell", "home", "comment", "password_hash")}
    for key, text in words.items():
        if not isinstance(text, str) or ":" in text or not text.isprintable():
            raise RecipeInvalid(f"{at}: {key} must be a text on one line without ':'")
    for key in ("shell", "home"):
        if words[key] and (not words[key].startswith("/") or ".." in words[key].split("/")):
            raise RecipeInvalid(f"{at}: {key} {words[key]!r} must be an absolute path")
    if words["password_hash"] and not HASH.fullmatch(words["password_hash"]):
        raise RecipeInvalid(
            f"{at}: password_hash is no hash of crypt(5)", "mkpasswd, or openssl passwd -6, makes one; never the word"
        )
    sudo = value.get("sudo", False)
    if not isinstance(sudo, bool):
        raise RecipeInvalid(f"{at}: sudo must be true or false")
    groups = _texts(value.get("groups", []), f"{at}: groups")
    for group in groups:
        if not USER.fullmatch(group):
            raise RecipeInvalid(f"{at}: {group!r} is no group name")
    keys = tuple(public_key(key, at) for key in _texts(value.get("keys", []), f"{at}: keys"))
    return User(name, uid, groups, keys=keys, sudo=sudo, **words)


def public_key(text: str, at: str) -> str:
    """A line of authorized_keys (sshd(8)), checked: the key's own bytes must name the type it says it has (RFC 4253,
    section 6.6). Raises RecipeInvalid; the text itself is not repeated, it may be a secret by mistake."""
    line = text.strip()
    if "PRIVATE KEY" in line:
        raise RecipeInvalid(f"{at}: that is a private key", "give the line of the .pub file")
    match = PUBLIC_KEY.fullmatch(line)
    try:
        blob = base64.b64decode(match[2], validate=True) if match else b""
    except binascii.Error:
        blob = b""
    if match is None or blob[:4] != len(match[1]).to_bytes(4, "big") or not blob[4:].startswith(match[1].encode()):
        raise RecipeInvalid(f"{at}: not an ssh public key", "give the whole line of the .pub file")
    return line


def repo_of(where: Where, name: str, value: Any) -> Repo:
    """One entry of `repos`. Raises RecipeInvalid."""
    at = f"{where.key(name)}: repository {name!r}"
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,60}", name) or not isinstance(value, dict):
        raise RecipeInvalid(f"{at}: must be a table with a plain name", '[repos.base] url = "https://..."')
    _known(where, value, REPO_KEYS, f"repository {name!r}")
    url, key, unsigned = value.get("url"), value.get("key", ""), value.get("unsigned", False)
    if not isinstance(url, str) or not re.fullmatch(r"(?:https?|ftp|file|dir):\S{1,2000}", url):
        raise RecipeInvalid(f"{at}: url {url!r} is no URL", "https://..., or file:///srv/mirror on a site of its own")
    if not isinstance(key, str) or not re.fullmatch(r"[^\s\x00-\x1f]*", key):
        raise RecipeInvalid(f"{at}: key must be a file or a URL")
    if bool(key) == (unsigned is True) or not isinstance(unsigned, bool):
        raise RecipeInvalid(
            f"{at}: needs either the key its packages are signed with, or unsigned = true",
            'key = "RPM-GPG-KEY-example"',
        )
    return Repo(name, url, key)


def layout_of(where: Where, value: Any) -> tuple[dict[str, str], ...]:
    """The entries of `layout`: partitions wanted on a node's disk, as a suggestion to the profile. The shape is
    checked here; whether it fits is known when there is a disk. Raises RecipeInvalid."""
    at = where.key("layout")
    if not isinstance(value, list) or not all(isinstance(part, dict) for part in value) or len(value) > 128:
        raise RecipeInvalid(f"{at}: layout must be at most 128 tables", '[[layout]] name = "root", size = "rest"')
    parts: list[dict[str, str]] = []
    for number, part in enumerate(value, 1):
        inside = f"partition {number} of the layout"
        _known(where, part, PART_KEYS, inside)
        checks = {
            "name": re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,35}"),  # 36 is all that a GPT entry has (UEFI 2.10, 5.3.3)
            "size": SIZE,
            "kind": re.compile("|".join(KINDS)),
            "fs": re.compile("|".join(FILESYSTEMS)),
            "mount": MOUNT,
            "label": re.compile(r"[A-Za-z0-9._-]{1,16}"),
        }
        for key, pattern in checks.items():
            if key in part and (not isinstance(part[key], str) or not pattern.fullmatch(part[key])):
                raise RecipeInvalid(f"{at}: {inside}: {key} {part[key]!r} is not possible")
        if "name" not in part or "size" not in part:
            raise RecipeInvalid(f"{at}: {inside} needs a name and a size", 'size = "20GiB", "ram" or "rest"')
        parts.append(dict(part))
    for key in ("name", "mount"):
        seen = [part[key] for part in parts if key in part and part[key] != "swap"]
        if twice := [word for word in seen if seen.count(word) > 1]:
            raise RecipeInvalid(f"{at}: two partitions of the layout have the {key} {twice[0]!r}")
    if parts and sum(part.get("mount") == "/" for part in parts) != 1:
        raise RecipeInvalid(f"{at}: one partition of the layout, and only one, has to be mounted at '/'")
    if sum(part["size"] == "rest" for part in parts) > 1:
        raise RecipeInvalid(f"{at}: more than one partition wants the rest")
    return tuple(parts)


def _known(where: Where, value: dict[str, Any], known: Collection[str], inside: str) -> None:
    for key in value:
        if key not in known:
            raise where.unknown(key, known, inside)


def _texts(value: Any, what: str) -> tuple[str, ...]:
    if not isinstance(value, list) or not all(isinstance(item, str) and item for item in value):
        raise RecipeInvalid(f"{what} must be a list of texts")
    return tuple(value)
