"""Is a version whole? Every byte of it is read."""

from __future__ import annotations

from collections.abc import Callable

from images.keeping.damage import Damage
from images.keeping.verify import verify
from images.store import Store


def damaged(store: Store, ref: str, progress: Callable[[str, int, int], None] | None = None) -> list[Damage]:
    """What is damaged of one version; empty means sound."""
    return list(verify(store, [ref], progress).damage)
