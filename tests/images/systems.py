"""Fixture trees: the few files by which an installed system shows what it is."""

from __future__ import annotations

import os
from pathlib import Path

GOLDEN = "0f" * 16


def put(root: Path, path: str, content: str | bytes = "", mode: int = 0o644) -> Path:
    """A file with its directories."""
    place = root / path
    place.parent.mkdir(parents=True, exist_ok=True)
    place.write_bytes(content if isinstance(content, bytes) else content.encode())
    place.chmod(mode)
    return place


def link(root: Path, path: str, target: str) -> None:
    """A symbolic link with the directories above it."""
    place = root / path
    place.parent.mkdir(parents=True, exist_ok=True)
    os.symlink(target, place)


def system(root: Path, release: str, *enabled: str) -> Path:
    """A tree with systemd as init; `enabled` are units linked below multi-user.target."""
    put(root, "etc/os-release", release)
    link(root, "sbin", "usr/sbin")
    link(root, "lib", "usr/lib")
    link(root, "usr/sbin/init", "../lib/systemd/systemd")
    put(root, "usr/lib/systemd/systemd", "", 0o755)
    put(root, "etc/machine-id", GOLDEN + "\n")
    put(root, "etc/hostname", "golden\n")
    for unit in enabled:
        put(root, f"usr/lib/systemd/system/{unit}", "[Unit]\n")
        link(root, f"etc/systemd/system/multi-user.target.wants/{unit}", f"/usr/lib/systemd/system/{unit}")
    return root


def networkd(root: Path) -> Path:
    """Adds systemd-networkd as Debian's systemd package brings it: there, and not enabled."""
    for name in ("networkd.service", "networkd.socket", "network-generator.service", "networkd-wait-online.service"):
        put(root, f"usr/lib/systemd/system/systemd-{name}", "[Unit]\n")
    return root


def debian(root: Path, *enabled: str) -> Path:
    """Debian 12."""
    return networkd(system(root, 'ID=debian\nVERSION_ID="12"\n', *enabled))


def picture(root: Path) -> dict[str, object]:
    """Everything below `root`: type, mode and content of each name."""
    found: dict[str, object] = {}
    for directory, folders, files in os.walk(root):
        for name in (*folders, *files):
            path = Path(directory) / name
            key = str(path.relative_to(root))
            if path.is_symlink():
                found[key] = os.readlink(path)
            elif path.is_file():
                found[key] = (path.stat().st_mode, path.stat().st_mtime_ns, path.read_bytes())
            else:
                found[key] = path.stat().st_mode
    return found
