from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from appliance.unit import MARK, Unit, quote, quote_command, read, render

UNIT = Unit("/usr/bin/python3", "/usr/local/sbin/gild.pyz", "/var/lib/gild", ("--interface", "eth1"))
WORDS = st.text(st.characters(categories=("L", "N", "P", "S", "Zs"), codec="utf-8"), min_size=1, max_size=40)


@given(st.lists(WORDS, max_size=6), st.lists(WORDS, max_size=2), WORDS, st.booleans())
def test_what_is_written_is_read_back(flags: list[str], writes: list[str], state: str, captures: bool) -> None:
    others = tuple(f"/{path}" for path in writes)
    unit = Unit("/usr/bin/python3", "/opt/gild.pyz", f"/{state}", tuple(flags), others, captures)
    assert read(render(unit)) == unit


@pytest.mark.parametrize("text", ["", "[Service]\nExecStart=/bin/true\n", MARK, f"{MARK}\nExecStart=/bin/true\n",
                                  f"{MARK}\nExecStart=a b --state c run\nReadWritePaths=c\n"])  # fmt: skip
def test_somebody_elses(text: str) -> None:
    assert read(text) is None


def test_quoting() -> None:
    assert quote("/var/lib/gild") == "/var/lib/gild" and quote("a%b") == "a%%b"
    assert quote('a "b" \\c') == '"a \\"b\\" \\\\c"' and quote("") == '""'
    assert quote("a$b") == '"a$b"' and quote_command("a$b") == '"a$$b"'


def test_homes_can_be_read_where_it_lies_in_one() -> None:
    assert "ProtectHome=yes" in render(UNIT)
    for unit in (Unit("/usr/bin/python3", "/root/gild.pyz", "/x"), Unit("/home/a/python", "/gild.pyz", "/x")):
        assert "ProtectHome=read-only" in render(unit)


def test_the_rights_that_serving_needs_and_no_others() -> None:
    """Shells, mounts and modules are for the verbs of images, which run outside of it."""
    text = render(UNIT)
    for name in ("CapabilityBoundingSet", "AmbientCapabilities"):
        assert re.findall(f"^{name}=(.*)$", text, re.MULTILINE) == ["CAP_NET_BIND_SERVICE CAP_NET_RAW CAP_NET_ADMIN"]
    assert "\nReadWritePaths=/var/lib/gild\n" in text and "\nProtectSystem=strict\n" in text


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd is not installed")
@pytest.mark.parametrize("captures", [False, True])
def test_systemd_takes_it(tmp_path: Path, captures: bool) -> None:
    state = tmp_path / 'a "b" $c %d'
    path = tmp_path / "gild.service"
    path.write_text(
        render(Unit("/bin/sh", "/bin/true", str(state), ("--names", "n{n}"), (str(tmp_path / "x y"),), captures))
    )
    done = subprocess.run(["systemd-analyze", "verify", "--man=no", path], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0 and not done.stderr
    path.write_text(path.read_text().replace("PrivateTmp=yes", "PrivateTmp=maybe"))
    done = subprocess.run(["systemd-analyze", "verify", "--man=no", path], capture_output=True, text=True, timeout=60)
    assert "Failed to parse boolean value" in done.stderr  # it does look
