"""The only subprocess door: a command goes in, its output or one readable error comes out."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable, Mapping, Sequence

from images.errors import CommandFailed, ToolMissing

# The package that brings a tool, for the hint when it is missing (Debian 12 names).
PACKAGE_OF = {
    "mke2fs": "e2fsprogs",
    "e2fsck": "e2fsprogs",
    "resize2fs": "e2fsprogs",
    "debugfs": "e2fsprogs",
    "sfdisk": "fdisk",
    "fstrim": "util-linux",
    "losetup": "mount",
    "mkfs.vfat": "dosfstools",
    "mmdebstrap": "mmdebstrap",
    "tar": "tar",
}


def run(
    argv: Sequence[str],
    *,
    input: bytes | None = None,  # noqa: A002  # the name subprocess uses
    env: Mapping[str, str] | None = None,
    cwd: str | None = None,
    timeout: float | None = 600,
    check: bool = True,
    act: str = "",
) -> subprocess.CompletedProcess[bytes]:
    """Run `argv` to its end and return it with its output captured (bytes).

    `env` is added to this process's environment. `timeout` is in seconds; None waits for ever and is only for work
    whose length the user chose. `act` names what the command was for, for the error message.
    Raises ToolMissing if the program is not installed, CommandFailed if it fails (`check`) or takes too long.
    """
    if shutil.which(argv[0]) is None:
        package = PACKAGE_OF.get(os.path.basename(argv[0]), "")
        raise ToolMissing(
            f"{act or 'running a command'}: {argv[0]} is not installed", f"apt install {package}" if package else ""
        )
    full = {**os.environ, "LC_ALL": "C.UTF-8", **(env or {})}
    try:
        done = subprocess.run(argv, input=input, capture_output=True, env=full, cwd=cwd, timeout=timeout, check=False)
    except subprocess.TimeoutExpired:
        raise CommandFailed(f"{act or argv[0]}: {argv[0]} did not end within {timeout:.0f} s") from None
    if check and done.returncode:
        raise CommandFailed(
            f"{act or argv[0]}: {argv[0]} failed ({done.returncode}): {tail(done.stderr or done.stdout)}"
        )
    return done


def stream(
    argv: Sequence[str],
    on_line: Callable[[str], None],
    *,
    env: Mapping[str, str] | None = None,
    timeout: float = 3600,
    act: str = "",
) -> None:
    """Run `argv` and hand each line of its merged output to `on_line` as it comes, for progress.

    Raises as `run` does. `timeout` in seconds bounds the time between two lines being read and the end.
    """
    if shutil.which(argv[0]) is None:
        package = PACKAGE_OF.get(os.path.basename(argv[0]), "")
        raise ToolMissing(
            f"{act or 'running a command'}: {argv[0]} is not installed", f"apt install {package}" if package else ""
        )
    full = {**os.environ, "LC_ALL": "C.UTF-8", **(env or {})}
    last: list[bytes] = []
    with subprocess.Popen(
        argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env=full
    ) as proc:
        assert proc.stdout is not None
        try:
            for line in proc.stdout:
                last = [*last[-20:], line]
                on_line(line.decode("utf-8", "replace").rstrip())
            code = proc.wait(timeout)
        except BaseException:
            proc.kill()
            raise
    if code:
        raise CommandFailed(f"{act or argv[0]}: {argv[0]} failed ({code}): {tail(b''.join(last))}")


def tail(output: bytes, lines: int = 3, width: int = 400) -> str:
    """The last `lines` non-empty lines of a program's output on one line, at most `width` characters, printable."""
    kept = [line for line in output.decode("utf-8", "replace").splitlines() if line.strip()][-lines:]
    text = " | ".join(line.strip() for line in kept)[-width:]
    return "".join(c if c.isprintable() else "?" for c in text) or "no output"
