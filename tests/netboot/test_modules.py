"""The agent's module loader: index, matching, order of loading, and what it does about trouble."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest

from netboot import kmods
from netboot.agent import modules
from tests.netboot.elves import module

KERNEL = {
    "crc": module("name=crc", "depends=", "alias=crypto-crc", "alias=crypto-crc-fast"),
    "bus": module("depends="),
    "lib": module("depends=bus,builtin_thing"),
    "driver": module("depends=lib,crc", "alias=pci:v00001AF4d00001000sv*sd*bc*sc*i*", "softdep=pre: crc post: extra"),
    "extra": module("depends=", "alias=acpi*:PNP0[AB]*:*", "softdep=pre: driver"),
    "nic-e1": module("depends=", "alias=pci:v00008086d0000100Esv*sd*bc*sc*i*"),
    "any": module("depends=", "alias=pci:v*d*sv*sd*bc01sc06i01*"),
}
FILES = {name.replace("-", "_"): f"kernel/{name}.ko" for name in KERNEL}


def chosen(*wanted: str) -> dict[str, kmods.Module]:
    return kmods.choose(wanted, FILES, lambda path: KERNEL[path[7:-3]])


def index_of(*wanted: str) -> dict[str, str]:
    return {name: text.decode() for name, text in kmods.index(chosen(*wanted)).items()}


class Node:
    """A node's /lib/modules and /sys in a folder, and what was handed to its kernel."""

    def __init__(self, path: Path, *wanted: str) -> None:
        self.folder, self.sys = path / "modules", path / "sys"
        self.folder.mkdir()
        (self.sys / "module").mkdir(parents=True)
        for name, text in kmods.index(chosen(*wanted)).items():
            (self.folder / name).write_bytes(text)
        self.inserted: list[str] = []
        self.answers: dict[str, int] = {}

    def device(self, where: str, modalias: str) -> None:
        folder = self.sys / "devices" / where
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "modalias").write_text(modalias + "\n")

    def insert(self, path: str) -> int:
        name = Path(path).stem
        self.inserted.append(name)
        return self.answers.get(name, 0)

    def loader(self) -> modules.Loader:
        return modules.Loader(str(self.folder), str(self.sys), self.insert)


def test_index_names_all_needs_the_first_to_load_last() -> None:
    assert "driver.ko: crc.ko lib.ko bus.ko" in index_of("driver")["modules.dep"].splitlines()
    assert "softdep driver pre: crc post: extra" in index_of("driver")["modules.softdep"].splitlines()
    assert "alias crypto-crc crc" in index_of("crc")["modules.alias"].splitlines()


def test_choice_takes_needs_and_soft_needs_along_and_passes_over_the_unknown() -> None:
    assert list(chosen("driver", "no_such_module")) == ["bus", "crc", "driver", "extra", "lib"]
    assert list(chosen("nic-e1")) == ["nic_e1"]


def test_a_circle_of_needs_ends() -> None:
    circle = {"a": module("depends=b"), "b": module("depends=a")}
    found = kmods.choose(["a"], {"a": "a.ko", "b": "b.ko"}, lambda path: circle[path[0]])
    assert kmods.order("a", found) == ["b"] and kmods.order("b", found) == ["a"]


def test_device_is_driven_with_everything_before_it(tmp_path: Path) -> None:
    node = Node(tmp_path, "driver")
    node.device("pci0/00:01", "pci:v00001AF4d00001000sv00001AF4sd00000001bc02sc00i00")
    assert node.loader().scan() == 1
    assert node.inserted == ["crc", "bus", "lib", "driver", "extra"]


def test_second_scan_is_quiet_until_something_new_comes(tmp_path: Path) -> None:
    node = Node(tmp_path, "driver", "nic_e1", "any")
    node.device("a", "pci:v00008086d0000100Esv0sd0bc02sc00i00")
    loader = node.loader()
    assert (loader.scan(), loader.scan()) == (1, 0)
    node.device("a/b", "pci:v00008086d00002922sv0sd0bc01sc06i01")
    assert loader.scan() == 1 and node.inserted == ["nic_e1", "any"]


def test_what_is_loaded_already_is_left_alone(tmp_path: Path) -> None:
    node = Node(tmp_path, "driver")
    (node.sys / "module" / "lib").mkdir()
    assert node.loader().load("driver") and "lib" not in node.inserted and "bus" in node.inserted


@pytest.mark.parametrize("code", [errno.EEXIST, errno.ENODEV])
def test_loaded_meanwhile_or_no_hardware_is_no_failure(tmp_path: Path, code: int) -> None:
    node = Node(tmp_path, "driver")
    node.answers["lib"] = code
    loader = node.loader()
    assert loader.load("driver") and not loader.failed


def test_failure_is_told_once_and_the_rest_is_loaded(tmp_path: Path) -> None:
    node = Node(tmp_path, "driver")
    node.answers["driver"] = errno.EKEYREJECTED
    loader = node.loader()
    assert not loader.load("driver") and not loader.load("driver")
    assert list(loader.failed) == ["driver"] and node.inserted.count("driver") == 1 and "extra" in node.inserted


def test_load_takes_aliases_and_dashes(tmp_path: Path) -> None:
    node = Node(tmp_path, "crc", "nic_e1")
    loader = node.loader()
    assert loader.load("crypto-crc") and loader.load("nic-e1") and not loader.load("crypto-none")
    assert node.inserted == ["crc", "nic_e1"]


def test_load_all_waits_for_what_a_bus_brings(tmp_path: Path) -> None:
    node = Node(tmp_path, "driver", "nic_e1")
    node.device("bus", "pci:v00001AF4d00001000sv0sd0bc02sc00i00")
    (node.sys / "module" / "scsi_mod").mkdir()

    def insert(path: str) -> int:
        if path.endswith("driver.ko"):  # a bus driver: a device appears behind it
            node.device("bus/nic", "pci:v00008086d0000100Esv0sd0bc02sc00i00")
        return node.insert(path)

    loader = modules.Loader(str(node.folder), str(node.sys), insert)
    assert loader.load_all(lambda: "nic_e1" in node.inserted, 5)


def test_load_all_ends_at_its_time(tmp_path: Path) -> None:
    node = Node(tmp_path, "driver")
    node.device("bus", "pci:v00001AF4d00001000sv0sd0bc02sc00i00")
    assert node.loader().load_all(lambda: False, 0) is False
    assert "driver" in node.inserted


def test_no_index_and_no_sysfs_is_no_error(tmp_path: Path) -> None:
    loader = modules.Loader(str(tmp_path / "none"), str(tmp_path / "nothing"), lambda path: errno.EIO)
    assert loader.scan() == 0 and loader.load("ext4") is False and not loader.failed


def test_damaged_index_lines_are_passed_over() -> None:
    index = modules.parse(
        "good.ko: need.ko\nno colon\n../../etc/passwd: x\n: y\n" + "n" * 70 + ".ko:\n",
        "alias a b\nalias only\nalias x y z\nalias p [bad\nsomething else entirely\n",
        "softdep\nsoftdep x\nsoftdep x pre: ../y z\n",
    )
    assert index.needs == {"good": ("need",), "passwd": ("x",)}
    assert index.match("a") == ["b"] and index.match("p") == []
    assert index.before == {"x": ("y", "z")}


def test_patterns_with_classes_and_leading_stars() -> None:
    index = modules.parse("", "alias acpi*:PNP0[AB]*:* x\nalias *tail y\nalias exact z\n", "")
    assert index.match("acpi:PNP0A03:") == ["x"]
    assert index.match("acpi:PNP0C03:") == []
    assert index.match("long tail") == ["y"]
    assert index.match("exactly") == []


def test_hostile_modalias_is_cut_and_matched_in_bounded_work() -> None:
    index = modules.parse("", "alias dmi*:svn*:pn*:rvn*:x* m\n", "")
    assert index.match("dmi:" + "svn:pn:rvn:" * 100_000) == []


def test_modinfo_of_a_hostile_module_yields_nothing_strange() -> None:
    found = kmods.read_module(
        "m",
        "m.ko",
        module("depends=../../x,ok,a b," + "y" * 100, "alias=with blank", "alias=new\nline", "softdep=x\ty"),
    )
    assert found.depends == ("ok",) and found.aliases == () and found.before == ("x", "y")


def test_module_files_and_names() -> None:
    assert kmods.module_name("kernel/drivers/md/dm-mod.ko") == "dm_mod"
    assert kmods.module_name("a/b.ko.xz") == "b" and kmods.module_name("modules.builtin") == ""


def test_the_kernel_refuses_what_is_no_file(tmp_path: Path) -> None:
    assert modules.insert(str(tmp_path / "absent.ko")) == errno.ENOENT
