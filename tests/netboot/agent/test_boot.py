"""netboot.agent.boot: disks that are files, trees of a few files, and what the first sectors then lead to."""

from __future__ import annotations

import shutil
import struct
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from netboot.agent import boot, nvram
from netboot.agent.kexec import KexecFailed
from netboot.agent.stub import BootFailed
from netboot.layout import Placed, place
from netboot.plan import BootPiece, InstallPlan
from netboot.report import Facts
from tests.images import systems
from tests.images.systems import put
from tests.netboot.agent.test_localise import LAYOUT, UUID, disk_of_files, plan

KERNEL = "6.1.0-9-amd64"
PIECES = {
    "boot.img": bytes(range(256)) + bytes(254) + b"\x55\xaa",
    "core.img": bytes(7) + b"core" * 30_000,
    "shimx64.efi": b"head's shim",
    "grub-disk.efi": b"head's grub",
    "mmx64.efi": b"head's mm",
}
CFG = f"menuentry 'x' {{\n  linux /boot/vmlinuz-{KERNEL} root=UUID={UUID} ro\n  initrd /boot/initrd.img-{KERNEL}\n}}\n"
SEARCH = f"""\
if regexp --set=1:disk '^([^,]+),' "$root"; then
    search --no-floppy --fs-uuid --set=root --hint="$disk," {UUID}
else
    search --no-floppy --fs-uuid --set=root {UUID}
fi
"""
PARTS = place(LAYOUT, 1 << 30, 1 << 30, {"root": 2 << 20})
OLD = b"\x33" * 446 + bytes(16) + b"\x44" * 48 + b"\x55\xaa"


class Bench:
    """A disk of files, a Debian tree, and a head that hands out PIECES."""

    def __init__(self, tmp_path: Path) -> None:
        self.facts = replace(disk_of_files(tmp_path), firmware="bios")
        self.disk = Path(self.facts.disks[0].path)
        with self.disk.open("wb") as file:
            file.write(OLD)
            file.truncate(1 << 30)
        self.root = systems.debian(tmp_path / "root")
        (self.root / "boot/efi").mkdir(parents=True)
        for name in (f"boot/vmlinuz-{KERNEL}", f"boot/initrd.img-{KERNEL}"):
            put(self.root, name, "x")
        put(self.root, "boot/grub/grub.cfg", CFG)
        self.lines: list[str] = []
        self.pieces = dict(PIECES)

    def plan(self, cmdline: str = "") -> InstallPlan:
        return replace(
            plan(), boot=tuple(BootPiece(name, "", len(data)) for name, data in self.pieces.items()), cmdline=cmdline
        )

    def install(self, cmdline: str = "", parts: tuple[Placed, ...] = tuple(PARTS), facts: Facts | None = None) -> None:
        boot.install(str(self.root), str(self.disk), parts, self.plan(cmdline), lambda p: self.pieces[p.name],
                     facts or self.facts, self.lines.append)  # fmt: skip

    def efi(self) -> dict[str, str]:
        base = self.root / "boot/efi/EFI"
        return {str(p.relative_to(base)): p.read_text() for p in sorted(base.rglob("*")) if p.is_file()}


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


def started(disk: Path) -> bytes:
    """What GRUB's first stages load: boot.img one sector, that one's list of sectors the rest (boot.S, diskboot.S)."""
    data = disk.open("rb")
    with data:
        first = data.read(512)
        (lba,) = struct.unpack_from("<Q", first, 0x5C)
        assert first[0x64] == 0xFF and first[0x66:0x68] == b"\x90\x90" and first[510:] == b"\x55\xaa"
        data.seek(lba * 512)
        stage = data.read(512)
        start, count, segment = struct.unpack_from("<QHH", stage, 0x1F4)
        assert segment == 0x820 and not any(stage[0x1F4 - 12 : 0x1F4])  # an empty entry ends the list
        data.seek(start * 512)
        return stage + data.read(count * 512)


def test_the_bios_finds_the_whole_core_and_the_table_stays(bench: Bench) -> None:
    bench.pieces["core.img"] = PIECES["core.img"][:488] + bytes(24) + PIECES["core.img"][512:]
    bench.install()
    loaded = started(bench.disk)
    core = bench.pieces["core.img"]
    assert loaded[:0x1F4] == core[:0x1F4] and loaded[512:].rstrip(b"\0") == core[512:]
    first = bench.disk.open("rb").read(512)
    assert first[0x1B8:0x1FE] == OLD[0x1B8:0x1FE] and first[:0x5C] == PIECES["boot.img"][:0x5C]
    assert bench.lines[-1] == "boot loader: BIOS and UEFI"


def test_uefi_has_the_heads_pair_and_both_configurations(bench: Bench) -> None:
    bench.install()
    stub = SEARCH + "set prefix=($root)/boot/grub\nconfigfile ($root)/boot/grub/grub.cfg\n"
    assert bench.efi() == {
        "BOOT/BOOTX64.EFI": "head's shim", "BOOT/grubx64.efi": "head's grub", "BOOT/mmx64.efi": "head's mm",
        "debian/grub.cfg": stub, "gild/grub.cfg": stub,
    }  # fmt: skip
    assert (bench.root / "boot/grub/grub.cfg").read_text() == CFG


def test_the_images_own_pair_comes_first_but_never_half_of_it(bench: Bench) -> None:
    put(bench.root, "usr/lib/shim/shimx64.efi.signed", "own shim")
    put(bench.root, "boot/efi/EFI/BOOT/fbx64.efi", "would reorder the firmware's list")
    bench.install()
    assert bench.efi()["BOOT/BOOTX64.EFI"] == "head's shim" and "BOOT/fbx64.efi" not in bench.efi()
    put(bench.root, "usr/lib/grub/x86_64-efi-signed/grubx64.efi.signed", "own grub")
    put(bench.root, "etc/os-release", "ID=ubuntu\n")
    bench.install()
    assert {name: text for name, text in bench.efi().items() if "efi" in name.lower()}["BOOT/grubx64.efi"] == "own grub"
    assert bench.efi()["BOOT/BOOTX64.EFI"] == "own shim" and "ubuntu/grub.cfg" in bench.efi()


def test_a_boot_partition_of_its_own_is_where_grub_looks(bench: Bench, tmp_path: Path) -> None:
    layout = (*LAYOUT[:2], replace(LAYOUT[3], name="boot", size="200MiB", mount="/boot", role="boot"), LAYOUT[3])
    (tmp_path / "disk3").write_bytes((tmp_path / "disk4").read_bytes())
    bench.install(parts=tuple(place(layout, 1 << 30, 1 << 30, {})))
    assert "set prefix=($root)/grub\n" in bench.efi()["gild/grub.cfg"]


def test_what_only_fedoras_grub_reads_becomes_a_menu_on_the_esp(bench: Bench) -> None:
    (bench.root / "boot/grub/grub.cfg").unlink()
    put(bench.root, "boot/grub2/grub.cfg", "blscfg\n")
    text = f"linux /boot/vmlinuz-{KERNEL}\ninitrd /boot/initrd.img-{KERNEL}\noptions root=UUID={UUID} ro\n"
    put(bench.root, "boot/loader/entries/x.conf", text)
    bench.install("mitigations=off")
    menu = bench.efi()["gild/grub.cfg"]
    assert f"linux /boot/vmlinuz-{KERNEL} root=UUID={UUID} ro mitigations=off\n" in menu
    assert SEARCH in menu and f"initrd /boot/initrd.img-{KERNEL}\n" in menu


def test_the_images_own_grub_reads_what_only_it_can_and_the_bios_gets_the_menu(bench: Bench) -> None:
    (bench.root / "boot/grub/grub.cfg").unlink()
    put(bench.root, "etc/os-release", 'ID="rocky"\nID_LIKE="rhel centos fedora"\n')
    put(bench.root, "boot/grub2/grub.cfg", "insmod blscfg\nblscfg\n")
    entry = f"linux /boot/vmlinuz-{KERNEL}\ninitrd /boot/initrd.img-{KERNEL}\noptions root=UUID={UUID} ro\n"
    put(bench.root, "boot/loader/entries/x.conf", entry)
    for name in ("shimx64.efi", "grubx64.efi"):
        put(bench.root, f"boot/efi/EFI/rocky/{name}", f"rocky's {name}")
    put(bench.root, "boot/efi/EFI/BOOT/fbx64.efi", "")
    bench.install()
    efi = bench.efi()
    assert efi["BOOT/BOOTX64.EFI"] == "rocky's shimx64.efi" and efi["BOOT/grubx64.efi"] == "rocky's grubx64.efi"
    assert efi["rocky/grub.cfg"] == SEARCH + "set prefix=($root)/boot/grub2\nconfigfile ($root)/boot/grub2/grub.cfg\n"
    assert "menuentry" in efi["gild/grub.cfg"] and "BOOT/fbx64.efi" not in efi and "debian/grub.cfg" not in efi


def test_modules_of_another_grub_are_out_of_reach(bench: Bench) -> None:
    put(bench.root, "boot/grub/i386-pc/normal.mod", "of another version")
    bench.install()
    assert bench.efi()["gild/grub.cfg"] == SEARCH + "configfile ($root)/boot/grub/grub.cfg\n"
    assert "set prefix" in bench.efi()["debian/grub.cfg"]


@pytest.mark.parametrize("command", ["linux16", "linuxefi"])
def test_commands_of_one_platform_alone_become_a_plain_menu(bench: Bench, command: str) -> None:
    put(bench.root, "boot/grub/grub.cfg", CFG.replace("  linux ", f"\t{command} "))
    bench.install()
    for name in ("gild", "debian"):
        assert f"    linux /boot/vmlinuz-{KERNEL} root=UUID={UUID} ro\n" in bench.efi()[f"{name}/grub.cfg"]


@pytest.mark.skipif(shutil.which("grub-script-check") is None, reason="no grub-script-check here")
def test_grub_itself_can_read_what_is_written(bench: Bench) -> None:
    (bench.root / "boot/grub/grub.cfg").unlink()
    bench.install("mitigations=off")
    for path in ("boot/grub/grub.cfg", "boot/efi/EFI/gild/grub.cfg", "boot/efi/EFI/debian/grub.cfg"):
        subprocess.run(["grub-script-check", bench.root / path], check=True)


def test_a_tree_without_configuration_gets_one_and_without_kernel_is_refused(bench: Bench) -> None:
    (bench.root / "boot/grub/grub.cfg").unlink()
    bench.install("quiet")
    assert (
        f"linux /boot/vmlinuz-{KERNEL} root=UUID={UUID} ro console=tty0 console=ttyS0,115200 quiet\n"
        in (bench.root / "boot/grub/grub.cfg").read_text()
    )
    (bench.root / "boot/grub/grub.cfg").unlink()
    (bench.root / f"boot/vmlinuz-{KERNEL}").unlink()
    before = bench.disk.open("rb").read(4096)
    with pytest.raises(BootFailed, match="no kernel in boot/"):
        bench.install()
    assert bench.disk.open("rb").read(4096) == before


@pytest.mark.parametrize("change, message", [
    ({"core.img": b"c" * (1 << 21)}, "core.img has 2097152 bytes and partition bios 1048576"),
    ({"core.img": b""}, "not a GRUB core image"), ({"core.img": None}, "the head has no boot.img and core.img"),
    ({"boot.img": b"x" * 512}, "not a GRUB boot sector"),
])  # fmt: skip
def test_a_bios_machine_without_usable_pieces_is_refused_before_the_first_sector(
    bench: Bench, change: dict[str, bytes | None], message: str
) -> None:
    for name, data in change.items():
        if data is None:
            del bench.pieces[name]
        else:
            bench.pieces[name] = data
    with pytest.raises(BootFailed, match=message):
        bench.install()
    assert bench.disk.open("rb").read(512) == OLD


def test_a_uefi_machine_does_without_the_bios_part_and_has_an_entry(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[tuple[str, int, str]] = []
    monkeypatch.setattr(nvram, "register", lambda disk, part, loader, log: made.append((disk, part, loader)))
    del bench.pieces["core.img"]
    bench.install(facts=replace(bench.facts, firmware="uefi"))
    assert made == [(str(bench.disk), 2, r"\EFI\BOOT\BOOTX64.EFI")]
    assert bench.lines[-1] == "boot loader: UEFI only, the head has no boot.img and core.img"
    del bench.pieces["shimx64.efi"]
    with pytest.raises(BootFailed, match="no shim and GRUB"):
        bench.install(facts=replace(bench.facts, firmware="uefi"))


def test_sectors_of_4096_bytes_are_for_uefi_alone(bench: Bench) -> None:
    with pytest.raises(BootFailed, match="sectors of 4096 bytes"):
        bench.install(parts=tuple(replace(part, sector=4096) for part in PARTS))


@pytest.mark.parametrize("cmdline", ["a;reboot", 'x="y"', "$x", "a\nb", "a{b}"])
def test_arguments_that_grub_would_take_apart_are_refused(bench: Bench, cmdline: str) -> None:
    with pytest.raises(BootFailed, match="kernel arguments"):
        bench.install(cmdline)
    assert (bench.root / "boot/grub/grub.cfg").read_text() == CFG


def test_kexec_starts_what_grub_would(bench: Bench) -> None:
    bench.install("mitigations=off")
    found = boot.kernel_of(str(bench.root), bench.plan("mitigations=off"))
    assert found == boot.Kernel(
        f"{bench.root}/boot/vmlinuz-{KERNEL}",
        f"{bench.root}/boot/initrd.img-{KERNEL}",
        f"root=UUID={UUID} ro mitigations=off",
    )
    (bench.root / "boot/grub/grub.cfg").unlink()
    with pytest.raises(KexecFailed, match="names no kernel"):
        boot.kernel_of(str(bench.root), bench.plan())


def test_links_in_the_image_lead_no_loader_file_out_of_it(bench: Bench, tmp_path: Path) -> None:
    put(tmp_path, "outside/x", "theirs")
    (bench.root / "boot/grub/grub.cfg").unlink()
    (bench.root / "boot/grub").rmdir()
    systems.link(bench.root, "boot/grub", f"{tmp_path}/outside")
    systems.link(bench.root, "boot/efi/EFI", f"{tmp_path}/outside")
    before = systems.picture(tmp_path / "outside")
    bench.install()
    assert systems.picture(tmp_path / "outside") == before
