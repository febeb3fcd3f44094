"""A golden client becomes a version: its running system is read by its own tar and streamed here.

From this machine itself, by ssh, or by whatever else brings a stream that was made by images.sources.client.reading.
"""

from __future__ import annotations

import os
import re
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import IO, Any

from images import working
from images.errors import CommandFailed, SourceInvalid
from images.manifest import Manifest
from images.options import Options
from images.run import pipe
from images.sources.client import MAX_FACTS, Client, choose, new_mark, own_boot, printable, probe, read_facts, reading
from images.sources.leftout import Selection, Wishes, check_wishes
from images.sources.split import from_tree_and_boot, settle_fstab
from images.sources.tar import unpack
from images.store import Store
from images.strip import inside
from images.tree import Tree

PROBE_TIME = 60  # seconds
KEPT = 1 << 16  # bytes at the end of a stream in which the mark must stand
STEP = 4 << 20  # bytes between two words about progress
NOISE = 1 << 16  # bytes a login shell may print before the first mark


def receive(
    store: Store,
    name: str,
    stream: IO[bytes],
    client: Client,
    selection: Selection,
    mark: str,
    options: Options,
    *,
    method: str,
) -> Manifest:
    """Publish what `reading` writes as the next version of `name`; the manifest's source says where from, `method` how,
    what was left out and what was odd. Raises SourceInvalid for a stream that is cut off or no archive, with tar's own
    words if it failed; Busy, NoSpace, CommandFailed. Nothing is kept then. Needs root."""
    if os.geteuid() != 0:
        raise SourceInvalid("keeping the owner of every file needs root", "run this as root")
    split = own_boot(client, selection)

    def fill(tree: Path) -> dict[str, Any]:
        ending = _Ending(stream, lambda done: options.tell("receive", done, max(done, client.used)))
        ending.begin(mark, client.host)
        # Whether it is whole, the mark behind it says.
        unpack(ending, tree, shown=f"what {client.host} sent", whole=False)
        emptied = {f".{left.pattern.removesuffix('/*')}" for left in selection.left}
        said = [
            line
            for line in _verdict(ending.end(mark, client.host), client.host)
            if line.partition(": file changed")[0] not in emptied  # a directory that comes out empty anyway
        ]
        _make_points(tree, selection.points)
        if gone := settle_fstab(Tree(str(tree)), selection, split=split):
            said.append(f"commented out in etc/fstab: {printable(', '.join(gone))}")
        return _source(client, selection, method, said)

    if split:
        return from_tree_and_boot(store, name, client.boot, fill, options)
    return working.from_tree(store, name, fill, options)


def capture(
    store: Store,
    name: str,
    shell: Sequence[str],
    wishes: Wishes,
    options: Options,
    *,
    method: str,
    root: str = "/",
) -> Manifest:
    """Publish the system on which `shell`, a command that reads a script, runs it as root. Raises as `receive` does."""
    check_wishes(wishes)
    options.tell("probe", 0, 0)
    with pipe(shell, input=probe(root).encode(), timeout=PROBE_TIME, act="asking the golden client") as said:
        facts = said.read(MAX_FACTS)
    client = read_facts(facts)
    selection, mark = choose(client, wishes), new_mark()
    script = reading(selection, root, mark).encode("utf-8", "surrogateescape")
    with pipe(shell, input=script, act=f"reading {client.host}") as stream:
        return receive(store, name, stream, client, selection, mark, options, method=method)


def capture_here(store: Store, name: str, wishes: Wishes, options: Options, root: str = "/") -> Manifest:
    """Publish this machine's own running system. The store is left out of it. Raises as `receive` does."""
    below = [path.resolve() for path in (*map(Path, wishes.own), store.root)]
    own = tuple(f"/{path.relative_to(root)}" for path in below if path.is_relative_to(root))
    wishes = replace(wishes, own=own)
    return capture(store, name, ["sh", "-s"], wishes, options, method="head", root=root)


# user@host:port; an IPv6 address in brackets. No part may be taken for an option of ssh.
ADDRESS = re.compile(
    r"(?:([A-Za-z0-9_][\w.-]{0,63})@)?([A-Za-z0-9_][\w.-]{0,252}|\[[0-9A-Fa-f:]{2,45}\])(?::(\d{1,5}))?"
)
# The login shell of the client may be any; what stands in single quotes means the same to all of them.
REMOTE = (
    'sh -c \'test "$(id -u)" = 0 && exec sh -s;'
    " command -v sudo >/dev/null || { echo not root, and there is no sudo >&2; exit 1; }; exec sudo -n sh -s'"
)
SSH_HINTS = {
    "Permission denied": "nobody can type a password here: give the key of this user to the client (ssh-copy-id)",
    "Host key verification": "log in once by hand and compare the key it shows",
    "password is required": "log in as root, or let this user use sudo without a password; or --from paste",
    "terminal is required": "log in as root, or let this user use sudo without a password; or --from paste",
}


def ssh_command(address: str, config: Path | None = None) -> list[str]:
    """The command that runs a script, given as input, as root on `address` ([user@]host[:port]); `config` is a file for
    ssh to read instead of the user's own. Raises SourceInvalid for no such address."""
    match = ADDRESS.fullmatch(address)
    if match is None or (match[3] and not 0 < int(match[3]) < 65536):
        raise SourceInvalid(f"{address!r} is no address of a golden client", "ssh:USER@HOST or ssh:USER@HOST:PORT")
    user, host, port = match.groups()
    options = {"BatchMode": "yes", "ConnectTimeout": "20", "ServerAliveInterval": "15", "ServerAliveCountMax": "4"}
    return [
        "ssh", *(("-F", str(config)) if config else ()), "-T", *(f"-o{key}={value}" for key, value in options.items()),
        *(("-p", port) if port else ()), *(("-l", user) if user else ()), "--", host.strip("[]"), REMOTE,
    ]  # fmt: skip


def capture_ssh(
    store: Store, name: str, address: str, wishes: Wishes, options: Options, config: Path | None = None
) -> Manifest:
    """Publish the running system of a golden client that this user can reach by ssh without a password. Raises as
    `receive` does, and CommandFailed with what ssh or sudo said."""
    try:
        return capture(store, name, ssh_command(address, config), wishes, options, method="ssh")
    except CommandFailed as error:
        hint = next((hint for words, hint in SSH_HINTS.items() if words in error.message), error.hint)
        raise CommandFailed(error.message, hint) from None


class _Ending:
    """A stream that remembers its last bytes, and tells how many there were."""

    def __init__(self, stream: IO[bytes], tell: Callable[[int], None]) -> None:
        self._stream = stream
        self._tell = tell
        self._last: deque[bytes] = deque()
        self._kept, self._done, self._told = 0, 0, 0

    def read(self, size: int) -> bytes:
        """The next bytes of the stream, at most `size`."""
        piece = self._stream.read(size)
        self._done += len(piece)
        if self._done - self._told >= STEP:
            self._told = self._done
            self._tell(self._done)
        self._last.append(piece)
        self._kept += len(piece)
        while self._kept - len(self._last[0]) > KEPT:
            self._kept -= len(self._last.popleft())
        return piece

    def begin(self, mark: str, host: str) -> None:
        """Skip what a login shell prints by itself, up to the mark."""
        seen = b""
        while len(seen) < NOISE:
            line = self._stream.readline(NOISE)
            if line == mark.encode() + b"\n":
                self._tell(0)
                return
            seen += line
            if not line:
                break
        noise = printable(seen.decode("utf-8", "replace")).strip()[-200:]
        raise SourceInvalid(f"{host} sent no archive" + (f" but: {noise}" if noise else ""))

    def end(self, mark: str, host: str) -> list[str]:
        """Read to the end; the lines behind the mark. Raises SourceInvalid if there is none."""
        for _ in range(KEPT):
            if not self.read(KEPT):
                break
        _, found, said = b"".join(self._last).rpartition(b"\n" + mark.encode() + b"\n")
        if not found:
            raise SourceInvalid(f"the stream from {host} broke off before its end", "nothing was kept; do it again")
        return [printable(line) for line in said.decode("utf-8", "replace").splitlines() if line]


def _verdict(said: Sequence[str], host: str) -> list[str]:
    """What tar warned of. Raises SourceInvalid if it failed (GNU tar manual: 1 is "some files differ", 2 is fatal)."""
    lines = [line.removeprefix("tar: ") for line in said if not line.startswith(("exit ", "tar: Exiting with"))]
    if not said or said[-1] not in ("exit 0", "exit 1"):
        raise SourceInvalid(
            f"tar on {host} could not read everything: {' | '.join(lines[-3:]) or 'it was ended'}",
            "mend that, or leave it out with --exclude",
        )
    return lines


def _make_points(tree: Path, points: Sequence[str]) -> None:
    """Mount points nobody looked at become empty directories."""
    for point in points:
        path = inside(tree, point.lstrip("/"))
        if path is not None and not path.is_symlink() and not path.exists():
            path.mkdir(mode=0o755)


def _source(client: Client, selection: Selection, method: str, said: Sequence[str]) -> dict[str, Any]:
    """What the manifest says of where a version comes from."""
    return {
        "kind": "live",
        "method": method,
        "host": client.host,
        "kernel": client.kernel,
        "filesystems": [printable(path) for path in selection.taken],
        "excluded": {printable(left.pattern): left.reason for left in selection.left},
        "warnings": [*selection.warnings, *said],
    }
