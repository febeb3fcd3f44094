"""The audit log: who gave which order, approved whom, changed what; and which tokens were refused. Append only."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from contextvars import ContextVar
from typing import Any

from appliance.store import Store
from appliance.timeline import clean

KEPT = 100_000  # entries; the oldest go
PRUNE_EVERY = 1000
MAX_DETAIL = 2000  # characters
MAX_WORD = 200

# What of a request says what it was about. Anything else (passwords, secrets, contents of files) is left out.
TOLD = frozenset({
    "act", "address", "all", "at", "batch", "by", "conditions", "count", "digest", "disk", "drain", "end", "expect",
    "failures", "finish", "first", "group", "groups", "id", "image", "interface", "kind", "lease", "loader", "mac",
    "message", "mtu", "name", "names", "network", "node", "ntp", "options", "power", "profile", "rack", "range", "ref",
    "refs", "router", "routes", "serial", "ungroup", "uuid",
})  # fmt: skip
GILD = "gild"  # who: the head itself, by a rule or in somebody's absence

# Whoever asks now; set where requests come in.
asking: ContextVar[str] = ContextVar("asking", default=GILD)


class Audit:
    """Entries in the database, written by its thread; nobody waits for them."""

    def __init__(self, store: Store, wall: Callable[[], float]) -> None:
        """Raises DatabaseInvalid."""
        self._store, self._wall = store, wall
        self._since = 0

    def note(self, who: str, act: str, detail: str) -> None:
        """One entry, now."""
        sql = "INSERT INTO audit (at, who, act, detail) VALUES (?, ?, ?, ?)"
        entry = (self._wall(), clean(who)[:MAX_WORD], clean(act)[:MAX_WORD], clean(detail)[:MAX_DETAIL])
        statements: list[Any] = [(sql, entry)]
        self._since += 1
        if self._since >= PRUNE_EVERY:
            self._since = 0
            statements.append(("DELETE FROM audit WHERE id <= (SELECT max(id) FROM audit) - ?", (KEPT,)))
        self._store.submit(statements, lambda error: None)

    def rows(self, since: float = 0.0, who: str = "", word: str = "", limit: int = 1000) -> list[dict[str, Any]]:
        """The newest entries, the oldest of them first: after `since` (seconds since 1970), of somebody, with a word in
        the act or its detail. Raises DatabaseInvalid."""
        self._store.flush()
        found = self._store.read(
            "SELECT id, at, who, act, detail FROM audit WHERE at >= ? AND (? = '' OR who LIKE ? || '%')"
            " AND (? = '' OR instr(detail, ?) OR instr(act, ?)) ORDER BY id DESC LIMIT ?",
            (since, who, who, word, word, word, limit),
        )
        return [dict(zip(("id", "at", "who", "act", "detail"), row, strict=True)) for row in reversed(found)]


def told(body: Mapping[str, Any]) -> str:
    """What of a request's body stands in the log, as JSON."""
    kept = {key: _short(value) for key, value in body.items() if key in TOLD and value not in (None, [], "", False)}
    return json.dumps(kept, ensure_ascii=False, sort_keys=True) if kept else ""


def _short(value: Any) -> Any:
    if isinstance(value, str):
        return value[:MAX_WORD]
    if isinstance(value, list):
        return [_short(word) for word in value[:50]] + (["..."] if len(value) > 50 else [])
    return value if isinstance(value, int | float | bool) else "..."
