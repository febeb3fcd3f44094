"""Boot menus are read: GRUB's, Boot Loader Specification entries, extlinux's, and any bytes."""

from __future__ import annotations

import tempfile
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from images.checks.menus import MAX_ENTRIES, Entry, entries, place
from images.tree import Tree
from tests.images import trees
from tests.images.systems import put

SYSTEMS = trees.load()
WORDS = st.sampled_from(
    ["menuentry 'x' {", "linux", "initrd", "}", "\n", "/a", "root=x", "label", "append", "$x", "\t", "title"]
)


def test_entries_of_the_boot_loader_specification_and_extlinux(tmp_path: Path) -> None:
    put(
        tmp_path,
        "boot/loader/entries/a.conf",
        "title x\nlinux /vmlinuz-1\ninitrd /i $tuned_initrd\noptions $kernelopts a\n",
    )
    put(tmp_path, "boot/loader/entries/b.conf", "title no kernel\n")
    put(tmp_path, "boot/grub2/grubenv", "# GRUB Environment Block\nkernelopts=root=/dev/sda1 ro\n" + "#" * 900)
    text = "DEFAULT menu.c32\nLABEL lts\n  LINUX vmlinuz-lts\n  INITRD a,b\n  APPEND root=UUID=1 x\n"
    put(
        tmp_path,
        "boot/extlinux.conf",
        text + "LABEL old\n  KERNEL /v\n  APPEND initrd=/i root=/dev/sda\nLABEL m\n KERNEL m.c32\n",
    )
    assert entries(Tree(str(tmp_path))) == [
        Entry("boot/loader/entries/a.conf", "/vmlinuz-1", ("/i", "$tuned_initrd"), ("root=/dev/sda1", "ro", "a")),
        Entry("boot/extlinux.conf", "vmlinuz-lts", ("a", "b"), ("root=UUID=1", "x")),
        Entry("boot/extlinux.conf", "/v", ("/i",), ("initrd=/i", "root=/dev/sda")),
    ]
    put(tmp_path, "boot/vmlinuz-1", "x")
    tree = Tree(str(tmp_path))
    assert place(tree, "(hd0,gpt4)/vmlinuz-1") == "boot/vmlinuz-1" == place(tree, "${root}/boot/vmlinuz-1")
    assert place(tree, "$x/vmlinuz-1") == "?" and place(tree, "/../../../etc/passwd") == ""


@pytest.mark.parametrize("name", [name for name, system in SYSTEMS.items() if system.all("boot")])
def test_the_menus_of_every_distribution_are_read(tmp_path: Path, name: str) -> None:
    system = SYSTEMS[name]
    root = system.build(tmp_path / "root")
    found = entries(Tree(str(root)))
    wanted = " ".join(system.all("boot")[0]).split()
    configured = [words for words in wanted[2:] if words.startswith("root=")]
    if configured:  # the others have no menu that GRUB reads, and start the newest kernel
        started = [entry for entry in found if configured[0] in entry.words]
        assert any(place(Tree(str(root)), entry.kernel) == wanted[0] for entry in started)


def test_no_menu_has_more_entries_than_anybody_reads(tmp_path: Path) -> None:
    put(tmp_path, "boot/grub/grub.cfg", "menuentry 'x' {\nlinux /a\n}\n" * (MAX_ENTRIES + 9))
    assert len(entries(Tree(str(tmp_path)))) == MAX_ENTRIES


@given(st.one_of(st.binary(max_size=300), st.lists(WORDS, max_size=40).map(lambda words: " ".join(words).encode())))
@example(b"menuentry\nlinux\ninitrd /a\nlinux  \n}\n")
@settings(max_examples=150, deadline=None)
def test_any_bytes_give_entries_with_a_kernel(noise: bytes) -> None:
    with tempfile.TemporaryDirectory() as directory:
        root = Path(directory)
        for path in ("boot/grub/grub.cfg", "boot/loader/entries/a.conf", "boot/extlinux.conf", "boot/grub2/grubenv"):
            put(root, path, noise)
        tree = Tree(directory)
        for entry in entries(tree):
            assert entry.kernel and all(isinstance(place(tree, path), str) for path in (entry.kernel, *entry.initrds))
