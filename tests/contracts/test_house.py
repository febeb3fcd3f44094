"""How files look: their size, their names, what packages say of themselves."""

from __future__ import annotations

import ast
import re
import warnings

import pytest

from tests.contracts.house import PACKAGES, ROOT, sources

WANTED, LIMIT, TEST_LIMIT = 300, 500, 800  # lines; a test's are a list more than a text
VAGUE = {"utils", "util", "helpers", "helper", "common", "misc", "manager", "service", "base", "lib", "core"}
EVERYTHING = sorted(
    path.relative_to(ROOT).as_posix()
    for folder in (*PACKAGES, "tests")
    for path in (ROOT / folder).rglob("*")
    if path.suffix in {".py", ".md", ".sh", ".toml", ".js", ".css", ".html"} and "corpus" not in path.parts
)
OWN = sorted(sources(*PACKAGES))


def test_files_are_short() -> None:
    lengths = {path: len((ROOT / path).read_text().splitlines()) for path in [*EVERYTHING, "build.py"]}
    if long := {path: length for path, length in lengths.items() if length > WANTED}:
        warnings.warn(f"longer than {WANTED} lines: {long}", stacklevel=1)
    limits = {path: TEST_LIMIT if path.startswith("tests/") else LIMIT for path in lengths}
    assert {path: length for path, length in lengths.items() if length > limits[path]} == {}


def test_names_say_what_is_inside() -> None:
    assert [path for path in OWN if VAGUE & set(path.removesuffix(".py").split("/"))] == []


@pytest.mark.parametrize("path", [path for path in OWN if path.endswith("__init__.py")])
def test_packages_tell_their_story_and_import_nothing(path: str) -> None:
    tree = sources(*PACKAGES)[path]
    story = ast.get_docstring(tree)
    assert story and len(story.splitlines()) <= 12
    # A constant or two is fine (__version__), work is not.
    assert {type(node).__name__ for node in tree.body[1:]} <= {"Assign", "AnnAssign"}


@pytest.mark.parametrize("path", OWN)
def test_public_functions_say_what_they_do(path: str) -> None:
    """All but methods of one statement, which say it themselves or fill in a protocol that does."""
    silent = [
        node.name
        for parent in ast.walk(sources(*PACKAGES)[path])
        if isinstance(parent, ast.Module | ast.ClassDef)
        for node in parent.body
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef)
        and not node.name.startswith("_")
        and not (isinstance(parent, ast.ClassDef) and parent.name.startswith("_"))
        and not ast.get_docstring(node)
        and not (isinstance(parent, ast.ClassDef) and len(node.body) == 1)
    ]
    assert silent == []


def test_nothing_is_left_for_later() -> None:
    # Written so that this file does not find itself.
    later = re.compile(r"\b(TO" + r"DO|FIX" + r"ME|XX" + r"X)\b|raise NotImplemented" + r"Error")
    assert [path for path in [*EVERYTHING, "build.py", "README.md"] if later.search((ROOT / path).read_text())] == []


def test_every_module_has_a_reader() -> None:
    """A module that nothing imports and nothing starts is dead."""
    started = {"appliance.first", "appliance.__main__", "netboot.agent.__main__", "appliance.bootstrap"}
    started.add("images.editing.chrootinit")  # a program that images.editing.chroot and images.editing.within start
    by_name = re.compile(r"^(images\.(edits|distro|sources)|appliance\.cli)\.")
    modules = {path.removesuffix(".py").replace("/", ".") for path in OWN if not path.endswith("__init__.py")}
    used: set[str] = set()
    for tree in sources(*PACKAGES).values():
        for node in ast.walk(tree):
            if isinstance(node, ast.Import):
                used.update(alias.name for alias in node.names)
            elif isinstance(node, ast.ImportFrom) and node.module:
                used.update({node.module, *(f"{node.module}.{alias.name}" for alias in node.names)})
    # The builder is started by build.py.
    used.update(re.findall(r"from (\S+) import", (ROOT / "build.py").read_text()))
    used.update({"appliance.bundle", "appliance.wheels"})
    assert {name for name in modules - used - started if not by_name.match(name)} == set()
