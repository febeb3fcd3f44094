from __future__ import annotations

import ctypes
import shutil
import zipfile
from importlib.util import find_spec
from pathlib import Path

import pytest

from appliance import wheels
from appliance.wheels import Pin

ROOT = Path(__file__).resolve().parents[2]
LOCKS = (ROOT / "appliance" / "requirements.txt", ROOT / "tests" / "requirements.txt")


def wheel(folder: Path, name: str, files: dict[str, bytes], metadata: str = "Name: Thing\nVersion: 1.5\n") -> Path:
    path = folder / name
    with zipfile.ZipFile(path, "w") as archive:
        for member, data in files.items():
            archive.writestr(member, data)
        if metadata:
            archive.writestr("thing-1.5.dist-info/METADATA", metadata)
    return path


def test_a_lock_is_read_as_it_was_written() -> None:
    pins = [Pin("b", "2.0", ("1" * 64, "2" * 64)), Pin("a-c.d", "1!3.0+x", ("a" * 64,))]
    text = wheels.write_lock(pins, "A title.")
    assert text.startswith("# A title.\n")
    assert wheels.read_lock(text) == sorted(pins, key=lambda pin: pin.name)


@pytest.mark.parametrize("line", ["a", "a==1", "a>=1 --hash=sha256:" + "0" * 64, "a==1 --hash=md5:00", "-r other.txt"])
def test_a_lock_that_pins_nothing_is_refused(line: str) -> None:
    with pytest.raises(wheels.WheelInvalid, match="without version or sha256"):
        wheels.read_lock(line)


@pytest.mark.parametrize("lock", LOCKS, ids=lambda lock: lock.parent.name)
def test_our_locks(lock: Path) -> None:
    text = lock.read_text()
    pins = wheels.read_lock(text)
    assert len({pin.name for pin in pins}) == len(pins)
    assert wheels.write_lock(pins, text.splitlines()[0].removeprefix("# ")) == text
    # Wherever packages come from is the business of whoever builds.
    assert "://" not in text and "--index" not in text


def test_every_dependency_is_locked() -> None:
    import tomllib

    locked = {pin.name for pin in wheels.read_lock(LOCKS[0].read_text())}
    named = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"]
    assert {name.split(">")[0] for name in named} <= locked
    assert not locked & wheels.LEFT_OUT


def test_what_is_taken_out_of_a_wheel(tmp_path: Path) -> None:
    kept = ["thing/__init__.py", "thing/testing.py", "scapy/layers/dhcp.py", "scapy/libs/test_pyx.py", "thing/data.txt"]
    dropped = [
        "thing/tests/test_a.py", "thing/test_b.py", "thing/x.pyi", "thing/x.pyx", "thing/x.c", "thing/py.typed",
        "cffi/api.py", "zstandard/backend_cffi.py", "scapy/layers/tls/all.py", "scapy/contrib/a.py",
        "thing-1.5.data/scripts/x", "thing-1.5.dist-info/RECORD",
    ]  # fmt: skip
    licences = {
        "thing-1.5.dist-info/LICENSE.txt": b"old place",
        "thing-1.5.dist-info/licenses/sub/NOTICE": b"new place",
    }
    metadata = "Name: Thing\nVersion: 1.5\nLicense-Expression: MIT\nLicense: a\n b\n"
    path = wheel(
        tmp_path, "thing-1.5-py3-none-any.whl", {**dict.fromkeys([*kept, *dropped], b""), **licences}, metadata
    )
    read = wheels.read(path, tmp_path / "stripped")
    assert sorted(read.files) == sorted(kept)
    assert read.licences == {"LICENSE.txt": b"old place", "sub/NOTICE": b"new place"}
    assert (read.name, read.version, read.licence, read.machine) == ("Thing", "1.5", "MIT", "")


@pytest.mark.parametrize(
    ("metadata", "licence"),
    [
        ("License: BSD\n", "BSD"),
        ("License: " + "long " * 20 + "\nClassifier: License :: OSI Approved :: MIT License\n", "MIT License"),
        ("Classifier: Topic :: Internet\n", "see its licence file"),
    ],
)
def test_the_licence_in_old_metadata(tmp_path: Path, metadata: str, licence: str) -> None:
    path = wheel(tmp_path, "thing-1.5-py3-none-any.whl", {}, "Name: t\nVersion: 1\n" + metadata)
    assert wheels.read(path, tmp_path).licence == licence


def test_a_wheel_of_another_machine_or_without_metadata_is_refused(tmp_path: Path) -> None:
    with pytest.raises(wheels.WheelInvalid, match="for a machine this build does not know"):
        wheels.read(wheel(tmp_path, "thing-1.5-cp311-cp311-manylinux2014_s390x.whl", {}), tmp_path)
    with pytest.raises(wheels.WheelInvalid, match="has no METADATA"):
        wheels.read(wheel(tmp_path, "thing-1.5-py3-none-any.whl", {}, metadata=""), tmp_path)


@pytest.mark.skipif(shutil.which("x86_64-linux-gnu-strip") is None, reason="needs binutils")
def test_a_stripped_library_still_loads(tmp_path: Path) -> None:
    spec = find_spec("multidict._multidict")
    assert spec is not None and spec.origin is not None
    before = Path(spec.origin).read_bytes()
    after = wheels.strip(before, "x86_64", tmp_path / "cache")
    assert 0 < len(after) < len(before)
    (tmp_path / "library.so").write_bytes(after)
    # RTLD_LAZY: the interpreter's own symbols are there, it is we who run in it.
    assert ctypes.CDLL(str(tmp_path / "library.so"))["PyInit__multidict"]
    (kept,) = (tmp_path / "cache").iterdir()
    kept.write_bytes(b"from the cache")
    assert wheels.strip(before, "x86_64", tmp_path / "cache") == b"from the cache"
