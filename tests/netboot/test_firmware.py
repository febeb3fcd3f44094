"""Which loader which firmware gets."""

from __future__ import annotations

import pytest

from netboot.dhcp import DhcpRequest, Kind, parse
from netboot.firmware import LADDER, BootFile, Firmware, architecture, boot_file, classify
from tests.netboot.packets import packet

HEAD = "10.77.0.1"


def client(**options: bytes) -> DhcpRequest:
    numbers = {int(name[1:]): value for name, value in options.items()}
    none = "0.0.0.0"
    return DhcpRequest(1, 1, 1, 0, 0, none, none, none, none, "52:54:00:00:00:01", Kind.DISCOVER, numbers)


def pxe(arch: int) -> DhcpRequest:
    return client(o60=b"PXEClient:Arch:%05d:UNDI:003016" % arch, o93=arch.to_bytes(2, "big"))


@pytest.mark.parametrize(
    ("name", "kind", "file"),
    [
        ("ipxe-bios-discover", Firmware.IPXE, "http://10.77.0.1/boot.ipxe?mac=52:54:00:12:34:56"),
        ("ipxe-uefi-discover", Firmware.IPXE, "http://10.77.0.1/boot.ipxe?mac=52:54:00:12:34:56"),
        ("ipxe-no-http-discover", Firmware.BIOS, "undionly.kpxe"),
        ("gpxe-discover", Firmware.BIOS, "undionly.kpxe"),
        ("ovmf-pxe-discover", Firmware.UEFI, "snponly.efi"),
        ("ovmf-pxe-request", Firmware.UEFI, "snponly.efi"),
        ("ovmf-http-discover", Firmware.HTTP, "http://10.77.0.1/boot/snponly.efi"),
        ("aarch64-pxe-discover", Firmware.UEFI, "snponly-arm64.efi"),
        ("pxe-rom-discover", Firmware.BIOS, "undionly.kpxe"),
        ("relayed-discover", Firmware.IPXE, "http://10.77.0.1/boot.ipxe?mac=52:54:00:12:34:56"),
        ("udhcpc-discover", Firmware.UEFI, "snponly.efi"),  # sent with -V PXEClient:Arch:00007, no option 93
        ("dhclient-discover", Firmware.NONE, None),
    ],
)
def test_real_clients(name: str, kind: Firmware, file: str | None) -> None:
    request = parse(packet(name))
    assert classify(request) is kind
    boot = boot_file(request, HEAD, secure=False)
    assert (boot.name if boot else None) == file
    if boot:
        assert boot.server == HEAD
        assert boot.url is boot.name.startswith("http://")
        assert boot.echo_class == ("HTTPClient" if kind is Firmware.HTTP else None)
        assert boot.ipxe_options == (b"\xb0\x01\x01" if kind is Firmware.IPXE else None)
        assert boot.quirk


@pytest.mark.parametrize(
    ("arch", "name"),
    [(0, "undionly.kpxe"), (6, "snponly-ia32.efi"), (7, "snponly.efi"), (9, "snponly.efi"), (11, "snponly-arm64.efi")],
)
def test_architectures(arch: int, name: str) -> None:
    assert boot_file(pxe(arch), HEAD, secure=False) == BootFile(
        name, HEAD, quirk=f"{'uefi' if arch else 'bios'} firmware, architecture {arch}"
    )


def test_an_architecture_nobody_knows_gets_nothing_rather_than_the_wrong_file() -> None:
    assert boot_file(pxe(27), HEAD, secure=False) is None
    assert boot_file(pxe(2), HEAD, secure=False) is None


def test_architecture_from_the_vendor_class_when_option_93_is_missing() -> None:
    assert architecture(client(o60=b"PXEClient:Arch:00007:UNDI:003016")) == 7
    assert architecture(client(o60=b"PXEClient:Arch:00007:UNDI:003016", o93=b"\0\x0b")) == 11
    for junk in (b"PXEClient", b"PXEClient:Arch:", b"PXEClient:Arch:x:y", b"PXEClient:Arch:-1:y"):
        assert architecture(client(o60=junk)) is None
    # A ROM that says neither is from before option 93: BIOS.
    assert classify(client(o60=b"PXEClient")) is Firmware.BIOS


def test_ipxe_by_either_sign() -> None:
    assert classify(client(o77=b"iPXE")) is Firmware.IPXE
    assert classify(client(o77=b"\x04iPXE")) is Firmware.IPXE
    assert classify(client(o175=b"\x13\x01\x01")) is Firmware.IPXE
    assert classify(client(o175=b"\x17\x01\x01", o60=b"PXEClient:Arch:00007")) is Firmware.UEFI
    # Option 175 that cannot be read says nothing about features.
    assert classify(client(o175=b"\x17\xff")) is Firmware.IPXE
    assert classify(client(o175=b"")) is Firmware.IPXE


def test_secure_boot_gets_the_shim_and_nothing_else() -> None:
    for rung in range(4):
        boot = boot_file(pxe(7), HEAD, secure=True, rung=rung)
        assert boot and boot.name == "shimx64.efi"
    over_http = boot_file(parse(packet("ovmf-http-discover")), HEAD, secure=True)
    assert over_http and over_http.name == "http://10.77.0.1/boot/shimx64.efi"
    # BIOS knows no Secure Boot, and no signed loader exists for 32-bit firmware.
    bios = boot_file(pxe(0), HEAD, secure=True)
    assert bios and bios.name == "undionly.kpxe"
    assert boot_file(pxe(6), HEAD, secure=True) is None


def test_the_ladder_is_climbed_and_then_started_again() -> None:
    names = [boot.name for rung in range(4) if (boot := boot_file(pxe(7), HEAD, secure=False, rung=rung))]
    assert names == [*LADDER["x64"], LADDER["x64"][0]]
    boot = boot_file(pxe(7), HEAD, secure=False, rung=1)
    assert boot and "attempt 2" in boot.quirk


def test_only_loaders_that_are_there() -> None:
    have = {"snponly.efi", "shimx64.efi"}
    names = [
        boot.name for rung in range(2) if (boot := boot_file(pxe(7), HEAD, secure=False, rung=rung, available=have))
    ]
    assert names == ["snponly.efi", "shimx64.efi"]
    assert boot_file(pxe(0), HEAD, secure=False, available=have) is None
