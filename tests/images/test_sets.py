"""Sets of packages: those that come with gild, and those of a site."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from images.errors import RecipeInvalid
from images.sources.recipetext import parse_recipe
from images.sources.sets import SHIPPED, Set, known_sets, parse_set, with_sets

OWN = """description = "our own"
conflicts = ["ntp"]
scripts = ["echo set", { file = "setup.sh" }]
keep = ["/usr/share/doc/own/*"]
[packages]
debian = ["own-tools"]
[enable]
debian = ["own.service"]
[files]
"/etc/own.conf" = { content = "set" }
"/etc/other.conf" = { source = "other" }
"""


def test_the_shipped_sets_are_all_known_and_say_what_they_are() -> None:
    folder = Path(__file__).parents[2] / "images/sources/sets"
    assert sorted(path.stem for path in folder.glob("*.toml")) == sorted(SHIPPED)
    for name, one in known_sets().items():
        assert one.name == name and one.description and not one.origin
        for other in one.conflicts:
            assert name in known_sets()[other].conflicts, f"{name} and {other} know of one another"
        for word in ("debian", "redhat", "suse"):
            assert (word in one.packages) != (word in one.missing), f"{name} says nothing of {word}"


@pytest.mark.skipif(shutil.which("apt-cache") is None, reason="no apt here")
def test_the_archive_of_debian_has_every_package() -> None:
    names = {name for one in known_sets().values() for name in one.packages.get("debian", ())}
    said = subprocess.run(["apt-cache", "policy", *sorted(names)], capture_output=True, text=True).stdout
    found = {line.split(":")[0]: line for line in said.replace("\n  ", " ").splitlines()}
    if "Candidate" not in found.get("chrony", "") or "Candidate: (none)" in found["chrony"]:
        pytest.skip("this machine has no lists of Debian's packages")
    assert [name for name in sorted(names) if name not in found or "Candidate: (none)" in found[name]] == []


def test_sets_of_a_site_are_read_and_count_more(tmp_path: Path) -> None:
    (tmp_path / "own.toml").write_text(OWN)
    (tmp_path / "ntp.toml").write_text('description = "another clock"\npackages.debian = ["ntpsec"]\n')
    known = known_sets([tmp_path / "none", tmp_path])
    assert known["own"].origin == str(tmp_path / "own.toml") and list(known) == sorted(known)
    assert known["ntp"].packages == {"debian": ("ntpsec",)} and known["own"].families == ("debian",)
    assert known["own"].scripts[1].file == str(tmp_path / "setup.sh")


def test_what_a_set_brings_gives_way_to_the_recipe(tmp_path: Path) -> None:
    (tmp_path / "own.toml").write_text(OWN)
    known = known_sets([tmp_path])
    text = 'sets = ["own"]\npackages = ["mine", "-own-tools"]\nscripts = ["echo mine"]\nenable = ["mine.service"]\n'
    recipe = with_sets(parse_recipe(text + 'files."/etc/own.conf" = { content = "mine" }\n'), known)
    assert recipe.packages == ("mine",) and recipe.enable == ("own.service", "mine.service")
    assert [script.text for script in recipe.scripts] == ["echo set", "", "echo mine"]
    assert {file.path: file.content for file in recipe.files} == {"/etc/own.conf": "mine", "/etc/other.conf": None}
    assert recipe.keep == ("/usr/share/doc/own/*",)
    assert with_sets(parse_recipe(text + 'disable = ["own.service"]\n'), known).enable == ("mine.service",)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            'cmdline = ""\nsets = ["nfs-clint"]',
            "recipe, line 2: there is no set 'nfs-clint' (did you mean 'nfs-client'?)",
        ),
        ('mpi = "openmp"', "recipe, line 1: mpi 'openmp' is not known (one of mpich, openmpi, none)"),
        ('scheduler = "pbs"', "line 1: set scheduler-pbs has no packages for family debian (no PBS is in Debian 12"),
        ('scheduler = "gridengine"\nfamily = "dnf"', "no packages for family dnf (not in Fedora"),
        ('mpi = "openmpi"\nsets = ["mpi-mpich"]', "the sets mpi-mpich and mpi-openmpi cannot be in one system"),
        ('packages = ["-vmi"]', '"-vmi" takes away what nothing brings'),
    ],
)
def test_what_cannot_be_chosen(text: str, message: str) -> None:
    with pytest.raises(RecipeInvalid) as failure:
        with_sets(parse_recipe(text), known_sets(), text=text)
    assert message in str(failure.value)


def test_choices_become_sets_of_every_family() -> None:
    for family, package in (("debian", "openmpi-bin"), ("dnf", "openmpi"), ("zypper", "openmpi4")):
        text = f'family = "{family}"\nmpi = "openmpi"\nscheduler = "slurm"\nsets = ["ntp"]\n'
        recipe = with_sets(parse_recipe(text), known_sets())
        assert package in recipe.packages and "munge" in recipe.packages and "chrony" in recipe.packages
        assert ("chrony.service" if family == "debian" else "chronyd.service") in recipe.enable


@pytest.mark.parametrize(
    ("change", "line", "message"),
    [
        (('description = "our own"', "x = 1"), 1, "unknown key 'x'"),
        (('description = "our own"', 'description = ""'), 1, "needs a description"),
        (("debian = [", "debain = ["), 6, "unknown key 'debain' (did you mean 'debian'?)"),
        (('"own-tools"', '"--force"'), 6, "'--force' is not possible"),
        (('"own.service"', '"own"'), 8, "'own' is not possible"),
        (('["ntp"]', "[1]"), 2, "conflicts must be a list of texts"),
        (('"/etc/own.conf"', '"etc/own.conf"'), 10, "must be absolute"),
        (('["ntp"]', '"ntp"'), 2, "conflicts is of the wrong kind"),
    ],
)
def test_mistakes_in_a_set_are_named(tmp_path: Path, change: tuple[str, str], line: int, message: str) -> None:
    assert change[0] in OWN
    (tmp_path / "own.toml").write_text(OWN.replace(*change, 1))
    with pytest.raises(RecipeInvalid) as failure:
        known_sets([tmp_path])
    assert f"set own, line {line}:" in str(failure.value) and message in str(failure.value)


def test_a_set_without_a_directory_names_no_files() -> None:
    with pytest.raises(RecipeInvalid, match="lies in no directory"):
        parse_set("own", OWN)
    assert isinstance(parse_set("own", 'description = "x"\npackages.debian = []\n'), Set)


def test_a_file_with_a_name_no_set_can_have(tmp_path: Path) -> None:
    (tmp_path / "Own set.toml").write_text(OWN)
    with pytest.raises(RecipeInvalid, match=r"Own set\.toml: a set cannot have that name"):
        known_sets([tmp_path])
