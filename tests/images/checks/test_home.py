"""Whether something starts the system, sets its network, and lets somebody in."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from images.checks import home
from tests.images import systems, trees
from tests.images.checks.looked import look
from tests.images.systems import put

SYSTEMS = trees.load()


@pytest.mark.parametrize("name", [name for name, system in SYSTEMS.items() if system.all("is")])
def test_what_a_node_can_fit_is_no_error(tmp_path: Path, name: str) -> None:
    root = SYSTEMS[name].build(tmp_path / "root")
    found = look(home.starts, root) | look(home.network, root)
    assert set(found) <= {"what starts the system"}
    assert ("what starts the system" in found) is not os.path.lexists(root / "sbin/init")


@pytest.mark.parametrize("name", [name for name, system in SYSTEMS.items() if system.all("refused")])
def test_what_a_node_refuses_is_an_error_with_the_same_reason(tmp_path: Path, name: str) -> None:
    root = SYSTEMS[name].build(tmp_path / "root")
    check = look(home.starts, root)["what starts the system"]
    words = " ".join(SYSTEMS[name].all("refused")[0])
    assert check.severity == "error" and words.lstrip("/") in check.found[0] and "a node refuses it" in check.fix


def test_a_tree_without_sbin_init_names_the_package(tmp_path: Path) -> None:
    root = systems.debian(tmp_path)
    (root / "usr/sbin/init").unlink()
    check = look(home.starts, root)["what starts the system"]
    assert check.severity == "error" and "systemd-sysv" in check.fix


def test_ssh_and_cloud_init(tmp_path: Path) -> None:
    root = systems.debian(tmp_path)
    assert "openssh-server" in look(home.remote, root)["ssh server"].fix
    put(root, "usr/sbin/sshd")
    assert look(home.remote, root) == {} == look(home.cloud_init, root)
    put(root, "etc/cloud/cloud.cfg")
    assert "touch /etc/cloud/cloud-init.disabled" in look(home.cloud_init, root)["cloud-init"].fix
    put(root, "etc/cloud/cloud-init.disabled")
    assert look(home.cloud_init, root) == {}
