"""The initrd's parts: ELF files read, packages seen as one tree, segments put together, bad archives refused."""

from __future__ import annotations

import io
import lzma
import stat
import zipfile
from pathlib import Path

import pytest

from netboot import cpio, initrd, kmods, userland
from netboot.debs import Deb, PackageMissing, Root, merged
from netboot.elf import Elf, ElfInvalid
from tests.netboot.elves import elf, module, program


def deb(tree: Path, name: str, files: dict[str, bytes | str]) -> Deb:
    """An unpacked package: bytes are files, text is a link's target."""
    for path, content in files.items():
        place = tree / name / path
        place.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(content, bytes):
            place.write_bytes(content)
        else:
            place.symlink_to(content)
    return Deb(name, "1", (("src", "1"),), "0" * 64, tree / name)


def archive(files: dict[str, bytes]) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as made:
        for name, data in files.items():
            made.writestr(name, data)
    return out.getvalue()


def test_elf_sections_and_libraries() -> None:
    assert Elf(elf({".a": b"1", ".b": b"22"}), "x").section(".b") == b"22"
    assert Elf(elf({".a": b"1"}), "x").section(".none") == b""
    assert Elf(program("libc.so.6", "libz.so.1"), "x").needed() == ["libc.so.6", "libz.so.1"]
    assert Elf(elf({".a": b""}), "static").needed() == []
    assert Elf(module("name=x", "depends=", "odd"), "x").modinfo() == [("name", "x"), ("depends", "")]


@pytest.mark.parametrize("data", [b"", b"\x7fELF\x01\x01" + bytes(90), b"#!/bin/sh\n" * 20, program("a")[:-1]])
def test_other_files_are_no_elf(data: bytes) -> None:
    with pytest.raises(ElfInvalid):
        Elf(data, "x")


def test_elf_section_outside_of_the_file() -> None:
    data = bytearray(elf({".a": b"1"}))
    table = int.from_bytes(data[40:48], "little")
    data[table + 64 + 32 : table + 64 + 40] = (1 << 40).to_bytes(8, "little")
    with pytest.raises(ElfInvalid, match="outside"):
        Elf(bytes(data), "x").section(".a")


def test_merged_paths() -> None:
    assert merged("/bin/sh") == "usr/bin/sh" and merged("lib64/ld.so") == "usr/lib64/ld.so"
    assert merged("./usr/../etc/x") == "etc/x" and merged("../../etc") == "etc" and merged("libexec/a") == "libexec/a"


def test_packages_are_one_tree_with_links_followed(tmp_path: Path) -> None:
    one = deb(tmp_path, "one", {"lib/x.so.1": "x.so.1.2", "lib/x.so.1.2": b"X", "usr/share/doc/one": "two"})
    two = deb(tmp_path, "two", {"usr/lib/y": "/lib/x.so.1", "usr/share/doc/two/copyright": b"C", "usr/loop": "loop"})
    root = Root([one, two])
    assert root.get("usr/lib/y")[1].read_bytes() == b"X" and root.get("usr/lib/y")[0] is one
    assert root.get("usr/share/doc/one/copyright")[1].read_bytes() == b"C"
    assert root.find("usr/loop") is None
    with pytest.raises(PackageMissing, match="/bin/absent"):
        root.get("bin/absent")


def test_a_link_cannot_lead_out_of_the_packages(tmp_path: Path) -> None:
    one = deb(tmp_path, "one", {"usr/lib/evil": "../../../../../../../../etc/passwd", "usr/lib/abs": "/etc/passwd"})
    root = Root([one])
    assert root.find("usr/lib/evil") is None and root.find("usr/lib/abs") is None


def test_modules_come_flat_whole_and_uncompressed(tmp_path: Path) -> None:
    ext4 = module("depends=jbd2", "alias=fs-ext4")
    kernel = deb(
        tmp_path,
        "kernel",
        {
            "lib/modules/6.9/kernel/fs/ext4/ext4.ko": ext4,
            "lib/modules/6.9/kernel/fs/jbd2/jbd2.ko.xz": lzma.compress(module("depends=")),
            "lib/modules/6.9/kernel/sound/noise.ko": module("depends="),
        },
    )
    root = Root([kernel])
    items = initrd.modules(root, "6.9")
    base = "usr/lib/modules/6.9"
    assert set(items) == {f"{base}/{n}" for n in ("ext4.ko", "jbd2.ko", *kmods.index({}))}
    assert items[f"{base}/ext4.ko"].data == ext4  # with its signature
    assert items[f"{base}/jbd2.ko"].data == module("depends=")
    assert items[f"{base}/modules.dep"].data == b"ext4.ko: jbd2.ko\njbd2.ko:\n"
    assert initrd.releases(root) == ["6.9"]
    assert initrd.by_deb(items) == {kernel: [f"{base}/ext4.ko", f"{base}/jbd2.ko"]}
    with pytest.raises(initrd.InitrdInvalid, match=r"7\.0"):
        initrd.modules(root, "7.0")


def test_missing_library_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(userland, "TOOLS", {"usr/sbin/tool": ("other",)})
    monkeypatch.setattr(userland, "LOADED", ())
    monkeypatch.setattr(userland, "SETTINGS", ())
    tool = deb(tmp_path, "tool", {"sbin/tool": program("liba.so.1")})
    liba = deb(tmp_path, "liba", {"lib/x86_64-linux-gnu/liba.so.1": program("libb.so.2")})
    with pytest.raises(userland.UserlandIncomplete, match=r"libb\.so\.2"):
        userland.programs(Root([tool, liba]))
    libb = deb(tmp_path, "libb", {"usr/lib/x86_64-linux-gnu/libb.so.2": program()})
    items, links = userland.programs(Root([tool, liba, libb]))
    assert set(items) == {"usr/sbin/tool", f"{userland.LIBRARIES}/liba.so.1", f"{userland.LIBRARIES}/libb.so.2"}
    assert links["usr/sbin/other"] == "tool"


def test_head_segment_is_aligned_private_and_the_same_each_time() -> None:
    files = {"/etc/gild/head.pem": b"PEM", "etc/gild/head.json": b"{}"}
    data = initrd.head_segment(files)
    assert len(data) % 512 == 0 and data == initrd.head_segment(dict(reversed(files.items())))
    entries = {e.name: e for e in cpio.read(data)[0]}
    assert entries["etc/gild/head.pem"].data == b"PEM"
    assert stat.S_IMODE(entries["etc/gild/head.pem"].mode) == 0o600
    with pytest.raises(cpio.CpioInvalid):
        initrd.head_segment({"../escape": b""})
    with pytest.raises(initrd.InitrdInvalid, match="larger"):
        initrd.head_segment({"a": bytes(initrd.MAX_HEAD + 1)})


def test_agent_is_compiled_and_packed_with_init(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(userland, "compiled", lambda root, sources: {f"{p}c": b"PYC" + d for p, d in sources.items()})
    agent = archive({"netboot/agent/__main__.py": b"1", "images/table.txt": b"t"})
    segment = initrd.agent_segment(Root([]), agent)
    assert segment == initrd.agent_segment(Root([]), agent)
    found = {e.name: e for e in cpio.read(segment.data)[0]}
    assert found["usr/lib/gild/netboot/agent/__main__.pyc"].data == b"PYC1"
    assert found["usr/lib/gild/images/table.txt"].data == b"t"
    assert found["init"].data.startswith(b"#!/bin/busybox sh\n") and found["init"].mode & 0o111


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b"not a zip", "cannot be read"),
        (archive({"x.py": b""}), "no netboot/agent"),
        (archive({"netboot/agent/__main__.py": b"", "../../evil.py": b""}), "outside"),
        (archive({"netboot/agent/__main__.py": b"", "/abs.py": b""}), "outside"),
        (archive({"netboot/agent/__main__.py": bytes(initrd.MAX_AGENT + 1)}), "more than"),
        (archive({"netboot/agent/__main__.py": b"x" * 100})[:-30], "cannot be read"),
    ],
)
def test_bad_agent_archives_are_refused(data: bytes, says: str) -> None:
    with pytest.raises(initrd.InitrdInvalid, match=says):
        initrd.agent_segment(Root([]), data)
