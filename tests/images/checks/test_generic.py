"""An initramfs for every machine: made by the tree's own tool when it has to be, and only then."""

from __future__ import annotations

from pathlib import Path

import pytest

from images.checks.generic import make_generic
from images.kernels import kernels
from images.tree import Tree
from tests.images.shelltree import shell_tree
from tests.images.systems import put
from tests.images.tinytree import KERNEL, newc

pytestmark = pytest.mark.root
INITRD = f"boot/initrd.img-{KERNEL}"


def system(tmp_path: Path, tool: str, does: str) -> Path:
    """A tree whose tool is a script, and whose initramfs is for one machine; /good is one for all."""
    root = shell_tree(tmp_path / "tree")
    put(root, "good", (root / INITRD).read_bytes())
    put(root, INITRD, newc(["init"]))
    put(root, f"usr/sbin/{tool}", f'#!/bin/sh\necho "$@" > /told; echo $SOURCE_DATE_EPOCH >> /told\n{does}\n', 0o755)
    return root


def made(root: Path, fs: str = "ext4") -> tuple[bool, list[tuple[str, str]]]:
    found, checks = make_generic(Tree(str(root)), kernels(root), fs, "debian")
    return found[0].generic, [(check.severity, check.found[0]) for check in checks if check.found]


@pytest.mark.parametrize(
    ("tool", "told"),
    [
        ("update-initramfs", f"-u -k {KERNEL}"),
        ("dracut", f"--force --no-hostonly --no-hostonly-cmdline --kver {KERNEL} /{INITRD}"),
        ("mkinitcpio", f"-k {KERNEL} -g /{INITRD} -S autodetect"),
        ("mkinitfs", f"-o /{INITRD} {KERNEL}"),
    ],
)
def test_each_tool_makes_it_for_all(tmp_path: Path, tool: str, told: str) -> None:
    root = system(tmp_path, tool, f"cat /good > /{INITRD}")
    assert made(root) == (True, [("info", KERNEL)])
    assert (root / "told").read_text() == f"{told}\n1767225600\n"
    (root / "told").unlink()
    assert made(root) == (True, []) and not (root / "told").exists()


def test_one_that_is_missing_is_made_under_the_familys_name(tmp_path: Path) -> None:
    root = system(tmp_path, "dracut", f"cat /good > /{INITRD}")
    (root / INITRD).unlink()
    assert made(root) == (True, [("info", KERNEL)])


def test_one_that_is_damaged_or_pinned_is_made_anew(tmp_path: Path) -> None:
    root = system(tmp_path, "update-initramfs", f"cat /good > /{INITRD}")
    put(root, INITRD, b"rubbish")
    assert made(root) == (True, [("info", KERNEL)])
    names = [f"usr/lib/modules/{KERNEL}/x/{name}.ko" for name in kernels(root)[0].available]
    put(root, INITRD, newc([*names, "etc/cmdline.d/95root-dev.conf"]))
    assert kernels(root)[0].generic and made(root) == (True, [("info", KERNEL)])


def test_a_tool_that_fails_is_an_error_in_its_own_words_and_breaks_nothing(tmp_path: Path) -> None:
    root = system(tmp_path, "dracut", f"echo half > /{INITRD}; echo no module nvme >&2; exit 1")
    before = (root / INITRD).read_bytes()
    assert made(root) == (False, [("error", f"making the initramfs of {KERNEL}: dracut failed (1): no module nvme")])
    assert (root / INITRD).read_bytes() == before
    (root / INITRD).unlink()
    assert made(root)[1][0][0] == "error" and not (root / INITRD).exists()


def test_without_a_tool_nothing_is_done(tmp_path: Path) -> None:
    root = system(tmp_path, "dracut", "exit 1")
    (root / "usr/sbin/dracut").unlink()
    assert made(root) == (False, [])


def test_the_configuration_alone(tmp_path: Path) -> None:
    root = system(tmp_path, "update-initramfs", "exit 1")
    put(root, INITRD, (root / "good").read_bytes())
    put(root, "etc/initramfs-tools/initramfs.conf", "MODULES=dep\n")
    assert made(root) == (True, [("info", "MODULES=dep")])
