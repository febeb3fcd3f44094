"""Facts from trees like those real machines show in /sys, and from this machine's own."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from netboot.agent import facts
from netboot.report import Disk, Facts
from netboot.wire import decode, encode

PCI = "devices/pci0000:00"


class Tree:
    """A /sys, /proc and /dev of files, built from paths as kernels have them."""

    def __init__(self, root: Path) -> None:
        self.sys, self.proc, self.dev = root / "sys", root / "proc", root / "dev"
        for folder in (self.sys / "block", self.sys / "class/net", self.proc, self.dev):
            folder.mkdir(parents=True)

    def put(self, path: str, **values: str | bytes) -> Path:
        folder = self.sys / path
        folder.mkdir(parents=True, exist_ok=True)
        for name, value in values.items():
            (folder / name).write_bytes(value if isinstance(value, bytes) else f"{value}\n".encode())
        return folder

    def driver(self, device: str, driver: str, module: str | None = None) -> None:
        home = self.put(f"bus/x/drivers/{driver}")
        (self.put(device) / "driver").symlink_to(home)
        if module is not None and not (home / "module").exists():
            (home / "module").symlink_to(self.put(f"module/{module}"))

    def disk(self, device: str, name: str, size: int, content: bytes = b"", **values: str) -> None:
        folder = self.put(f"{device}/block/{name}", size=str(size // 512), removable="0", **values)
        self.put(f"{device}/block/{name}/queue", logical_block_size="512", rotational="0")
        (folder / "device").symlink_to(self.sys / device)
        (self.sys / "block" / name).symlink_to(folder)
        (self.dev / name).write_bytes(content.ljust(65536, b"\0"))

    def nic(self, device: str, name: str, **values: str) -> None:
        folder = self.put(f"{device}/net/{name}", **values)
        (folder / "device").symlink_to(self.sys / device)
        (self.sys / "class/net" / name).symlink_to(folder)

    def gather(self, mac: str = "") -> Facts:
        return facts.gather(str(self.sys), str(self.proc), str(self.dev), mac)


@pytest.fixture
def tree(tmp_path: Path) -> Tree:
    return Tree(tmp_path)


def test_nvme(tree: Tree) -> None:
    pci = f"{PCI}/0000:00:1d.0/0000:03:00.0"
    tree.driver(pci, "nvme", "nvme")
    tree.put(f"{pci}/nvme/nvme0", model="SAMSUNG MZQL2960HCJR-00A07              ", serial="S64ANE0R100001      ")
    tree.disk(f"{pci}/nvme/nvme0", "nvme0n1", 960_197_124_096, wwid="eui.36344130526000010025384500000001")
    assert tree.gather().disks == (
        Disk(
            f"{tree.dev}/nvme0n1", 960_197_124_096, "SAMSUNG MZQL2960HCJR-00A07", "S64ANE0R100001",
            "eui.36344130526000010025384500000001", "nvme", driver="nvme", content="empty",
        ),
    )  # fmt: skip


def test_sata_behind_ahci_with_its_serial_in_page_80(tree: Tree) -> None:
    host = f"{PCI}/0000:00:1f.2/ata1/host0/target0:0:0/0:0:0:0"
    tree.driver(f"{PCI}/0000:00:1f.2", "ahci", "ahci")
    tree.driver(host, "sd", "sd_mod")
    tree.put(host, model="ST4000NM0035-1V4", wwid="naa.5000c500a1b2c3d4", vpd_pg80=b"\0\x80\0\x14            ZC11A2B3")
    tree.disk(host, "sda", 4_000_787_030_016)
    (tree.sys / "block/sda/queue/rotational").write_text("1\n")
    (disk,) = tree.gather().disks
    assert (disk.bus, disk.driver, disk.serial, disk.rotational) == ("sata", "ahci", "ZC11A2B3", True)
    assert disk.wwn == "naa.5000c500a1b2c3d4"


@pytest.mark.parametrize(
    ("device", "driver", "bus"),
    [
        (f"{PCI}/0000:00:02.0/0000:01:00.0/host0/port-0:0/end_device-0:0/target0:0:0/0:0:0:0", "mpt3sas", "sas"),
        (f"{PCI}/0000:00:02.0/0000:01:00.0/host0/target0:2:0/0:2:0:0", "megaraid_sas", "scsi"),
        (f"{PCI}/0000:00:05.0/virtio2", "virtio_blk", "virtio"),
        (f"{PCI}/0000:00:05.0/virtio2/host2/target2:0:0/2:0:0:0", "virtio_scsi", "scsi"),
        (f"{PCI}/0000:00:14.0/usb2/2-1/2-1:1.0/host6/target6:0:0/6:0:0:0", "usb-storage", "usb"),
        ("devices/platform/soc/fe340000.mmc/mmc_host/mmc0/mmc0:0001", "sdhci-iproc", "mmc"),
        ("devices/LNXSYSTM:00/ACPI0004:00/VMBUS:01/f8b3781a/host0/target0:0:0/0:0:0:0", "hv_storvsc", "hyperv"),
        ("devices/vbd-51712", "vbd", "xen"),
    ],
)  # fmt: skip
def test_buses_and_drivers(tree: Tree, device: str, driver: str, bus: str) -> None:
    controller = device.partition("/host")[0] if "/host" in device else device
    tree.driver(controller, driver)
    if "/host" in device:
        tree.driver(device, "sd")
    tree.disk(device, "sda", 1 << 30)
    (disk,) = tree.gather().disks
    assert (disk.bus, disk.driver) == (bus, driver)


def test_the_module_counts_and_not_the_name_of_the_driver(tree: Tree) -> None:
    tree.driver(f"{PCI}/0000:00:1f.2", "ahci", "ahci_platform")
    tree.disk(f"{PCI}/0000:00:1f.2/ata1/host0", "sda", 1 << 30)
    assert tree.gather().disks[0].driver == "ahci_platform"


def test_what_is_no_disk_is_left_out(tree: Tree) -> None:
    for name in ("loop0", "ram0", "sr0", "fd0", "dm-0", "md127", "zram0", "nbd0", "mmcblk0boot0", "mmcblk0rpmb"):
        tree.disk(f"devices/virtual/{name}", name, 1 << 30)
    tree.disk("devices/card-reader", "sdz", 0)
    for name in ("vda", "mmcblk0", "sdaa", "sdb"):
        tree.disk(f"devices/{name}", name, 1 << 30)
    assert [disk.path.rsplit("/")[-1] for disk in tree.gather().disks] == ["sdb", "vda", "sdaa", "mmcblk0"]


def test_nics(tree: Tree) -> None:
    tree.driver(f"{PCI}/0000:00:19.0", "e1000e", "e1000e")
    tree.nic(f"{PCI}/0000:00:19.0", "eth0", address="52:54:00:AA:00:01", carrier="1", speed="1000")
    tree.nic(f"{PCI}/0000:00:1a.0", "eth1", address="52:54:00:aa:00:02", speed="-1")
    tree.put("class/net/lo", address="00:00:00:00:00:00")
    tree.put("class/net/br0", address="52:54:00:aa:00:03")
    nics = tree.gather("52:54:00:aa:00:02").nics
    assert [(nic.name, nic.mac, nic.driver, nic.link, nic.speed, nic.boot) for nic in nics] == [
        ("eth0", "52:54:00:aa:00:01", "e1000e", True, 1000, False),
        ("eth1", "52:54:00:aa:00:02", "", False, 0, True),
    ]
    assert tree.gather("52:54:00:aa:00:03").nics[0].name == "br0"  # booted from it: it counts whatever it is


def test_the_machine(tree: Tree) -> None:
    dmi = {"sys_vendor": "Dell Inc.", "product_name": "PowerEdge R640", "product_serial": "ABC123"}
    tree.put("class/dmi/id", **dmi, product_uuid="4C4C4544-0042-3110-8054-C7C04F4D3233")
    tree.put("firmware/efi/efivars", **{"SecureBoot-8be4df61-93ca-11d2-aa0d-00e098032b8c": b"\x06\0\0\0\x01"})
    tree.put("devices/system/memory", block_size_bytes="8000000")
    for number in range(4):
        tree.put(f"devices/system/memory/memory{number}", online="1")
    tree.put("devices/system/memory/memory9", online="0")
    (tree.proc / "cpuinfo").write_text(CPUINFO)
    found = tree.gather()
    assert (found.firmware, found.secure_boot) == ("uefi", True)
    assert (found.vendor, found.product, found.serial) == ("Dell Inc.", "PowerEdge R640", "ABC123")
    assert found.uuid == "4c4c4544-0042-3110-8054-c7c04f4d3233"
    assert found.memory == 512 << 20
    assert (found.cpu, found.cores, found.threads) == ("Intel(R) Xeon(R) Gold 6230 CPU @ 2.10GHz", 3, 4)
    assert found.sockets == 2


def test_gpus_are_not_displays(tree: Tree) -> None:
    cards = [
        ("0x030000", "0x1a03", "0x2000"),  # a board's own display
        ("0x030200", "0x10de", "0x20b0"),
        ("0x030000", "0x10de", "0x2204"),
        ("0x038000", "0x1002", "0x740c"),
        ("0x020000", "0x10de", "0x1234"),  # no display at all
    ]
    for number, (kind, vendor, device) in enumerate(cards):
        tree.put(f"bus/pci/devices/0000:0{number}:00.0", **{"class": kind, "vendor": vendor, "device": device})
    assert tree.gather().gpus == ("10de:20b0", "10de:2204", "1002:740c")


def test_a_machine_that_shows_nothing_is_no_error(tree: Tree) -> None:
    found = tree.gather()
    assert (found.firmware, found.disks, found.nics, found.memory) == ("bios", (), (), 0)
    (tree.proc / "meminfo").write_text("MemTotal:         495616 kB\nMemFree: 1 kB\n")
    assert tree.gather().memory == 495616 * 1024


def test_hostile_claims_stay_short_and_printable(tree: Tree) -> None:
    tree.put("class/dmi/id", sys_vendor=b"\x1b[31mEvil\n\xff" + b"x" * 9000)
    tree.disk("devices/x", "sda", 1 << 30)
    tree.put("devices/x/block/sda", size="9" * 400, serial="a\nb")
    found = tree.gather()
    assert found.vendor.isprintable() and len(found.vendor) <= facts.MAX_TEXT
    assert found.disks == ()


def test_this_machine() -> None:
    found = facts.gather()
    assert found.memory > 1 << 28 and found.threads >= 1 and found.arch == os.uname().machine
    assert decode(Facts, encode(found)) == found
    named = {disk.path for disk in found.disks}
    assert not any(path.startswith(("/dev/loop", "/dev/zram")) for path in named)


@pytest.mark.parametrize(
    ("page", "serial"),
    [(b"", ""), (b"\0\x80", ""), (b"\0\x83\0\x04abcd", ""), (b"\0\x80\0\x04ab", "ab"), (b"\0\x80\0\x03 a b", "a")],
)
def test_page_80(page: bytes, serial: str) -> None:
    assert facts.parse_page80(page) == serial


@pytest.mark.parametrize(
    ("wwid", "wwn"),
    [
        ("naa.5000C500A1B2C3D4\n", "naa.5000c500a1b2c3d4"),
        ("t10.ATA     QEMU HARDDISK   QM00005", ""),
        ("eui.0000000000000000", ""),
        ("naa.zz", ""),
        ("", ""),
    ],
)
def test_wwid(wwid: str, wwn: str) -> None:
    assert facts.parse_wwid(wwid) == wwn


def test_speed() -> None:
    assert [facts.parse_speed(text) for text in ("25000\n", "-1", "4294967295", "", "fast")] == [25000, 0, 0, 0, 0]


CPUINFO = "".join(
    f"processor\t: {n}\nmodel name\t: Intel(R) Xeon(R) Gold 6230  CPU @ 2.10GHz\n"
    f"physical id\t: {package}\ncore id\t\t: {core}\n\n"
    for n, (package, core) in enumerate([(0, 0), (0, 0), (0, 1), (1, 0)])
)
