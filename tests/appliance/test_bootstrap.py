from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from appliance import bootstrap, bundle
from tests.appliance import smallapp

NATIVE = """
import multidict, multidict._multidict as native
print(native.__file__, multidict.CIMultiDict(a=1)["A"], multidict.__file__)
"""


@pytest.fixture(scope="module")
def pyz(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return smallapp.build(tmp_path_factory.mktemp("small"))


def out(pyz: Path, code: str, **environment: str) -> str:
    done = smallapp.run(pyz, textwrap.dedent(code), **environment)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    return done.stdout


def test_packages_come_from_the_file(pyz: Path) -> None:
    assert out(pyz, "import colours; print(colours.__file__, sorted(colours.RED)[0])").split() == [
        f"{pyz}/lib/colours/__init__.py",
        "red",
    ]


def test_native_libraries_come_from_memory_and_nothing_is_written(pyz: Path, tmp_path: Path) -> None:
    places = {name: str(tmp_path / name) for name in ("HOME", "TMPDIR", "XDG_CACHE_HOME")}
    for place in places.values():
        os.mkdir(place)
    before = sorted(path.name for path in pyz.parent.iterdir())
    native, value, module = out(pyz, NATIVE, **places).split()
    assert native.startswith("/proc/self/fd/")
    assert (value, module) == ("1", f"{pyz}/lib/multidict/__init__.py")
    assert [list(Path(place).iterdir()) for place in places.values()] == [[], [], []]
    assert sorted(path.name for path in pyz.parent.iterdir()) == before


def test_this_machines_packages_do_not_get_in(pyz: Path) -> None:
    code = """
        import sys
        print([entry for entry in sys.path if "-packages" in entry or entry.endswith(".pyz")])
        try:
            import pytest
        except ImportError as error:
            print(error)
    """
    assert out(pyz, code).splitlines() == ["[]", "No module named 'pytest'"]


def test_a_traceback_shows_the_line(pyz: Path) -> None:
    code = """
        import colours.broken, traceback
        try:
            colours.broken.fall()
        except ValueError:
            print(traceback.format_exc())
    """
    text = out(pyz, code)
    assert 'File "gild.pyz/lib/colours/broken.py", line 2, in fall' in text
    assert "raise ValueError('line two')" in text


def test_resources(pyz: Path) -> None:
    code = """
        import importlib.resources as resources, json, pkgutil
        files = resources.files("colours")
        with resources.as_file(files / "data" / "green.txt") as path:
            copied = path.read_text("utf-8")
        print(json.dumps([
            copied, files.joinpath("data", "green.txt").read_text(), [entry.name for entry in files.iterdir()],
            (files / "data").is_dir(), (files / "data").is_file(),
            (files / "none").is_dir(), (files / "none").is_file(),
            resources.files("appliance").joinpath("help/start.md").open().read(),
            pkgutil.get_data("colours", "data/green.txt").decode(),
        ]))
    """
    assert json.loads(out(pyz, code)) == [
        "grün\n", "grün\n", ["__init__.py", "broken.py", "data"], True, False, False, False, "how to start\n", "grün\n",
    ]  # fmt: skip


def test_what_is_not_there_is_said(pyz: Path) -> None:
    opened = bootstrap.Bundle(str(pyz))
    assert opened.find_spec("json") is None
    assert opened.find_spec("colours.none") is None
    with pytest.raises(ImportError, match=r"has no module colours\.none"):
        opened.get_code("colours.none")
    with pytest.raises(FileNotFoundError):
        opened.get_data(f"{pyz}/none.txt")
    assert opened.is_package("colours")
    assert not opened.is_package("colours.broken")
    assert opened.get_filename("colours.broken") == f"{pyz}/lib/colours/broken.py"
    os.close(opened.fd)


def test_code_of_another_version_of_python_is_compiled_from_source(pyz: Path) -> None:
    opened = bootstrap.Bundle(str(pyz))
    name = opened._code + "lib/colours/broken.py"
    assert name in opened.members
    opened.members -= {name}
    space: dict[str, object] = {}
    exec(opened.get_code("colours.broken"), space)
    assert "fall" in space
    os.close(opened.fd)


def test_an_upgrade_by_rename_does_not_reach_a_running_process(pyz: Path, tmp_path: Path) -> None:
    copy = tmp_path / "gild.pyz"
    shutil.copy(pyz, copy)
    code = "print('ready', flush=True); input(); from appliance import bundled, late; print(late.WORD, bundled.read('appliance/help/start.md'))"  # noqa: E501
    with subprocess.Popen(
        [sys.executable, copy, code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        (tmp_path / "new").write_bytes(b"#!/bin/sh\n" * 10)
        os.rename(tmp_path / "new", copy)
        answer, _ = process.communicate("\n", timeout=30)
    assert answer == "old b'how to start\\n'\n"


def test_it_starts_by_a_relative_path_and_by_a_link(pyz: Path, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(pyz)
    for argv, cwd in ([f"./{pyz.name}"], pyz.parent), (["link"], tmp_path):
        code = "import os; os.chdir('/'); from appliance import late; print(late.WORD)"
        done = subprocess.run([sys.executable, *argv, code], cwd=cwd, capture_output=True, text=True, timeout=30)
        assert (done.stdout, done.stderr) == ("old\n", "")


def test_an_interpreter_without_libraries_is_told_so(pyz: Path, tmp_path: Path) -> None:
    strange = [entry for entry in smallapp.wheels() if entry.name != "multidict"]
    root = smallapp.checkout(tmp_path / "checkout")
    made = tmp_path / "strange.pyz"
    bundle.build(root, made, strange, None, lambda line: None)
    done = smallapp.run(made, "print('ran')")
    assert (done.returncode, done.stdout) == (5, "")
    assert done.stderr.count("\n") == 1
    assert f"cpython-3{sys.version_info[1]}-{smallapp.MACHINE}-linux-gnu" in done.stderr


# GILD_CACHE, for machines whose policy does not let code run from memory.


def test_a_cache_is_filled_used_and_repaired(pyz: Path, tmp_path: Path) -> None:
    cache = tmp_path / "a" / "cache"
    native = Path(out(pyz, NATIVE, GILD_CACHE=str(cache)).split()[0])
    assert native.parent == cache
    assert [path.name for path in cache.iterdir()] == [native.name]
    assert cache.stat().st_mode & 0o777 == 0o700
    first = native.stat().st_ino
    assert out(pyz, NATIVE, GILD_CACHE=str(cache)).startswith(str(native))
    assert native.stat().st_ino == first
    native.write_bytes(native.read_bytes()[:1000])
    assert out(pyz, NATIVE, GILD_CACHE=str(cache)).startswith(str(native))
    assert native.stat().st_size > 1000
    assert len(list(cache.iterdir())) == 1


@pytest.mark.parametrize("fault", ["open to others", "a link", "a file", "no folder can be"])
def test_a_cache_that_somebody_else_could_change_is_not_used(pyz: Path, tmp_path: Path, fault: str) -> None:
    cache = tmp_path / "cache"
    if fault == "open to others":
        cache.mkdir(0o700)
        cache.chmod(0o770)
    elif fault == "a link":
        (tmp_path / "real").mkdir(0o700)
        cache.symlink_to(tmp_path / "real")
    elif fault == "a file":
        cache.write_text("")
    else:
        cache = Path("/proc/none")
    done = smallapp.run(pyz, NATIVE, GILD_CACHE=str(cache))
    assert done.returncode == 0
    assert done.stdout.startswith("/proc/self/fd/")
    assert done.stderr.startswith(f"gild: GILD_CACHE={cache}: ")
    assert done.stderr.endswith("; loading from memory\n")
    assert done.stderr.count("\n") == 1


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
@pytest.mark.parametrize("options", ["noexec", "ro", "size=4k"])
def test_a_cache_on_a_bad_file_system_is_not_used(pyz: Path, tmp_path: Path, options: str) -> None:
    tmp_path.chmod(0o700)
    script = f'mount -t tmpfs -o mode=700,{options} none "$1" && exec env GILD_CACHE="$1" "$2" "$3" "$4"'
    done = subprocess.run(
        ["unshare", "--mount", "sh", "-c", script, "sh", tmp_path, sys.executable, pyz, NATIVE],
        capture_output=True, text=True, timeout=30,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("/proc/self/fd/")
    assert done.stderr.endswith("; loading from memory\n")


def test_a_link_in_the_cache_is_replaced_not_followed(tmp_path: Path) -> None:
    tmp_path.chmod(0o700)
    path = Path(bootstrap.cached(str(tmp_path), "thing", b"library"))
    path.unlink()
    (tmp_path / "elsewhere").write_bytes(b"library")
    path.symlink_to(tmp_path / "elsewhere")
    assert bootstrap.cached(str(tmp_path), "thing", b"library") == str(path)
    assert not path.is_symlink()
    assert (tmp_path / "elsewhere").read_bytes() == b"library"
