"""A golden client, captured over the network, edited, and installed on a machine with another disk."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from images.namespace import in_private_namespace, mounted
from images.partitions import read_table
from tests.lab.demo import debian
from tests.lab.lab import Machine
from tests.lab.test_install import SECONDS, all_up, lab_with_image, ordered, row, texts

pytestmark = [pytest.mark.lab, pytest.mark.root, pytest.mark.timeout(1800)]


def on_root(machine: Machine, work: Callable[[Path], str]) -> str:
    """Do something to the root filesystem of a machine that is switched off."""
    with machine.disk.open("rb") as disk:

        def read(offset: int, length: int) -> bytes:
            disk.seek(offset)
            return disk.read(length)

        table = read_table(read, machine.disk.stat().st_size, (512,))
    assert table is not None
    root = next(entry for entry in table.entries if entry.name == "root")
    at = machine.disk.with_suffix(".root")
    at.mkdir(exist_ok=True)

    def body() -> str:
        with mounted(machine.disk, at, trim=False, options=f"offset={root.start},sizelimit={root.size}") as tree:
            return work(tree)

    return in_private_namespace(body)


def by_hand(tree: Path) -> str:
    """What somebody does to a machine until it is the way all of them shall be."""
    (tree / "root/by-hand").write_text("made by hand\n")
    (tree / "root/by-hand").chmod(0o640)
    return ""


def test_a_golden_client_is_captured_edited_and_installed_elsewhere(pyz: Path) -> None:
    with lab_with_image() as lab:
        debian(lab)
        if any(version["image"] == "gold" for version in lab.gild("image", "list", "--json")):  # of an earlier run
            lab.gild("image", "rm", "gold", "--all", "--yes", text=True)
        lab.head()
        client = lab.machine("gold", "bios", disk_size="4G")
        ordered(lab, [client], "kexec")
        lab.wait(lambda: all_up(lab, 1), SECONDS, "the golden client up", every=2.0)
        client.stop()
        on_root(client, by_hand)

        lab.gild("node", "capture", "node01", "--image", "gold", "-m", "as it was made by hand", "--yes", text=True)
        client.start()
        lab.wait(lambda: "captured as gold:1" in texts(lab, "node01"), SECONDS, "the capture", every=1.0)
        lab.wait(
            lambda: any(text.startswith("is sent to its own disk") for text in texts(lab, "node01")[-6:]),
            SECONDS, "the golden client sent to its own disk again", every=0.5,
        )  # fmt: skip
        client.stop()
        assert row(lab, "node01")["state"] == "up"
        sent = next(text for text in texts(lab, "node01") if " MB were new and have been sent" in text)
        assert int(sent.split()[0]) < client.disk.stat().st_size >> 22  # of 4 GiB: what is in use, compressed
        lab.gild(
            "image", "edit", "gold", "-m", "edited", "--", "/bin/sh", "-c", "echo edited >> /root/by-hand", text=True
        )

        other = lab.machine("other", "bios", disk_size="7G", bus="ahci")
        other.start()

        def waiting() -> bool:
            return any(node["state"] == "waiting" and node["machine"] for node in lab.gild("node", "list", "--json"))

        lab.wait(waiting, SECONDS, "the other machine in the waiting room", every=1.0)
        lab.gild("node", "approve", "--all")
        lab.gild("node", "install", "node02", "--image", "gold:2", "--yes")
        lab.wait(lambda: row(lab, "node02")["state"] in ("up", "failed", "lost"), SECONDS, "the other one", every=2.0)
        node = row(lab, "node02")
        assert node["state"] == "up" and node["image"] == "gold:2", lab.story()
        assert node["home"]["hostname"] == "node02" and node["address"] in node["home"]["address"]
        other.stop()
        assert on_root(other, lambda tree: (tree / "root/by-hand").read_text()) == "made by hand\nedited\n"
        assert on_root(other, lambda tree: (tree / "etc/hostname").read_text()).strip() == "node02"
