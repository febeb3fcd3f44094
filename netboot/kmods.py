"""Which kernel modules the installer carries, and the index that says who needs whom and who drives what.

A kernel package brings modules but no modules.dep: depmod writes it when a kernel is installed. The same facts stand
in each module's .modinfo section, so they are read from there and written in depmod's own formats (modules.dep(5)):
the agent's loader and busybox's modprobe, which the kernel calls for what it wants itself, both read these.
"""

from __future__ import annotations

import lzma
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from netboot.elf import Elf

NAME = re.compile(r"[A-Za-z0-9_]{1,64}")  # MODULE_NAME_LEN is 64 - sizeof(unsigned long)
SUFFIXES = (".ko", ".ko.xz")  # uncompressed up to Debian 12, xz from Debian 13 on

# By what they are for. Names a kernel does not have are passed over: drivers come and go between versions.
WANTED: dict[str, str] = {
    "net": """virtio_net e1000 e1000e igb igbvf igc ixgbe ixgbevf i40e iavf ice mlx4_en mlx5_core bnxt_en bnx2 bnx2x
        tg3 r8169 atlantic be2net cxgb4 qede qlcnic sfc ena vmxnet3 hv_netvsc gve enic ionic 8139too 8139cp sky2
        forcedeth atl1c alx realtek broadcom marvell r8152 ax88179_178a cdc_ether cdc_ncm nfp pcnet32 ne2k_pci""",
    "links": "bonding 8021q af_packet",
    "storage": """virtio_pci virtio_blk virtio_scsi nvme vmd ahci ata_piix ata_generic sd_mod sr_mod mpt3sas
        megaraid_sas hpsa smartpqi aacraid arcmsr mvsas mpi3mr pm80xx isci vmw_pvscsi hv_storvsc hv_vmbus mptsas mptspi
        sym53c8xx usb_storage uas xhci_pci ehci_pci uhci_hcd ohci_pci mmc_block sdhci_pci sdhci_acpi sg ses libata
        xen_blkfront""",
    "filesystems": """ext4 xfs btrfs vfat nls_cp437 nls_ascii nls_iso8859_1 nls_utf8 isofs squashfs overlay loop
        efivarfs crc32c_generic crc32c_intel libcrc32c""",
    "volumes": "dm_mod dm_crypt md_mod raid0 raid1 raid10 raid456 dm_mirror dm_snapshot dm_thin_pool",
    "platform": """virtio_rng virtio_console usbhid hid_generic ipmi_si ipmi_devintf evdev qemu_fw_cfg pci_hyperv
        hv_utils hyperv_keyboard i2c_piix4""",
}


@dataclass(frozen=True)
class Module:
    """One chosen module: its file's bytes as the kernel takes them (the signature at their end included), the modules
    it needs, those its softdep lines name before and after it, and the aliases it answers to."""

    name: str
    data: bytes
    depends: tuple[str, ...]
    before: tuple[str, ...]
    after: tuple[str, ...]
    aliases: tuple[str, ...]


def module_name(file: str) -> str:
    """The module in a file of that name: dashes are underscores to the kernel. "" if it is no module's file."""
    base = file.rpartition("/")[2]
    for suffix in SUFFIXES:
        if base.endswith(suffix):
            return base.removesuffix(suffix).replace("-", "_")
    return ""


def read_module(name: str, file: str, data: bytes) -> Module:
    """Read a module's .modinfo. `file` is the name it was found under (it says whether it is compressed).
    Raises ElfInvalid or lzma.LZMAError for what is no module. Names that no module can have are dropped."""
    if file.endswith(".xz"):
        data = lzma.decompress(data)
    depends: list[str] = []
    soft: dict[str, list[str]] = {"pre:": [], "post:": []}
    aliases: list[str] = []
    for key, value in Elf(data, file).modinfo():
        if key == "depends":
            depends += names(value.split(","))
        elif key == "softdep":
            side = "pre:"  # modprobe.d(5): softdep NAME pre: MODULES post: MODULES
            for word in value.split():
                if word in soft:
                    side = word
                else:
                    soft[side] += names([word])
        elif key == "alias" and value and value.isprintable() and not any(c.isspace() for c in value):
            aliases.append(value)
    return Module(name, data, *(tuple(dict.fromkeys(x)) for x in (depends, soft["pre:"], soft["post:"], aliases)))


def names(words: Iterable[str]) -> list[str]:
    """Those of `words` that can be module names, with underscores."""
    plain = (word.strip().replace("-", "_") for word in words)
    return [word for word in plain if NAME.fullmatch(word)]


def choose(wanted: Iterable[str], files: Mapping[str, str], fetch: Callable[[str], bytes]) -> dict[str, Module]:
    """The wanted modules and all they need, by name. `files` gives each module's file, `fetch` a file's bytes.

    A name without a file is left out: it is built in, or this kernel has no such driver. Soft dependencies come along
    where they exist. Every module is read once, so the work is bounded by the number of files.
    """
    found: dict[str, Module] = {}
    todo = names(wanted)
    while todo:
        name = todo.pop()
        if name not in found and name in files:
            found[name] = module = read_module(name, files[name], fetch(files[name]))
            todo += [*module.depends, *module.before, *module.after]
    return dict(sorted(found.items()))


def order(name: str, modules: Mapping[str, Module]) -> list[str]:
    """What must be loaded before `name`, first things first, `name` itself left out. Built-in modules are left out.
    A circle, which no sound kernel has, is cut where it closes."""
    done: list[str] = []
    open_: list[tuple[str, list[str]]] = [(name, list(modules[name].depends))]
    seen = {name}
    while open_:
        current, rest = open_[-1]
        if rest:
            following = rest.pop(0)
            if following in modules and following not in seen:
                seen.add(following)
                open_.append((following, list(modules[following].depends)))
            continue
        open_.pop()
        done.append(current)
    return done[:-1]


def index(modules: Mapping[str, Module]) -> dict[str, bytes]:
    """modules.dep, modules.alias and modules.softdep for modules that lie flat in one folder as NAME.ko.

    modules.dep names all that a module needs, the first to be loaded last, as depmod has it.
    """
    dep, alias, soft = [], [], []
    for name in sorted(modules):
        module = modules[name]
        needs = " ".join(f"{needed}.ko" for needed in reversed(order(name, modules)))
        dep.append(f"{name}.ko: {needs}".rstrip())
        alias += [f"alias {pattern} {name}" for pattern in module.aliases]
        if module.before or module.after:
            sides = [(word, side) for word, side in (("pre:", module.before), ("post:", module.after)) if side]
            soft.append(f"softdep {name} " + " ".join(f"{word} {' '.join(side)}" for word, side in sides))
    texts = {"modules.dep": dep, "modules.alias": alias, "modules.softdep": soft}
    return {file: "".join(f"{line}\n" for line in lines).encode() for file, lines in texts.items()}
