"""The wizard on terminals of 80 and 40 columns, against a real head in a namespace."""

from __future__ import annotations

import os
import stat
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.appliance.process import Served
from tests.appliance.wizard.light import LightNode, fresh_head, wishes
from tests.appliance.wizard.talk import Talk
from tests.appliance.wizard.test_unattended import wizard

pytestmark = pytest.mark.root
RANGE = "10.77.0.100-10.77.0.150"
NETWORK = ((r"Interface \[1\]: ", ""), ("Addresses .*: ", RANGE), (r"Role \[1\]: ", ""), ("Domain .*: ", ""),
           ("Forward .*: ", ""), ("Start it .*: ", ""))  # fmt: skip


def talk(head: Served, columns: int, home: Path, words: Sequence[str] = (), **environ: str) -> Talk:
    """A person without keys of her own."""
    return Talk(head.command("wizard", *words), columns, HOME=str(home), **environ)


def test_a_whole_conversation_left_and_gone_on_with(fresh: Served, tree: Path, tmp_path: Path) -> None:
    with LightNode(fresh):
        with talk(fresh, 80, tmp_path) as first:
            first.hear("▶ 1 Network")
            first.reply(*NETWORK)
            assert "nothing serves yet" in first.said and f"--range {RANGE}" in first.hear("Same as:.*")
            first.reply(("> ", ""))
            first.hear("process [0-9]+ serves")
            first.reply((r"How \[1\]: ", "3"), ("directory: ", ""), ("a path from the root", "?"))
            first.hear("An image is")
            first.reply(("directory: ", str(tree)))
            first.reply(("Name .*: ", "q"))
            first.hear("goes on here: gild.pyz --state .* wizard")
            assert first.end() == 0
        kept = fresh.paths.wizard
        assert stat.S_IMODE(kept.stat().st_mode) == 0o600 and str(tree) in kept.read_text()

        with talk(fresh, 40, tmp_path) as second:
            second.hear("▶ 2 Image")
            second.reply((r"How \[3\]: ", ""), (rf"directory \[{tree}\]: ", ""), ("Name .*: ", ""), ("> ", ""))
            second.hear("compute:1 is published")
            second.reply(("More packages .*: ", ""), ("Who may .*: ", ""), ("Disk .*: ", ""), ("Layout .*: ", ""))
            second.reply(("Profile .*: ", ""), ("> ", ""), ("profile default is set", ""))
            second.hear("#1  Acme Box")
            second.reply((r"expect\? \[1\]: ", ""), (r"Names \[1\]: ", ""), ("Pattern .*: ", "n{n:03}"))
            second.reply((r"Profile \[.*\]: ", ""), ("> ", ""), (r"Nodes \[all.*\]: ", ""), ("> ", ""))
            second.hear("! NTFS")
            second.reply(("Type how many disks will be erased: ", "yes"), ("Everything stays", ""))
            assert not fresh.client.get("nodes", "n001")["ordered"]
            second.reply(("Type how many disks will be erased: ", "1"))
            second.hear("n001  up")
            if "Your" not in second.hear("Your cluster is ready|6  Services"):
                second.type("q")
            assert second.end() == 0
    answers = tmp_path / "site.toml"
    answers.write_text(wizard(fresh, "--print").stdout)

    with fresh_head() as other, LightNode(other):
        said = wizard(other, "--answers", str(answers), "--yes", "--erase", "1", "--until", "install")
        assert said.returncode == 0, said.stdout + said.stderr
        assert wishes(other) == wishes(fresh) and len(wishes(fresh)) >= 2


@pytest.mark.parametrize("columns", [40, 80])
def test_ctrl_c_and_end_of_input_give_the_terminal_back(fresh: Served, tmp_path: Path, columns: int) -> None:
    with talk(fresh, columns, tmp_path) as person:
        person.reply((r"Interface \[1\]: ", ""), ("Addresses .*: ", RANGE))
        person.hear("Role .*: ")
        os.write(person.fd, b"\x03")
        person.hear("interrupted")
        assert person.end() == 130
    assert RANGE in fresh.paths.wizard.read_text(), "what was answered is kept"
    with talk(fresh, columns, tmp_path) as person:
        person.hear(r"Interface \[1\]: ")
        os.write(person.fd, b"\x04")
        person.hear("Left")
        assert person.end() == 0


def test_a_screen_that_knows_ascii_alone(fresh: Served, tmp_path: Path) -> None:
    with talk(fresh, 40, tmp_path, TERM="dumb") as person:
        person.hear("> 1 Network")
        person.reply(("Interface .*: ", "9"), ("! they|! there is no 9", "b"))
        person.hear("> Check")
        person.reply(("> ", "x"), ("none of the keys", "?"), ("Looks at the ports", "s"), ("Interface .*: ", "s"))
        # Steps opened early say in a line what is missing.
        person.reply((r"2  Image", "s"), ("there is no image yet", "s"), ("before a head", "s"), ("step 1", "q"))
        person.hear("Left")
        assert person.end() == 0
        ours = [line for line in person.said.split("\n") if "UDP" not in line and "TCP" not in line]
        assert "".join(ours).isascii()


def test_commands_alone_do_nothing(fresh: Served, tmp_path: Path) -> None:
    with talk(fresh, 80, tmp_path, ["--step", "image"]) as person:
        person.reply((r"How \[.*\]: ", "1"), ("Name .*: ", "gpu"), ("Release .*: ", "trixie"))
        person.reply(("> ", "c"))
        person.hear('suite = "trixie"')
        person.hear("gild.pyz --state .* image build .*/recipes/gpu.toml")
        person.reply(("> ", "q"))
        assert person.end() == 0
    assert not (fresh.state / "recipes").exists() and not fresh.paths.images.exists()
