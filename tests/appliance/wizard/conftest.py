from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.appliance.process import Served
from tests.appliance.wizard.light import fresh_head
from tests.images.tinytree import tiny_tree


@pytest.fixture(scope="session")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory that can be imported as an image."""
    return tiny_tree(tmp_path_factory.mktemp("wizard") / "tree")


@pytest.fixture
def fresh() -> Iterator[Served]:
    """A machine on a cable, on which nothing was ever served."""
    with fresh_head() as served:
        yield served
