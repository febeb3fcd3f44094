from __future__ import annotations

from appliance.errors import EXIT_CODES, NotServing, exit_code
from images.errors import ChunkMissing, GildError, NotFound


def test_the_first_row_that_fits_decides() -> None:
    assert exit_code(NotFound("x")) == 3
    assert exit_code(NotServing("x")) == 4
    assert exit_code(ChunkMissing("x")) == 10
    assert exit_code(GildError("x")) == 1
    assert exit_code(ValueError("x")) == 1


def test_one_code_has_one_meaning() -> None:
    meanings: dict[int, str] = {}
    for _, code, meaning in EXIT_CODES:
        assert meanings.setdefault(code, meaning) == meaning
