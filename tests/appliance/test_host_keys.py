from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest

from appliance import keys
from appliance.host_keys import HostKeys
from appliance.store import Store


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[Store]:
    opened = Store(tmp_path / "gild.db", tmp_path / "lock")
    yield opened
    opened.close()


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    made: list[str] = []

    def make(comment: str) -> dict[str, str]:
        made.append(comment)
        return {"ssh_host_ed25519_key": f"{comment} {len(made)}"}

    monkeypatch.setattr(keys, "host_keys", make)
    return made


def test_keys_are_made_once_and_announced_on_the_loop(journal: Store, quick: list[str]) -> None:
    async def story() -> None:
        there = asyncio.Event()
        held = HostKeys(journal, lambda node_id: there.set())
        assert held.get(7) == {}
        for _ in range(3):
            held.want(7, "node07")
        await asyncio.wait_for(there.wait(), 10)
        assert held.ready(7, "node07") and held.get(7) == {"ssh_host_ed25519_key": "node07 1"}
        held.close()

    asyncio.run(story())
    journal.flush()
    again = HostKeys(journal)
    assert again.ready(7, "node07") and again.get(7) == {"ssh_host_ed25519_key": "node07 1"}
    assert quick == ["node07"]
    again.close()


def test_a_forgotten_node_gets_new_ones(journal: Store, quick: list[str]) -> None:
    held = HostKeys(journal)
    held.want(7, "a")
    held.close()
    assert held.ready(7, "a")
    held.forget(7)
    assert held.get(7) == {}
