"""What firmware asks, and which loader it gets: DHCP options 60, 77, 93 and 175 to a boot file.

Every quirk stands beside its reason. The order of the questions matters: iPXE first (it also sends the options of the
firmware it runs on), then UEFI HTTP boot, then PXE.
"""

from __future__ import annotations

from collections.abc import Container
from dataclasses import dataclass
from enum import StrEnum

from netboot.dhcp import IPXE, DhcpRequest


class Firmware(StrEnum):
    """What is asking for a boot file."""

    BIOS = "bios"
    UEFI = "uefi"
    HTTP = "http"  # UEFI HTTP boot
    IPXE = "ipxe"
    NONE = "none"  # an operating system or a device that does not boot from the network


@dataclass(frozen=True)
class BootFile:
    """What to load. `name` is a TFTP name or, with `url`, a full URL; `server` the address to fetch it from;
    `echo_class` the value for option 60 and `ipxe_options` for option 175 if they must be sent; `quirk` says in one
    line why it is this file, for the timeline."""

    name: str
    server: str
    url: bool = False
    echo_class: str | None = None
    ipxe_options: bytes | None = None
    quirk: str = ""


# Sub-option 176 of iPXE's option 175, no-proxydhcp = 1: iPXE otherwise waits for a proxyDHCP offer that never comes
# (measured: 5.4 s to 2.3 s from power-on to the first HTTP request). https://ipxe.org/howto/dhcpd
NO_PROXYDHCP = b"\xb0\x01\x01"
_FEATURE_HTTP = 0x13  # DHCP_EB_FEATURE_HTTP in iPXE's features.h

# IANA "Processor Architecture Types" (RFC 5970, RFC 4578 with erratum 4625: 9, not only 7, is x86-64, and both occur).
_FAMILY = {
    0: "bios",
    6: "ia32",
    7: "x64",
    9: "x64",
    11: "aa64",
    15: "ia32",
    16: "x64",
    17: "x64",
    19: "aa64",
    20: "bios",
}

# The ladder of each family: the first loader that brings the node back is kept. The small loaders use the firmware's
# own network driver and so work on any card the firmware can boot from; where that driver is broken, iPXE's own
# drivers are next; the signed shim and GRUB last, since GRUB has to fetch kernel and initrd by TFTP (2-4 MB/s).
LADDER = {
    "bios": ("undionly.kpxe", "ipxe.pxe"),
    "x64": ("snponly.efi", "ipxe.efi", "shimx64.efi"),
    "ia32": ("snponly-ia32.efi", "ipxe-ia32.efi"),
    "aa64": ("snponly-arm64.efi", "ipxe-arm64.efi", "shimaa64.efi"),
}
# With Secure Boot on, firmware runs only what Microsoft's key has signed: the shim. It looks for grub<arch>.efi in
# the folder it came from.
SECURE = {"x64": ("shimx64.efi",), "aa64": ("shimaa64.efi",)}


def classify(request: DhcpRequest) -> Firmware:
    """Which of the five kinds of client this is."""
    vendor = request.vendor_class
    if _is_ipxe(request):
        return Firmware.IPXE
    if vendor.startswith("HTTPClient"):
        return Firmware.HTTP
    # gPXE and iPXE without HTTP come here with option 175 but not always a vendor class.
    if vendor.startswith("PXEClient") or request.has_ipxe_options:
        return Firmware.BIOS if _FAMILY.get(architecture(request) or 0, "") == "bios" else Firmware.UEFI
    return Firmware.NONE


def architecture(request: DhcpRequest) -> int | None:
    """The architecture number of option 93, or of the vendor class ("PXEClient:Arch:00007:...") of ROMs that leave
    option 93 out, or None."""
    if request.client_arch is not None:
        return request.client_arch
    parts = request.vendor_class.split(":")
    if len(parts) >= 3 and parts[1] == "Arch" and parts[2].isdecimal():
        return int(parts[2][:5])
    return None


def boot_file(
    request: DhcpRequest,
    head_ip: str,
    *,
    secure: bool,
    rung: int = 0,
    available: Container[str] | None = None,
) -> BootFile | None:
    """The loader for this client, or None if it does not boot from the network or nothing fits it.

    `secure`: the node has Secure Boot on (DHCP cannot tell; it is set for the node or the site). `rung`: how many
    loaders have failed to bring this node back; past the last one the ladder starts again, since the fault may have
    been elsewhere. `available`: the loaders the head really has; None means all.
    """
    kind = classify(request)
    if kind is Firmware.NONE:
        return None
    if kind is Firmware.IPXE:
        # The MAC is written out rather than left to iPXE: ${net0/mac} names the first card, which need not be the one
        # that boots (reported for many multi-card machines), ${netX/mac} the last one opened. The request's own
        # address is right by definition.
        url = f"http://{head_ip}/boot.ipxe?mac={request.mac}"
        return BootFile(url, head_ip, True, None, NO_PROXYDHCP, "iPXE fetches its script by HTTP")
    arch = architecture(request)
    family = _FAMILY.get(arch or 0, "")
    ladder = SECURE.get(family, ()) if secure and family != "bios" else LADDER.get(family, ())
    names = [name for name in ladder if available is None or name in available]
    if not names:
        return None
    name = names[rung % len(names)]
    why = (
        "Secure Boot: the signed shim" if secure and family != "bios" else f"{kind} firmware, architecture {arch or 0}"
    )
    if rung:
        why += f", attempt {rung + 1}"
    if kind is Firmware.HTTP:
        # EDK2 drops an offer whose option 60 does not begin with HTTPClient (HttpBootDhcp4.c).
        return BootFile(f"http://{head_ip}/boot/{name}", head_ip, True, "HTTPClient", None, why)
    # Option 60 is *not* echoed to PXEClient: EDK2 would take the offer for one of a boot server and ask port 4011.
    return BootFile(name, head_ip, False, None, None, why)


def _is_ipxe(request: DhcpRequest) -> bool:
    classes = request.user_class
    if "gPXE" in classes:
        return False  # the ancestor: its scripts begin with #!gpxe, so it is given our iPXE first
    if not request.has_ipxe_options:
        return "iPXE" in classes
    # Option 175 lists what this iPXE was built with. Some vendors' ROMs lack HTTP: they get our iPXE by TFTP, which
    # has it, so this cannot go round in circles.
    features = _suboptions(request.options[IPXE])
    return not features or _FEATURE_HTTP in features


def _suboptions(value: bytes) -> frozenset[int]:
    """Numbers of the encapsulated options in `value`; empty if it is not well formed."""
    found, at = set(), 0
    while at < len(value) and value[at] != 255:
        if value[at] == 0:
            at += 1
            continue
        if at + 1 >= len(value) or at + 2 + value[at + 1] > len(value):
            return frozenset()
        found.add(value[at])
        at += 2 + value[at + 1]
    return frozenset(found)
