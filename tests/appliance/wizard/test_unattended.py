"""The wizard without a person, against a real head in a namespace and a machine made of packets."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from tests.appliance.process import CHECKOUT, Served, clean_environment
from tests.appliance.wizard.light import LightNode

pytestmark = pytest.mark.root


def site(tree: Path, folder: Path) -> Path:
    """A file of answers."""
    path = folder / "site.toml"
    path.write_text(
        '[network]\ninterface = "head0"\nrange = "10.77.0.100-10.77.0.150"\nstart = "background"\n'
        f'[image]\nway = "import"\npath = "{tree}"\n'
        '[packages]\nkeys = ["none"]\n[nodes]\nexpect = 1\npattern = "n{n:03}"\n'
    )
    return path


def wizard(head: Served, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        head.command("wizard", *words), cwd=CHECKOUT, env=clean_environment(), stdin=subprocess.DEVNULL,
        capture_output=True, text=True, timeout=90,
    )  # fmt: skip


def test_from_nothing_to_up_and_not_one_disk_more(fresh: Served, tree: Path, tmp_path: Path) -> None:
    answers = str(site(tree, tmp_path))
    with LightNode(fresh):
        # Up to the erasure, which nobody allowed.
        said = wizard(fresh, "--answers", answers, "--yes")
        assert said.returncode == 8, said.stdout + said.stderr
        assert "--erase 1" in said.stderr and "NTFS 'photos'" in said.stdout
        assert [row["name"] for row in fresh.client.get("nodes")] == ["n001"]
        assert not fresh.client.get("nodes", "n001")["ordered"]
        # Another number than there are is refused as well.
        said = wizard(fresh, "--yes", "--erase", "2")
        assert said.returncode == 1 and "1 disk would be erased, not 2" in said.stderr
        said = wizard(fresh, "--yes", "--erase", "1", "--until", "install")
        assert said.returncode == 0, said.stdout + said.stderr
        assert "n001  up" in said.stdout and "5 Install: 1 up" in said.stdout
        # What was done is passed over.
        again = wizard(fresh, "--yes", "--until", "install")
        assert again.returncode == 0 and "$ gild.pyz" not in again.stdout, again.stdout
    assert fresh.client.get("nodes", "n001")["image"] == "compute:1"
    assert fresh.client.get("status")["range"] == "10.77.0.100-10.77.0.150"


def test_it_ends_with_the_first_thing_to_be_mended(fresh: Served, tmp_path: Path) -> None:
    path = tmp_path / "site.toml"
    path.write_text('[image]\nway = "import"\npath = "/nowhere"\n[network]\ninterface = "head0"\n')
    said = wizard(fresh, "--answers", str(path), "--yes")
    assert said.returncode == 1 and said.stderr.splitlines()[0] == "gild: step image: there is no /nowhere"
    assert fresh.client.get("status")["interface"] == "head0", "what came before stays done"
    path.write_text('[network]\niface = "head0"\n')
    said = wizard(fresh, "--answers", str(path), "--yes")
    assert said.returncode == 1 and "does not ask 'iface'" in said.stderr
    path.write_text("[network\n")
    assert "site.toml" in wizard(fresh, "--answers", str(path)).stderr
    said = wizard(fresh, "--erase", "1")
    assert said.returncode == 1 and "--yes" in said.stderr


def test_machines_that_do_not_come_are_waited_for_no_longer_than_said(
    fresh: Served, tree: Path, tmp_path: Path
) -> None:
    said = wizard(fresh, "--answers", str(site(tree, tmp_path)), "--yes", "--wait", "0")
    assert said.returncode == 1 and "1 machine did not come in 0 s" in said.stderr


def test_where_each_step_stands(fresh: Served) -> None:
    said = wizard(fresh, "--status")
    assert said.returncode == 0 and "1 Network" in said.stdout and "open: nothing serves yet" in said.stdout
    rows = json.loads(wizard(fresh, "--status", "--json").stdout)
    assert [row["step"] for row in rows][:3] == ["check", "network", "image"] and rows[4]["status"] == "blocked"


def test_a_printed_site_is_an_answer_file(fresh: Served, tmp_path: Path) -> None:
    said = wizard(fresh, "--print")
    assert said.returncode == 0 and '# interface = "head0"' in said.stdout and "[network]" in said.stdout
    path = tmp_path / "printed.toml"
    path.write_text(said.stdout)
    assert wizard(fresh, "--answers", str(path), "--print").stdout == said.stdout
