"""The machine, as /sys and /proc show it: parsers of text (pure), and thin readers over them."""

from __future__ import annotations

import os
import platform
import re
from collections.abc import Iterable

from netboot.agent import probe
from netboot.report import Disk, Facts, Nic

MAX_DISKS = 256
MAX_NICS = 64
MAX_GPUS = 64
MAX_TEXT = 128  # characters of one claim of the hardware
# Not disks to install on: loop, RAM, optical, floppy, device mapper, md, network block, eMMC boot and RPMB areas.
_NO_DISK = re.compile(r"(loop|ram|sr|fd|dm-|md\d|zram|nbd|mtdblock)|mmcblk\d+(boot\d|rpmb)")
_NVIDIA = "10de"  # in pci.ids
# Drivers of the disk, not of its controller.
_UPPER = {"sd", "sr", "ses", "mmcblk"}
_SECURE_BOOT = "SecureBoot-8be4df61-93ca-11d2-aa0d-00e098032b8c"  # UEFI 2.10 section 3.3, EFI_GLOBAL_VARIABLE


def gather(sys: str = "/sys", proc: str = "/proc", dev: str = "/dev", boot_mac: str = "") -> Facts:
    """Everything the head wants to know. `boot_mac` marks the NIC the machine booted from. Never raises: what cannot
    be read stays empty."""
    dmi = f"{sys}/class/dmi/id"
    cpu, sockets, cores, threads = parse_cpuinfo(_text(f"{proc}/cpuinfo", 1 << 20))
    return Facts(
        firmware="uefi" if os.path.isdir(f"{sys}/firmware/efi") else "bios",
        secure_boot=_bytes(f"{sys}/firmware/efi/efivars/{_SECURE_BOOT}")[-1:] == b"\x01",
        vendor=_word(f"{dmi}/sys_vendor"),
        product=_word(f"{dmi}/product_name") or _word(f"{sys}/firmware/devicetree/base/model"),
        serial=_word(f"{dmi}/product_serial") or _word(f"{sys}/firmware/devicetree/base/serial-number"),
        uuid=_word(f"{dmi}/product_uuid").lower(),
        cpu=cpu,
        cores=cores,
        threads=threads or os.cpu_count() or 0,
        arch=platform.machine(),
        memory=memory(sys, proc),
        disks=read_disks(sys, dev),
        nics=read_nics(sys, boot_mac),
        kernel=platform.release(),
        sockets=sockets,
        gpus=read_gpus(sys),
    )


def parse_cpuinfo(text: str) -> tuple[str, int, int, int]:
    """(model, sockets, cores, threads) of /proc/cpuinfo; on arm64, which tells no more, ("", 0, 0, threads)."""
    model, threads, cores, package = "", 0, set(), ""
    for line in text.splitlines():
        key, _, value = (part.strip() for part in line.partition(":"))
        if key == "processor":
            threads += 1
            package = ""
        elif key == "model name" and not model:
            model = _plain(" ".join(value.split()))
        elif key == "physical id":
            package = value
        elif key == "core id":
            cores.add((package, value))
    return model, len({package for package, _ in cores}), len(cores), threads


def parse_meminfo(text: str) -> int:
    """Bytes of MemTotal of /proc/meminfo, 0 if it is not there."""
    match = re.search(r"^MemTotal:\s+(\d{1,15}) kB", text, re.MULTILINE)
    return int(match[1]) * 1024 if match else 0


def parse_speed(text: str) -> int:
    """Mbit/s of a NIC's `speed` file; a link that is down says -1 or, as an unsigned number, 4294967295."""
    try:
        speed = int(text)
    except ValueError:
        return 0
    return speed if 0 < speed < 10_000_000 else 0


def bus_of(device: str) -> str:
    """The bus of a disk, from the resolved path of its device in /sys (as in Documentation/admin-guide/sysfs-rules).

    The innermost wins where several appear: a USB stick's path goes through PCI and SCSI, too.
    """
    for mark, bus in (
        ("/usb", "usb"),
        ("/nvme", "nvme"),
        ("/mmc_host/", "mmc"),
        ("/end_device-", "sas"),
        ("/ata", "sata"),
        ("/session", "iscsi"),
        ("/vmbus", "hyperv"),
        ("/host", "scsi"),
        ("/virtio", "virtio"),
        ("/vbd-", "xen"),
    ):
        if re.search(mark + (r"\d" if mark[-1].isalpha() and mark != "/vmbus" else ""), device.lower()):
            return bus
    return ""


def parse_wwid(wwid: str) -> str:
    """The WWN in a `wwid` file: "naa.5000c500...", "eui.0025..."; "" for the t10 and uuid kinds, which name no port."""
    text = wwid.strip().lower()
    return text if re.fullmatch(r"(naa|eui)\.[0-9a-f]{16,32}", text) and text.strip("naeui.0") else ""


def parse_page80(page: bytes) -> str:
    """The unit serial number in a SCSI VPD page 80h (SPC-4 7.8.15): 4 bytes of header, then ASCII."""
    if len(page) < 4 or page[1] != 0x80:
        return ""
    length = int.from_bytes(page[2:4], "big")
    return _plain(page[4 : 4 + length].decode("ascii", "replace").strip(" \0"))


def memory(sys: str, proc: str) -> int:
    """Bytes of RAM: the memory blocks that are online, which is what is plugged in; else what the kernel has left."""
    base = f"{sys}/devices/system/memory"
    try:
        block = int(_text(f"{base}/block_size_bytes"), 16)
        online = sum(
            _text(f"{base}/{name}/online").strip() != "0"
            for name in os.listdir(base)
            if re.fullmatch(r"memory\d+", name)
        )
    except (OSError, ValueError):
        return parse_meminfo(_text(f"{proc}/meminfo"))
    return block * online or parse_meminfo(_text(f"{proc}/meminfo"))


def read_disks(sys: str = "/sys", dev: str = "/dev") -> tuple[Disk, ...]:
    """The disks with a medium, in the kernel's order of names, at most MAX_DISKS."""
    return tuple(read_disk(name, sys, dev) for name in disk_names(sys))


def disk_names(sys: str = "/sys") -> list[str]:
    """The kernel names of the disks with a medium, at most MAX_DISKS."""
    names = [name for name in _names(f"{sys}/block") if not _NO_DISK.match(name)]
    return [name for name in names if _number(f"{sys}/block/{name}/size")][:MAX_DISKS]


def read_disk(name: str, sys: str = "/sys", dev: str = "/dev") -> Disk:
    """One block device by its kernel name ("sda", "nvme0n1")."""
    base = f"{sys}/block/{name}"
    real = os.path.realpath(base)
    size = (_number(f"{base}/size")) * 512  # always in units of 512, whatever the sector is (block/genhd.c)
    sector = _number(f"{base}/queue/logical_block_size") or 512
    serial = _word(f"{base}/serial") or _word(f"{base}/device/serial")
    return Disk(
        path=f"{dev}/{name.replace('!', '/')}",
        size=size,
        model=_word(f"{base}/device/model") or _word(f"{base}/device/name"),
        serial=serial or parse_page80(_bytes(f"{base}/device/vpd_pg80")),
        wwn=parse_wwid(_word(f"{base}/wwid") or _word(f"{base}/device/wwid")),
        bus=bus_of(real.removeprefix(os.path.realpath(sys))),
        rotational=_text(f"{base}/queue/rotational").strip() == "1",
        removable=_text(f"{base}/removable").strip() == "1",
        sector=sector,
        driver=_driver(real, os.path.realpath(sys)),
        content=probe.read_content(f"{dev}/{name.replace('!', '/')}", size, sector) if size else "",
    )


def read_nics(sys: str = "/sys", boot_mac: str = "") -> tuple[Nic, ...]:
    """The network cards: what has a device behind it, and the one the machine booted from in any case."""
    nics = []
    for name in _names(f"{sys}/class/net"):
        base = f"{sys}/class/net/{name}"
        mac = _word(f"{base}/address").lower()
        boot = bool(boot_mac) and mac == boot_mac.lower()
        if not re.fullmatch(r"([0-9a-f]{2}:){5,31}[0-9a-f]{2}", mac) or not mac.strip("0:"):
            continue
        if not (boot or os.path.exists(f"{base}/device")):
            continue
        nics.append(
            Nic(
                name=name,
                mac=mac,
                driver=_driver(os.path.realpath(f"{base}/device"), os.path.realpath(sys)),
                link=_text(f"{base}/carrier").strip() == "1",
                speed=parse_speed(_text(f"{base}/speed")),
                boot=boot,
            )
        )
    return tuple(nics[:MAX_NICS])


def read_gpus(sys: str = "/sys") -> tuple[str, ...]:
    """The cards that compute, "VENDOR:DEVICE" each in the hex digits of pci.ids, at most MAX_GPUS. They are of class 3D
    controller or other display (AMD's), or NVIDIA's of any; a board's own display is a plain VGA controller."""
    found = []
    for name in _names(f"{sys}/bus/pci/devices"):
        kind, vendor, device = (
            _word(f"{sys}/bus/pci/devices/{name}/{word}").removeprefix("0x") for word in ("class", "vendor", "device")
        )
        if kind.startswith(("0302", "0380")) or (kind.startswith("03") and vendor == _NVIDIA):
            found.append(f"{vendor}:{device}")
    return tuple(found[:MAX_GPUS])


def _driver(device: str, sys: str) -> str:
    """The kernel module (or built-in driver) nearest above `device` that drives a controller and not the disk."""
    at = device
    while len(at) > len(sys):
        link = f"{at}/driver"
        if os.path.islink(link):
            name = os.path.basename(os.path.realpath(link))
            if name not in _UPPER:
                module = f"{link}/module"
                return _plain(os.path.basename(os.path.realpath(module)) if os.path.islink(module) else name)
        at = os.path.dirname(at)
    return ""


def _names(folder: str) -> Iterable[str]:
    try:
        return sorted(os.listdir(folder), key=lambda name: (len(name), name))
    except OSError:
        return []


def _bytes(path: str, most: int = 4096) -> bytes:
    """At most `most` bytes of a file; b"" for whatever cannot be read (a NIC that is down refuses `carrier`)."""
    try:
        with open(path, "rb") as file:
            return file.read(most)
    except OSError:
        return b""


def _text(path: str, most: int = 4096) -> str:
    return _bytes(path, most).decode("utf-8", "replace")


def _word(path: str) -> str:
    return _plain(_text(path).strip(" \t\r\n\0"))


def _number(path: str) -> int:
    text = _text(path).strip()
    return int(text) if text.isascii() and text.isdigit() and len(text) < 19 else 0


def _plain(text: str) -> str:
    return "".join(c if c.isprintable() else "?" for c in text)[:MAX_TEXT]
