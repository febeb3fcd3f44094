from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

PYZ = Path(__file__).resolve().parents[1] / "dist" / "gild.pyz"


def pytest_configure() -> None:
    """A shell without job control starts what it puts in the background with Ctrl-C ignored (POSIX, shell language
    2.12), and so would be all that is started here; the tests send it."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    # Nor does a user's Python write each line at once because a shell's profile said so: broken pipes show later.
    os.environ.pop("PYTHONUNBUFFERED", None)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Tests marked root or lab are left out where they cannot work; machines get the time that emulation needs."""
    for item in items:
        lab = item.get_closest_marker("lab")
        if os.geteuid() != 0 and (lab or item.get_closest_marker("root")):
            item.add_marker(pytest.mark.skip(reason="needs root"))
        if lab and not item.get_closest_marker("timeout"):
            item.add_marker(pytest.mark.timeout(900))


@pytest.fixture(scope="session")
def pyz() -> Path:
    """The built file; `build.py test` has built it."""
    if not PYZ.exists():
        pytest.skip("dist/gild.pyz is not built: python3 build.py app")
    return PYZ
