"""A running system takes on another name or address: what its installer would write, written over ssh.

The files that matter come here, the same edits as at an installation are made on them, and what has changed goes back.
So it works for every system that can be installed, with nothing on the node but sh, find and tar.
"""

from __future__ import annotations

import io
import os
import stat
import tarfile
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from shlex import quote
from typing import IO, Any

from appliance.acceptance.checks import Target
from appliance.acceptance.login import Login
from images.edits import all as edits
from images.errors import GildError
from images.sources.tar import unpack
from images.tree import Tree

SECONDS = 60.0  # for each of the two steps
MAX_BYTES = 256 << 20  # of what a node sends
# What the edits look at outside of etc: which init, which manager of the network (images.distro).
_LINKS = ("bin", "sbin", "lib")
_LOOKED_AT = (
    "usr/lib/os-release", "usr/lib/systemd/system", "usr/lib/systemd/system-preset", "lib/systemd/system",
    "usr/lib/systemd/systemd", "lib/systemd/systemd", "sbin/init", "usr/sbin/init", "usr/bin/init", "sbin/openrc",
    "usr/bin/openrc", "usr/sbin/openrc", "sbin/ifup", "usr/sbin/ifup", "usr/sbin/wicked", "usr/sbin/netplan",
    "usr/libexec/netplan/generate", "usr/lib/netplan/generate", "usr/lib/udev/rules.d/60-net.rules", "usr/bin/runit",
    "usr/bin/busybox", "bin/busybox", "usr/share/xbps.d", "usr/sbin/NetworkManager",
)  # fmt: skip
# What nobody but the node has to know.
_SECRET = "'shadow*' 'gshadow*' ssh ssl pki munge pam.d security ca-certificates"
_READ = f"""\
cd __ROOT__ || exit 1
set --
for link in {" ".join(_LINKS)}; do [ -L "$link" ] && set -- "$@" "$link"; done
for path in {" ".join(_LOOKED_AT)}; do
    [ -L "${{path%%/*}}" ] && continue
    if [ -e "$path" ] || [ -L "$path" ]; then set -- "$@" "$path"; fi
done
not=
for name in {_SECRET}; do not="$not -name $name -o"; done
{{ eval find etc '\\(' "${{not%-o}}" '\\)' -prune -o '\\(' -type f -o -type l '\\)' -print
  for path; do find "$path" -type f -print -o -type l -print; done; }} | tar -cf - -T -
"""


def reading(root: str) -> str:
    """A script that prints an archive of what the edits look at in the system at `root`."""
    return _READ.replace("__ROOT__", quote(root))


@dataclass(frozen=True)
class Changes:
    """What a system is to write: an archive of files and links, and the names of those that go. `lines` say it."""

    archive: bytes
    written: tuple[str, ...]
    removed: tuple[str, ...]
    lines: tuple[str, ...]


def look(login: Login, target: Target, wanted: Iterable[dict[str, Any]], stale: Iterable[str]) -> Changes:
    """What has to change on a node; nothing is changed. `wanted` are edits with their options, `stale` addresses that
    it does not have any more. Raises ToolMissing, CommandFailed, and GildError for a system the edits do not know."""
    with tempfile.TemporaryDirectory(prefix="gild-tell-") as folder:
        with login.read(target, reading("/"), SECONDS) as stream:
            unpack(_Bounded(stream), Path(folder), shown=f"what {target.name} sent")
        return changes(folder, wanted, stale)


def changes(root: str, wanted: Iterable[dict[str, Any]], stale: Iterable[str]) -> Changes:
    """The edits, made on the tree at `root`, and what has come of them. Raises GildError."""
    if os.path.islink(os.path.join(root, "etc")):
        raise GildError("its /etc is a link: nothing is known of such a system")
    before = _seen(root)
    lines = _forget(Tree(root), frozenset(stale))
    for entry in wanted:
        lines += edits.apply(str(entry["edit"]), root, dict(entry["options"]))
    after = _seen(root)
    written = tuple(sorted(path for path, what in after.items() if before.get(path) != what))
    removed = tuple(sorted(before.keys() - after.keys()))
    return Changes(_archive(root, written), written, removed, tuple(lines if written or removed else ()))


def tell(login: Login, target: Target, made: Changes, *, restart: bool) -> str:
    """Write the changes on the node, whole or not at all as far as one can tell before, and have it restart. Gives ""
    or what went wrong. Raises ToolMissing, CommandFailed."""
    told = login.send(target, _write(made, restart), made.archive, SECONDS)
    return "" if told.whole else told.complaint or "it did not say whether it has written all of it"


def _write(made: Changes, restart: bool) -> str:
    names = " ".join(quote(f"/{path}") for path in made.written)
    gone = " ".join(quote(f"/{path}") for path in made.removed)
    return f"""\
umask 077
file=$(mktemp /run/gild-tell.XXXXXX) || exit 1
trap 'rm -f "$file"' EXIT
cat >"$file" && [ "$(wc -c <"$file")" -eq {len(made.archive)} ] || {{ echo "it did not arrive whole" >&2; exit 1; }}
tar -C / -xpf "$file" || exit 1
{f"rm -f -- {gone}" if gone else ":"}
command -v restorecon >/dev/null && restorecon -F -- {names} >/dev/null 2>&1
sync
echo "@end" >&2
{"( sleep 1; shutdown -r now || reboot || busybox reboot ) >/dev/null 2>&1 </dev/null &" if restart else ":"}
"""


def _seen(root: str) -> dict[str, tuple[int, str, bytes]]:
    """Files and links below etc: path -> mode, target, content."""
    found: dict[str, tuple[int, str, bytes]] = {}
    for folder, names, files in os.walk(os.path.join(root, "etc")):
        for name in (*files, *(name for name in names if os.path.islink(os.path.join(folder, name)))):
            path = os.path.join(folder, name)
            status = os.lstat(path)
            if stat.S_ISLNK(status.st_mode):
                what = status.st_mode, os.readlink(path), b""
            elif stat.S_ISREG(status.st_mode):
                with open(path, "rb") as file:
                    what = status.st_mode, "", file.read()
            else:
                continue
            found[os.path.relpath(path, root)] = what
    return found


def _forget(tree: Tree, stale: frozenset[str]) -> list[str]:
    """Take lines about addresses it does not have any more out of etc/hosts, and those about its old name."""
    own = tree.text("etc/hostname").strip().partition(".")[0]
    kept, gone = [], 0
    for line in tree.text("etc/hosts").splitlines():
        words = line.partition("#")[0].split()
        if words and words[0] in stale and (not own or own in words[1:]):
            gone += 1
        else:
            kept.append(line)
    return [f"hosts: {gone} old lines go"] if gone and tree.write("etc/hosts", "\n".join(kept) + "\n") else []


def _archive(root: str, paths: Iterable[str]) -> bytes:
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for path in paths:
            archive.add(os.path.join(root, path), path, recursive=False, filter=_by_number)
    return made.getvalue()


def _by_number(member: tarfile.TarInfo) -> tarfile.TarInfo:
    """Owners by number: the names of those numbers here are nothing to the node."""
    member.uname = member.gname = ""
    return member


class _Bounded:
    """A stream with an end, whatever a node sends."""

    def __init__(self, stream: IO[bytes]) -> None:
        self._stream, self._left = stream, MAX_BYTES

    def read(self, size: int, /) -> bytes:
        data = self._stream.read(size)
        self._left -= len(data)
        if self._left < 0:
            raise GildError(f"it sends more than {MAX_BYTES >> 20} MiB")
        return data
