"""SSH host keys of the nodes: made once each, by a thread of their own, kept in the journal across reinstalls."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor

from appliance import keys, rows
from appliance.store import Store


class HostKeys:
    """`want` early, `ready` when they are needed, `get` them then. Lives on the event loop's thread."""

    def __init__(self, store: Store, made: Callable[[int], None] = lambda node_id: None) -> None:
        """`made(node_id)` is called when keys that were waited for are there."""
        self.made = made
        self._store = store
        self._held: dict[int, dict[str, str]] = {}
        self._making: dict[int, Future[dict[str, str]]] = {}
        # One thread: RSA keys cost 0.1 s of processor each, and a rack approved at once must not starve the loop.
        self._pool = ThreadPoolExecutor(1, "gild-host-keys")

    def want(self, node_id: int, name: str) -> None:
        """Have keys made for a node that has none."""
        if node_id in self._held or node_id in self._making:
            return
        kept = rows.load_host_keys(self._store, node_id)
        if kept:
            self._held[node_id] = json.loads(kept)
            return
        future = self._pool.submit(keys.host_keys, name)
        self._making[node_id] = future
        with contextlib.suppress(RuntimeError):
            loop = asyncio.get_running_loop()

            def arrived(_: object) -> None:
                with contextlib.suppress(RuntimeError):  # the loop may have ended meanwhile
                    loop.call_soon_threadsafe(self._take, node_id)

            future.add_done_callback(arrived)

    def ready(self, node_id: int, name: str) -> bool:
        """Whether the keys are there; if not, they are being made from now on."""
        self.want(node_id, name)
        self._take(node_id)
        return node_id in self._held

    def get(self, node_id: int) -> dict[str, str]:
        """File name -> content; empty while they are being made."""
        return self._held.get(node_id, {})

    def public(self, node_id: int) -> list[str]:
        """What a node is known by, "TYPE BASE64" each; empty if no keys were made for it."""
        held = self._held.get(node_id) or json.loads(rows.load_host_keys(self._store, node_id) or "{}")
        return [" ".join(text.split()[:2]) for name, text in sorted(held.items()) if name.endswith(".pub")]

    def forget(self, node_id: int) -> None:
        """The node is gone."""
        self._held.pop(node_id, None)
        future = self._making.pop(node_id, None)
        if future is not None:
            future.cancel()

    def close(self) -> None:
        """Stop making keys."""
        self._pool.shutdown(wait=True, cancel_futures=True)

    def _take(self, node_id: int) -> None:
        future = self._making.get(node_id)
        if future is None or not future.done():
            return
        del self._making[node_id]
        if not future.cancelled():
            self._held[node_id] = future.result()
            self._store.submit([rows.host_keys_row(node_id, json.dumps(self._held[node_id]))])
            self.made(node_id)
