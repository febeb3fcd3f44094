"""The site's own files of a profile, as an admin keeps them with any editor:

    STATE/profiles/NAME/overlay/    a tree as it shall stand on the node; a file ending in .j2 is a template
    STATE/profiles/NAME/overlay.toml   what a plain tree cannot say: owners, secrets, and what not to take
    STATE/profiles/NAME/pre.d/      scripts that run in the installer, before the disk is touched
    STATE/profiles/NAME/post.d/     scripts that run in the written system

Read anew whenever they are needed, generated nowhere: what is on the disk is what the next node gets.
"""

from __future__ import annotations

import fnmatch
import os
import re
import stat
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from images.errors import GildError
from netboot.plan import Script

TEMPLATE = ".j2"
MAX_ENTRIES = 2000  # files, links and folders of all profiles a node has to do with
MAX_DEPTH = 32
MAX_TEMPLATE = 256 * 1024  # bytes of a template
MAX_COPIED = 64 << 20  # bytes of all other files together: the installer holds them in memory
MAX_TOML = 256 * 1024
MAX_SCRIPT = 60_000  # bytes: one text of a message (netboot.wire.MAX_TEXT)
MAX_SCRIPTS, MAX_ALL_SCRIPTS = 64, 256 * 1024  # of a stage, and bytes of all of them
STAGES = ("pre.d", "post.d")
# What editors leave beside a file: backups and locks of emacs and vi.
_LEFT = re.compile(r".*~|\..*\.sw[a-z]|\.#.*|#.*#")
_PATH = re.compile(r"[^/\0]+(/[^/\0]+)*")
_OWNER = re.compile(r"[a-z_][a-z0-9_-]{0,31}\$?|[0-9]{1,9}")
_MODE = re.compile(r"0?[0-7]{3,4}")
_SCRIPT = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_KEYS = ("mode", "owner", "group", "secret", "template", "skip")
# Mounted over when the system starts: what is written there is never seen.
_VOLATILE = ("dev", "proc", "sys", "run")


class OverlayInvalid(GildError):
    """A profile's files are not what a node could be given; the message names the file."""


@dataclass(frozen=True)
class Entry:
    """Something an overlay puts at `path` ("etc/motd") of a node: a "file" that is copied, a "template", a "secret", a
    "link" to `target` or a "folder". `source` is where it lies on the head, `stamp` changes when it does, `size` is in
    bytes."""

    path: str
    kind: str
    profile: str
    source: Path
    mode: int = 0o644
    owner: str = "root"
    group: str = "root"
    size: int = 0
    stamp: str = ""
    target: str = ""
    secret: str = ""


def overlay(folder: Path, chain: Sequence[str]) -> list[Entry]:
    """What the profiles of `chain`, the farthest parent first, put on a node, by path; of two entries of one path the
    nearer profile's counts. `folder` holds the profiles' folders. Raises OverlayInvalid."""
    found: dict[str, Entry] = {}
    for profile in chain:
        entries, skipped = _of_profile(folder / profile, profile)
        for path in [path for path in found if any(fnmatch.fnmatchcase(path, pattern) for pattern in skipped)]:
            del found[path]
        found.update(entries)
        if len(found) > MAX_ENTRIES:
            raise OverlayInvalid(f"the overlays of profile {chain[-1]} have more than {MAX_ENTRIES} entries")
    for path, entry in found.items():
        above = next((found[path[:at]] for at in _slashes(path) if path[:at] in found), None)
        if above is not None and above.kind != "folder":
            raise OverlayInvalid(
                f"{above.source} is a {above.kind}, and {entry.source} wants a folder of that name",
                "rename one of them, or skip it in overlay.toml",
            )
    size = sum(entry.size for entry in found.values() if entry.kind == "file")
    if size > MAX_COPIED:
        raise OverlayInvalid(
            f"the files in the overlays of profile {chain[-1]} have {size >> 20} MiB, at most {MAX_COPIED >> 20} fit",
            "what is large belongs in the image: gild.pyz image edit",
        )
    return [found[path] for path in sorted(found)]


def scripts(folder: Path, chain: Sequence[str], stage: str, seconds: int) -> tuple[Script, ...]:
    """The scripts of a stage ("pre.d" or "post.d") in the order in which they run: by name, one of a nearer profile in
    the place of a parent's of that name. Each may take `seconds`. Raises OverlayInvalid."""
    found: dict[str, Script] = {}
    for profile in chain:
        place = folder / profile / stage
        for name in _names(place):
            if not _LEFT.fullmatch(name):
                content = _script(place / name, stage)
                found[name] = Script(f"{stage}/{name}", content, profile, seconds)
    if len(found) > MAX_SCRIPTS or sum(len(script.content) for script in found.values()) > MAX_ALL_SCRIPTS:
        raise OverlayInvalid(
            f"the profile {chain[-1]} has more than {MAX_SCRIPTS} scripts or {MAX_ALL_SCRIPTS >> 10} KiB in {stage}"
        )
    return tuple(found[name] for name in sorted(found))


def read(entry: Entry, limit: int) -> bytes:
    """The bytes of a file or template. Raises OverlayInvalid if it is gone, has changed since it was listed or has
    more than `limit` bytes."""
    return read_piece(entry, 0, limit + 1, limit)


def read_piece(entry: Entry, offset: int, length: int, limit: int = MAX_COPIED) -> bytes:
    """At most `length` bytes of a file from `offset` on. Raises as `read`."""
    try:
        fd = os.open(entry.source, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        with os.fdopen(fd, "rb") as file:
            status = os.fstat(file.fileno())
            if _stamp(status) != entry.stamp:
                raise OverlayInvalid(f"{entry.source} changed while it was being read", "order the installation again")
            if status.st_size > limit:
                raise OverlayInvalid(f"{entry.source} has {status.st_size} bytes, at most {limit} can be used")
            file.seek(offset)
            return file.read(min(length, status.st_size))
    except OSError as error:
        raise _unreadable(entry.source, error) from None


def _of_profile(folder: Path, profile: str) -> tuple[dict[str, Entry], list[str]]:
    """The entries of one profile by path, and the patterns it skips of its parents'."""
    said = _toml(folder / "overlay.toml")
    found: dict[str, Entry] = {}
    for entry in _walk(folder / "overlay", "", profile):
        words = _words(said, entry.path)
        if entry.kind == "file" and entry.path.endswith(TEMPLATE) and words.get("template", True):
            entry = replace(entry, path=entry.path.removesuffix(TEMPLATE), kind="template")
            words = _words(said, entry.path)
        if words.get("skip"):
            continue
        if "secret" in words:
            raise OverlayInvalid(f"{entry.source} is there, and overlay.toml says that it is a secret", "remove one")
        if entry.kind == "folder" and not words and _names(entry.source):
            continue  # made by itself for what is in it
        if entry.path in found:
            raise OverlayInvalid(f"{entry.source} stands beside {found[entry.path].source}", "which of them is it?")
        found[entry.path] = _owned(entry, words, folder)
    for path, words in said.items():
        if words.get("secret") and not words.get("skip"):
            at = folder / "overlay.toml"
            secret = Entry(_checked_path(path, at), "secret", profile, at, mode=0o600, secret=str(words["secret"]))
            found[path] = _owned(secret, words, folder)
    return found, [path for path, words in said.items() if words.get("skip")]


def _walk(folder: Path, below: str, profile: str) -> Iterator[Entry]:
    """Everything in a folder, folders before what is in them."""
    for name in _names(folder):
        source, path = folder / name, f"{below}{name}"
        if _LEFT.fullmatch(name):
            continue
        _checked_path(path, source)
        try:
            status = source.lstat()
            entry = Entry(path, "file", profile, source, stat.S_IMODE(status.st_mode) & 0o777, stamp=_stamp(status))
            if stat.S_ISLNK(status.st_mode):
                yield replace(entry, kind="link", target=os.readlink(source), mode=0o777)
            elif stat.S_ISDIR(status.st_mode):
                yield replace(entry, kind="folder")
                yield from _walk(source, f"{path}/", profile)
            elif stat.S_ISREG(status.st_mode):
                yield replace(entry, size=status.st_size)
            else:
                raise OverlayInvalid(f"{source} is neither a file, a folder nor a link", "a node gets no others")
        except OSError as error:
            raise _unreadable(source, error) from None


def _names(folder: Path) -> list[str]:
    """Sorted names in a folder, [] if there is none. Raises OverlayInvalid."""
    try:
        with os.scandir(folder) as entries:
            found = [entry.name for _, entry in zip(range(MAX_ENTRIES + 1), entries, strict=False)]
    except FileNotFoundError:
        return []
    except OSError as error:
        raise _unreadable(folder, error) from None
    if len(found) > MAX_ENTRIES:
        raise OverlayInvalid(f"{folder} has more than {MAX_ENTRIES} entries")
    return sorted(found)


def _checked_path(path: str, source: Path) -> str:
    parts = path.split("/")
    if not _PATH.fullmatch(path) or not path.isprintable() or any(part in (".", "..") for part in parts):
        shown = "".join(c if c.isprintable() else "?" for c in path)[:200]
        raise OverlayInvalid(f"{shown!r} in {source.parent} cannot be the path of a file", "printable names alone")
    if len(parts) > MAX_DEPTH:
        raise OverlayInvalid(f"{source} lies more than {MAX_DEPTH} folders deep")
    if parts[0] in _VOLATILE and len(parts) > 1:
        raise OverlayInvalid(f"{source}: /{parts[0]} is made anew whenever a system starts", "put it elsewhere")
    return path


def _toml(path: Path) -> dict[str, dict[str, Any]]:
    """overlay.toml: words about paths and patterns of paths, checked."""
    try:
        data = path.read_bytes() if path.stat().st_size <= MAX_TOML else None
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise _unreadable(path, error) from None
    if data is None:
        raise OverlayInvalid(f"{path} has more than {MAX_TOML} bytes")
    try:
        body = tomllib.loads(data.decode())
    except (ValueError, RecursionError) as error:
        raise OverlayInvalid(f"{path}: {str(error)[:200]}") from None
    return {key.strip("/"): _said(path, key, words) for key, words in body.items()}


def _said(path: Path, key: str, words: Any) -> dict[str, Any]:
    where = f"{path}: {key[:80]!r}"
    if not isinstance(words, dict):
        raise OverlayInvalid(f"{where} is not a table", '["etc/munge/munge.key"] and owner = "munge" below it')
    if unknown := sorted(set(words) - set(_KEYS)):
        raise OverlayInvalid(f"{where} has no {unknown[0][:40]!r}", f"it can have {', '.join(_KEYS)}")
    for name in ("template", "skip"):
        if not isinstance(words.get(name, True), bool):
            raise OverlayInvalid(f"{where}: {name} is true or false")
    forms = (("mode", _MODE, '"0640"'), ("owner", _OWNER, "a user's name or number"), ("group", _OWNER, "a group's"))
    for name, form, example in forms:
        if name in words and (not isinstance(words[name], str) or not form.fullmatch(words[name])):
            raise OverlayInvalid(f"{where}: {name} cannot be {str(words[name])[:40]!r}", f"such as {example}")
    if "secret" in words and (not isinstance(words["secret"], str) or not words["secret"]):
        raise OverlayInvalid(f"{where}: secret is not the name of one", "see: gild.pyz secret list")
    return words


def _words(said: Mapping[str, dict[str, Any]], path: str) -> dict[str, Any]:
    """What is said about a path: by patterns in their order, then by the path itself."""
    found: dict[str, Any] = {}
    for pattern, words in said.items():
        if pattern != path and fnmatch.fnmatchcase(path, pattern):
            found.update({key: value for key, value in words.items() if key != "secret"})
    return {**found, **said.get(path, {})}


def _owned(entry: Entry, words: Mapping[str, Any], folder: Path) -> Entry:
    mode = int(words["mode"], 8) if "mode" in words else entry.mode
    return replace(entry, mode=mode, owner=words.get("owner", entry.owner), group=words.get("group", entry.group))


def _script(path: Path, stage: str) -> str:
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):
            raise OverlayInvalid(f"{path} is not a script", f"{stage} holds nothing else")
        data = path.read_bytes() if status.st_size <= MAX_SCRIPT else b""
    except OSError as error:
        raise _unreadable(path, error) from None
    if not _SCRIPT.fullmatch(path.name):
        raise OverlayInvalid(f"{path} has a name no script can have", "letters, digits, '.', '_' and '-'")
    if not status.st_mode & 0o100:
        raise OverlayInvalid(f"{path} is not executable", f"chmod +x {path}, or move it away")
    if status.st_size > MAX_SCRIPT:
        raise OverlayInvalid(f"{path} has {status.st_size} bytes, a script has at most {MAX_SCRIPT}")
    first = data.split(b"\n", 1)[0].decode("utf-8", "replace").strip()
    if not re.fullmatch(r"#!\s*/[!-~]+( .*)?", first):
        raise OverlayInvalid(f"{path} does not begin with the name of its interpreter", "such as #!/bin/sh")
    interpreter = os.path.basename(first[2:].split()[0] if "env " not in first else first.split()[-1])
    if stage == "pre.d" and not re.fullmatch(r"a?sh|python3?(\.[0-9]+)?", interpreter):
        raise OverlayInvalid(f"{path} wants {interpreter[:40]}", "the installer has sh (of busybox) and python3")
    try:
        return data.decode()
    except UnicodeDecodeError:
        raise OverlayInvalid(f"{path} is not text in UTF-8") from None


def _stamp(status: os.stat_result) -> str:
    return f"{status.st_dev}-{status.st_ino}-{status.st_mtime_ns}-{status.st_size}"


def _slashes(path: str) -> list[int]:
    return [at for at, c in enumerate(path) if c == "/"]


def _unreadable(path: Path, error: OSError) -> OverlayInvalid:
    return OverlayInvalid(f"{path} cannot be read: {error.strerror}", "look at the head node's disk")
