"""The payload: packages from a small apt archive of our own, licences, and (lab) the whole of it booted in QEMU."""

from __future__ import annotations

import hashlib
import io
import json
import os
import shutil
import subprocess
import threading
import zipfile
from pathlib import Path

import pytest

from images.errors import GildError
from images.run import run
from netboot import cpio, debs, initrd, loaders, payload
from netboot.copyright import UNKNOWN, main_licence

needs_apt = pytest.mark.skipif(
    not all(map(shutil.which, ("apt-get", "apt-cache", "dpkg-deb"))), reason="apt and dpkg are not installed"
)


class Archive:
    """An apt archive in a folder, with lists, caches and sources of its own."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.pool = path / "pool"
        self.records: list[str] = []
        for name in ("pool", "lists/partial", "cache/archives/partial", "state"):
            (path / name).mkdir(parents=True)
        (path / "sources.list").write_text(f"deb [trusted=yes] file:{self.pool} ./\n")
        (path / "status").write_text("")
        options = {
            "Dir::Etc::SourceList": path / "sources.list",
            "Dir::Etc::SourceParts": "-",
            "Dir::Etc::Preferences": "-",
            "Dir::Etc::PreferencesParts": "-",
            "Dir::State::Lists": path / "lists",
            "Dir::State::status": path / "status",
            "Dir::Cache": path / "cache",
            "APT::Sandbox::User": "root",
            "APT::Architecture": "amd64",
            "Acquire::Languages": "none",
        }
        self.apt = [word for key, value in options.items() for word in ("-o", f"{key}={value}")]

    def add(self, name: str, files: dict[str, str], more: str = "") -> Path:
        tree = self.path / "tree" / name
        control = f"Package: {name}\nVersion: 1.0-1\nArchitecture: all\nMaintainer: A <a@example.org>\n{more}"
        for path, text in {"DEBIAN/control": f"{control}Description: test\n", **files}.items():
            (tree / path).parent.mkdir(parents=True, exist_ok=True)
            (tree / path).write_text(text)
        deb = self.pool / f"{name}_1.0-1_all.deb"
        run(["dpkg-deb", "--root-owner-group", "-Znone", "-b", str(tree), str(deb)])
        data = deb.read_bytes()
        digest = hashlib.sha256(data).hexdigest()
        self.records.append(
            f"{control}Description: test\nFilename: ./{deb.name}\nSize: {len(data)}\nSHA256: {digest}\n"
        )
        return deb

    def update(self) -> list[str]:
        (self.pool / "Packages").write_text("\n".join(self.records))
        run(["apt-get", *self.apt, "update"])
        return self.apt


@needs_apt
def test_packages_are_fetched_checked_and_kept(tmp_path: Path) -> None:
    archive = Archive(tmp_path / "archive")
    deb = archive.add("one", {"usr/bin/tool": "T"}, "Source: uno (0.9)\nBuilt-Using: dos (= 2.0), tres (= 3)\n")
    apt = archive.update()
    lines: list[str] = []
    (found,) = debs.fetch(["one"], tmp_path / "cache", lines.append, apt)
    assert (found.name, found.version, found.sources) == (
        "one",
        "1.0-1",
        (("uno", "0.9"), ("dos", "2.0"), ("tres", "3")),
    )
    assert debs.Root([found]).get("bin/tool")[1].read_text() == "T"
    assert len(lines) == 2
    deb.unlink()  # from now on there is nothing to fetch from
    assert debs.fetch(["one"], tmp_path / "cache", lines.append, apt) == [found]
    assert len(lines) == 2


@needs_apt
def test_another_file_than_the_lists_name_is_refused(tmp_path: Path) -> None:
    archive = Archive(tmp_path / "archive")
    deb = archive.add("one", {"usr/bin/tool": "T"})
    apt = archive.update()
    data = deb.read_bytes()
    deb.write_bytes(data[:-1] + b"X")
    with pytest.raises(GildError):
        debs.fetch(["one"], tmp_path / "cache", lambda line: None, apt)
    assert not list((tmp_path / "cache").rglob("*.deb"))
    assert not (tmp_path / "cache" / "trees").exists()


@needs_apt
def test_unknown_packages_and_kernels_are_named(tmp_path: Path) -> None:
    archive = Archive(tmp_path / "archive")
    archive.add(payload.KERNEL, {}, "Depends: foo, linux-image-6.9-1-amd64 (= 1.0-1)\n")
    apt = archive.update()
    assert payload.kernel_package(apt) == "linux-image-6.9-1-amd64"
    with pytest.raises(debs.PackageMissing, match="linux-image-6"):
        debs.fetch([payload.kernel_package(apt)], tmp_path / "cache", lambda line: None, apt)


def test_records_without_what_we_need_are_left_out() -> None:
    whole = "Package: ab\nVersion: 1\nSHA256: " + "0" * 64 + "\nDepends: b (>= 1), c | d\n"
    (found,) = debs.records(f"{whole}\n\nPackage: x\nVersion: 1\n\nPackage: ../y\nVersion: 1\nSHA256: {'0' * 64}\n")
    assert found.name == "ab" and found.depends == ("b", "c") and found.sources == (("ab", "1"),)


def test_licence_of_the_main_part() -> None:
    text = "Format: x\nUpstream-Name: y\n\nFiles: debian/*\nLicense: GPL-3+\n\nFiles: *\nLicense: {}\n text\n"
    assert main_licence(text.format("Expat")) == "MIT"
    assert main_licence(text.format("BSD-3-clause or GPL-2")) == "BSD-3-Clause OR GPL-2.0-only"
    assert main_licence("This package was debianized by somebody.\n\nIt is free.\n") == UNKNOWN


def test_memory_disk_is_the_same_each_time() -> None:
    assert loaders.memory_disk({"b": b"2", "a": b"1"}) == loaders.memory_disk({"a": b"1", "b": b"2"})


# ---- the whole of it

TEST_AGENT = """
import ctypes, hashlib, http.client, json, lzma, os, ssl, struct, sys, time, zlib
from netboot.agent import modules

ctypes.CDLL("libzstd.so.1")

def there():
    return {"vda", "sda", "nvme0n1"} <= set(os.listdir("/sys/block")) and len(os.listdir("/sys/class/net")) == 3

def mounts(kind, device, *make):
    os.makedirs("/mnt/disk", exist_ok=True)
    made = os.spawnlp(os.P_WAIT, make[0], *make, device)
    # Nobody loaded this file system's module: the kernel has to ask modprobe for it.
    mounted = os.spawnlp(os.P_WAIT, "mount", "mount", "-t", kind, device, "/mnt/disk")
    os.spawnlp(os.P_WAIT, "umount", "umount", "/mnt/disk")
    return made == 0 and mounted == 0

found = {
    "python": sys.version.split()[0],
    "there": modules.load_all(there, 60),
    "failed": modules.loader().failed,
    "soft": modules.load("crypto-crc32c"),
    "head": open("/etc/gild/head.json").read(),
    "ext4": mounts("ext4", "/dev/vda", "mke2fs", "-q", "-t", "ext4"),
    "xfs": mounts("xfs", "/dev/sda", "mkfs.xfs", "-q", "-f"),
    "btrfs": mounts("btrfs", "/dev/nvme0n1", "mkfs.btrfs", "-q", "-f"),
}
for tool in "sfdisk wipefs blkid e2fsck tune2fs mkfs.vfat xfs_repair efibootmgr mdadm dmsetup".split():
    found[tool] = any(os.access(f"{folder}/{tool}", os.X_OK) for folder in ("/usr/sbin", "/usr/bin"))
print("FOUND " + json.dumps(found), flush=True)
if "test.fail" in open("/proc/cmdline").read():
    raise SystemExit(3)
"""


def agent_zip() -> bytes:
    """The archive handed to build_payload in the lab: a small agent and the real module loader."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as made:
        for name in ("netboot/__init__.py", "netboot/agent/__init__.py"):
            made.writestr(name, "")
        made.writestr("netboot/agent/__main__.py", TEST_AGENT)
        made.write(Path(payload.__file__).parent / "agent" / "modules.py", "netboot/agent/modules.py")
    return out.getvalue()


CACHE = Path(os.environ.get("GILD_PAYLOAD_CACHE", Path(__file__).parents[2] / ".build" / "payload"))


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[payload.Component]]:
    out = tmp_path_factory.mktemp("payload")
    return out, payload.build_payload(out, CACHE, agent_zip(), level=3, report=lambda line: None)


QEMU = """qemu-system-x86_64 -machine q35 -accel tcg,thread=multi,tb-size=256 -cpu Nehalem -m 512 -nodefaults
    -display none -vga none -serial stdio -no-reboot -device ahci,id=ahci"""


def boot(folder: Path, work: Path, append: str, initrd_file: Path) -> str:
    """What the installer says on its serial console until it is rebooted from the shell it gives, at most four
    minutes. No network."""
    argv = [*QEMU.split(), "-kernel", str(folder / "vmlinuz"), "-initrd", str(initrd_file)]
    argv += ["-append", f"console=ttyS0 {append}"]
    for n, card in enumerate(("virtio-net-pci", "e1000")):
        argv += ["-netdev", f"user,id=net{n},restrict=on", "-device", f"{card},netdev=net{n}"]
    for n, disk in enumerate(("virtio-blk-pci", "ide-hd,bus=ahci.0", "nvme,serial=nv")):
        with open(work / f"disk{n}", "wb") as file:
            file.truncate(1 << 30)
        argv += ["-drive", f"if=none,id=disk{n},format=raw,cache=unsafe,file={work}/disk{n}"]
        argv += ["-device", f"{disk},drive=disk{n}"]
    said: list[bytes] = []
    asked = False
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0) as machine:
        assert machine.stdin is not None and machine.stdout is not None
        limit = threading.Timer(240, machine.kill)
        limit.start()
        try:
            while piece := machine.stdout.read(4096):
                said.append(piece)
                # The prompt may come in pieces, and with a question about the cursor's place behind it.
                if not asked and b" # " in b"".join(said).partition(b"A shell follows")[2]:
                    machine.stdin.write(b"echo SHELL-$((40+2)); reboot -f\n")
                    asked = True
        finally:
            limit.cancel()
            machine.kill()
    return b"".join(said).decode("utf-8", "replace")


@pytest.mark.lab
def test_lab_payload_is_complete_and_the_same_twice(made: tuple[Path, list[payload.Component]], tmp_path: Path) -> None:
    out, components = made
    names = {path.name for path in out.iterdir()}
    assert names == {"vmlinuz", "initrd.img", "core.img", "local.efi", "COMPONENTS.json", *loaders.READY}
    listed = json.loads((out / "COMPONENTS.json").read_text())
    assert [c["name"] for c in listed] == [c.name for c in components]
    assert all(c["licence"] != UNKNOWN and c["files"] and len(c["sha256"]) == 64 for c in listed)
    assert {f for c in components for f in c.files if ":" not in f} == names - {"initrd.img", "COMPONENTS.json"}
    payload.build_payload(tmp_path, CACHE, agent_zip(), level=3, report=lambda line: None)
    assert all((tmp_path / name).read_bytes() == (out / name).read_bytes() for name in names)


@pytest.mark.lab
def test_lab_segments_do_not_depend_on_what_is_kept(made: tuple[Path, list[payload.Component]]) -> None:
    root = debs.Root(debs.fetch([payload.kernel_package(), *payload.PACKAGES.split()], CACHE, lambda line: None))
    release = initrd.releases(root)[0]
    assert initrd.base_segment(root, release).data == initrd.base_segment(root, release).data
    segment = initrd.agent_segment(root, agent_zip()).data
    assert segment == initrd.agent_segment(root, agent_zip()).data
    names = [entry.name for entry in cpio.read(segment)[0]]
    assert "usr/lib/gild/netboot/agent/modules.pyc" in names and not any(name.endswith(".py") for name in names)


@pytest.mark.lab
@pytest.mark.skipif(shutil.which("qemu-system-x86_64") is None, reason="QEMU is not installed")
@pytest.mark.timeout(300)
def test_lab_installer_boots_and_says_when_it_fails(made: tuple[Path, list[payload.Component]], tmp_path: Path) -> None:
    out, _ = made
    whole = tmp_path / "initrd"
    whole.write_bytes(initrd.head_segment({"etc/gild/head.json": b'{"a":1}'}) + (out / "initrd.img").read_bytes())
    console = boot(out, tmp_path, "quiet panic=-1 test.fail gild.shell", whole)
    (line,) = (line for line in console.splitlines() if line.startswith("FOUND "))
    found = json.loads(line.removeprefix("FOUND "))
    assert found.pop("python").startswith("3.11.") and found.pop("failed") == {} and found.pop("head") == '{"a":1}'
    assert found == dict.fromkeys(found, True)
    assert "THE INSTALLER STOPPED WITH AN ERROR" in console and "exit status 3" in console
    assert "SHELL-42" in console
