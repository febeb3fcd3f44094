"""The lab itself, and the built file serving in it to real clients."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from tests.lab.lab import ADDRESS, Lab, LabError
from tests.lab.machine import Machine

pytestmark = [pytest.mark.root, pytest.mark.timeout(120)]


def names() -> str:
    return subprocess.run(["ip", "netns", "list"], capture_output=True, text=True, check=True).stdout


def test_one_file_serves_a_network(pyz: Path) -> None:
    with Lab() as lab:
        head = lab.head()
        status = lab.gild("status", "--json")
        assert (status["interface"], status["address"], status["pid"]) == ("br0", ADDRESS, head.pid)
        host = lab.host("a", mac="02:00:00:00:00:0a")
        script = lab.folder / "lease.sh"
        script.write_text('#!/bin/sh\n[ "$1" = bound ] && ip addr add "$ip/24" dev "$interface"\nexit 0\n')
        script.chmod(0o755)
        host.run("udhcpc", "-i", "eth0", "-f", "-q", "-n", "-t", "5", "-s", script)
        assert "inet 10.77.0." in host.run("ip", "-4", "addr", "show", "eth0")
        kernel = host.run("curl", "-sS", "-o", lab.folder / "vmlinuz", "-w", "%{size_download}", f"http://{ADDRESS}/boot/vmlinuz")  # fmt: skip  # noqa: E501
        assert int(kernel) == (lab.folder / "vmlinuz").stat().st_size > 5_000_000
        loader = lab.folder / "snponly.efi"
        host.run("tftp", "-m", "binary", ADDRESS, "-c", "get", "snponly.efi", loader)
        assert loader.read_bytes().startswith(b"MZ")
        assert host.run("dig", "+short", f"@{ADDRESS}", "head.cluster.internal").strip() == ADDRESS
        assert lab.gild("node", "list", "--json") == []
        assert head.stop() == 0
        with pytest.raises(LabError, match="no gild process serves"):
            lab.gild("status")


def test_nothing_is_left(pyz: Path) -> None:
    with pytest.raises(RuntimeError), Lab() as lab:
        head = lab.head()
        lab.host("a")
        namespace, folder, pid = lab.namespace, lab.folder, head.pid
        assert namespace in names()
        raise RuntimeError("a test fails")
    assert namespace not in names()
    assert not folder.exists()
    assert not Path(f"/proc/{pid}").exists()


def test_waiting_ends_when_the_head_does(pyz: Path) -> None:
    with Lab() as lab:
        head = lab.head()
        assert head.process is not None
        head.process.kill()
        with pytest.raises(LabError, match="waiting for the moon: head1 ended"):
            lab.wait(lambda: False, 60, "the moon")


def test_waiting_ends_in_time(pyz: Path) -> None:
    with Lab() as lab, pytest.raises(LabError, match="waited 0 s in vain for the moon"):
        lab.wait(lambda: False, 0, "the moon")


def test_only_images_outlive_a_lab(pyz: Path, tmp_path: Path) -> None:
    (tmp_path / "store" / "packs").mkdir(parents=True)
    (tmp_path / "gild.db").write_text("old")
    (tmp_path / "keys").mkdir()
    with Lab(state=tmp_path, keep_images=True):
        assert [path.name for path in tmp_path.iterdir()] == ["store"]
    assert (tmp_path / "store" / "packs").is_dir()


def test_a_head_that_cannot_start_says_why(pyz: Path) -> None:
    with Lab() as lab, pytest.raises(LabError, match="moon"):
        lab.head("--unknown", "moon")


def test_the_machines_that_can_be_had(tmp_path: Path) -> None:
    def command(**other: object) -> str:
        wanted: dict[str, object] = {
            "firmware": "bios",
            "bus": "virtio",
            "nic": "virtio-net-pci",
            "order": "nc",
            **other,
        }
        made = Machine(
            name="m", namespace="none", folder=tmp_path, tap="tap1", disk=tmp_path / "d", memory=512,
            mac="52:54:00:77:00:01", **wanted,  # type: ignore[arg-type]
        )  # fmt: skip
        return " ".join(made.command())

    bios = command()
    assert "-machine pc,graphics=off" in bios and "bootindex=1" in bios and "bootindex=2" in bios
    assert "-no-reboot" not in bios
    assert "OVMF_CODE_4M.fd" in command(firmware="uefi") and "romfile=" in command(firmware="uefi")
    assert "secboot" in command(firmware="secure") and "smm=on" in command(firmware="secure")
    assert "q35" in command(bus="ahci") and "ide-hd" in command(bus="ahci")
    assert "-device nvme,drive=d0" in command(bus="nvme")
    assert "e1000,netdev=net0" in command(nic="e1000")
    assert "serial=m-disk,bootindex=1" in command(order="cn")
