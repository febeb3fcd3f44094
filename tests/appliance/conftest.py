from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.appliance.rack import Rack


@pytest.fixture
def rack(tmp_path: Path) -> Iterator[Rack]:
    """A head on an empty state directory."""
    made = Rack(tmp_path)
    yield made
    made.crash()
