"""build.py: what it says, what it makes anew, and that it leaves no trace on the machine but packages."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import build

# Stand-ins for dpkg-query and apt-get: they note what they were asked, and whether daemons were kept from starting.
DPKG = 'for name; do :; done; [ -e "$HERE/installed/$name" ] && printf installed'
APT = """
echo "$1 $DEBIAN_FRONTEND $([ -x "$HERE/policy-rc.d" ] && echo guarded)" >> "$HERE/asked"
case "$1" in
update) touch "$HERE/updated" ;;
install) [ -e "$HERE/updated" ] || exit 100 ;;
esac
"""


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "installed").mkdir()
    (tmp_path / "bin").mkdir()
    for name, script in (("dpkg-query", DPKG), ("apt-get", APT)):
        (tmp_path / "bin" / name).write_text(f"#!/bin/sh\n{script}\n")
        (tmp_path / "bin" / name).chmod(0o755)
    monkeypatch.setenv("HERE", str(tmp_path))
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:/usr/bin:/bin")
    monkeypatch.setattr(build, "POLICY", tmp_path / "policy-rc.d")
    monkeypatch.setattr(build, "PACKAGES", {"app": "one two"})
    return tmp_path


def test_what_is_missing_is_installed_under_guard(machine: Path) -> None:
    (machine / "installed" / "one").touch()
    build.packages("app")
    asked = (machine / "asked").read_text().splitlines()
    assert asked == [
        "install noninteractive guarded",
        "update noninteractive guarded",
        "install noninteractive guarded",
    ]
    assert not (machine / "policy-rc.d").exists()


def test_nothing_is_asked_for_what_is_there(machine: Path) -> None:
    for name in ("one", "two"):
        (machine / "installed" / name).touch()
    build.packages("app")
    assert not (machine / "asked").exists()


def test_a_failed_installation_is_told_and_the_machines_own_guard_stays(machine: Path) -> None:
    (machine / "policy-rc.d").write_text("#!/bin/sh\nexit 0\n")
    (machine / "bin" / "apt-get").write_text("#!/bin/sh\necho no network; exit 100\n")
    with pytest.raises(subprocess.CalledProcessError):
        build.packages("app")
    assert (machine / "policy-rc.d").read_text() == "#!/bin/sh\nexit 0\n"


def test_what_is_up_to_date_is_not_made_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(build, "BUILD", tmp_path)
    output = tmp_path / "output"
    assert build.stale("thing", "inputs", output)
    output.touch()
    build.fresh("thing", "inputs")
    assert not build.stale("thing", "inputs", output)
    assert build.stale("thing", "other inputs", output)
    # The build of the other inputs failed, say: what is there is of unknown inputs now.
    assert build.stale("thing", "inputs", output)
    assert build.digest([b"ab", b"c"]) != build.digest([b"a", b"bc"])


@pytest.mark.parametrize(
    ("argv", "code", "says"), [([], 2, "VERB"), (["--help"], 0, "demo"), (["ap"], 2, "there is no verb 'ap'")]
)
def test_the_command_line(argv: list[str], code: int, says: str) -> None:
    done = subprocess.run([sys.executable, build.__file__, *argv], capture_output=True, text=True, timeout=30)
    assert done.returncode == code
    assert says in done.stdout + done.stderr
