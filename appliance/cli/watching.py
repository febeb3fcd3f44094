"""What `gild watch` shows: facts and a view in, a picture out. Nothing here asks, waits or acts.

Failed nodes first, then those that move, then a count of the quiet ones. Columns fall away from the right where the
terminal is narrow; the line of keys is the last thing to go.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from appliance.cli import show

if TYPE_CHECKING:
    from rich.console import RenderableType

Row = Mapping[str, Any]

ORDER = {"failed": 0, "lost": 1, "installing": 2, "capturing": 3, "waiting": 4, "installed": 5, "ready": 6, "up": 7}
QUIET = frozenset({"up", "ready"})
MOVING = frozenset({"installing", "capturing"})
FILTERS = ("", "failed", "installing", "waiting", "up")  # what `f` goes through
SPAN = 10.0  # seconds over which a rate is taken
SURE = 5.0  # seconds before what is left is told
BAR = 20  # characters
EVENTS = 3  # lines of news at the foot
KEYS = "↑↓ choose  ↵ timeline  l log  / find  f filter  a all  q quit  ? keys"
HELP = (
    "up, down   choose a node; space and b turn pages of a timeline",
    "enter      what happened to it, from its first packet on",
    "l          only the installer's own log of it",
    "/          show names, addresses, MACs and machines that hold a text; escape ends it",
    "f          only failed, only installing, only waiting, only up, everybody",
    "a          the quiet ones too",
    "q          back, and at last out; nothing that runs is stopped by it",
)


@dataclass(frozen=True)
class View:
    """What somebody wants to see. `page` is "" for the table, "timeline" or "log" of the chosen node, or "keys"."""

    chosen: int = 0  # id of a node, 0 for nobody
    find: str = ""
    typing: bool = False  # the text to find is being typed
    only: str = ""
    everybody: bool = False
    page: str = ""
    back: int = 0  # lines the page is turned back from its end

    def key(self, key: str, ids: Sequence[int]) -> View | None:
        """The view after a key ("up", "down", "enter", "escape", "back" or a character), with `ids` of the nodes shown
        from top to bottom; None is the way out."""
        if self.typing:
            return self._typed(key)
        if self.page:
            return self._turned(key)
        if key in ("up", "down"):
            at = ids.index(self.chosen) if self.chosen in ids else -1 if key == "down" else 1
            return replace(self, chosen=ids[max(0, min(len(ids) - 1, at + (1 if key == "down" else -1)))] if ids else 0)
        if key in ("enter", "l") and self.chosen in ids:
            return replace(self, page="log" if key == "l" else "timeline", back=0)
        if key == "f":
            return replace(self, only=FILTERS[(FILTERS.index(self.only) + 1) % len(FILTERS)])
        if key in ("q", "escape") and (self.find or self.only):
            return replace(self, find="", only="")
        changes = {"/": {"typing": True, "find": ""}, "a": {"everybody": not self.everybody}, "?": {"page": "keys"}}
        return None if key == "q" else replace(self, **changes.get(key, {}))  # type: ignore[arg-type]  # by the table

    def _typed(self, key: str) -> View:
        if key in ("enter", "escape"):
            return replace(self, typing=False, find=self.find if key == "enter" else "")
        if key == "back":
            return replace(self, find=self.find[:-1])
        return replace(self, find=(self.find + key)[:60]) if len(key) == 1 and key.isprintable() else self

    def _turned(self, key: str) -> View:
        if key in ("q", "escape", "enter", "l", "?"):
            return replace(self, page="", back=0)
        step = {"up": 1, "b": 10, "down": -1, " ": -10}.get(key, 0)
        return replace(self, back=max(0, self.back + step))


class Rates:
    """How fast each node gets on, from what it said in the last seconds."""

    def __init__(self) -> None:
        self._said: dict[int, deque[tuple[float, int, str]]] = {}

    def hear(self, rows: Sequence[Row], now: float) -> None:
        """What all nodes say at `now`, in seconds of any clock."""
        moving = {row["id"]: row for row in rows if row["state"] in MOVING and row["total"]}
        for gone in set(self._said) - set(moving):
            del self._said[gone]
        for number, row in moving.items():
            said = self._said.setdefault(number, deque(maxlen=64))
            if said and (said[-1][2] != row["phase"] or said[-1][1] > row["done"]):
                said.clear()
            said.append((now, row["done"], row["phase"]))
            while len(said) > 2 and now - said[0][0] > SPAN:
                said.popleft()

    def of(self, row: Row) -> tuple[float, float | None]:
        """Bytes a second, and seconds that are left: None while it is too early to tell."""
        said = self._said.get(row["id"])
        if not said or said[-1][0] - said[0][0] < 1:
            return 0.0, None
        rate = (said[-1][1] - said[0][1]) / (said[-1][0] - said[0][0])
        sure = said[-1][0] - said[0][0] >= SURE and row["done"] * 50 >= row["total"] and rate > 0
        return rate, max(0.0, row["total"] - row["done"]) / rate if sure else None


def shown(rows: Sequence[Row], view: View) -> tuple[list[Row], int]:
    """The nodes of the table from top to bottom, and how many quiet ones are left out."""
    text = view.find.lower()
    found = [row for row in rows if not view.only or row["state"] == view.only]
    found = [row for row in found if not text or any(text in str(row[key]).lower() for key in _FOUND_BY)]
    found.sort(key=lambda row: (ORDER.get(row["state"], 9), row["name"] or "~", row["id"]))
    if view.everybody or view.only or text:
        return found, 0
    loud = [row for row in found if row["state"] not in QUIET or row["reason"]]
    # A handful of quiet nodes does no harm, and a table of nobody looks broken.
    return (loud, len(found) - len(loud)) if len(found) > 10 else (found, 0)


_FOUND_BY = ("name", "address", "mac", "machine", "image", "profile", "state")


def picture(
    status: Mapping[str, Any],
    rows: Sequence[Row],
    rates: Rates,
    events: Sequence[Mapping[str, Any]],
    view: View,
    width: int,
    height: int,
    clock: str,
) -> RenderableType:
    """The whole screen of `width` columns and at most `height` lines. `events` are the newest of all nodes, or for a
    page those of the chosen node; `clock` is the time to show."""
    from rich.console import Group

    foot: list[str] = [f"[bold]{KEYS}[/]"]
    if view.typing or view.find:
        foot.insert(0, f"find: {show.safe(view.find)}{'_' if view.typing else ''}")
    if view.only:
        foot.insert(0, f"only {view.only}")
    head = _head(status, rows, clock, width)
    room = max(3, height - 1 - len(foot) - 1)
    if view.page:
        return Group(*_texts([head, *_page(rows, events, view, room), *foot], width))
    table, quiet = shown(rows, view)
    news = [_news(event) for event in list(events)[-EVENTS:]] if height >= 16 else []
    lines = max(1, room - 2 - len(news) - bool(quiet))
    at = next((n for n, row in enumerate(table) if row["id"] == view.chosen), 0)
    first = max(0, min(at - lines // 2, len(table) - lines))
    cut = table[first : first + lines]
    parts: list[RenderableType] = [*_texts([head], width), _table(cut, rates, view.chosen, width)]
    if not rows:
        parts += _texts(
            ["no machine has asked for anything yet: switch one on, the network first in its boot order"], 0
        )
    elif not table:
        parts += _texts([f"no node fits: {show.safe(view.find) or view.only}"], width)
    more = len(table) - len(cut)
    if more or quiet:
        counts = Counter(row["state"] for row in rows if row["state"] in QUIET) if quiet else {}
        words = [f"{more} more"] * bool(more) + [f"{n} {state} and quiet" for state, n in counts.items()]
        parts += _texts([f"[bright_black]… {'; '.join(words)}[/]" + ("  (a shows everybody)" if quiet else "")], width)
    return Group(*parts, *_texts([*news, *foot], width))


def _texts(lines: Sequence[str], width: int) -> list[RenderableType]:
    """Lines of markup, one line each however narrow it is."""
    from rich.text import Text

    texts = [Text.from_markup(line, emoji=False) for line in lines]
    for text in texts:
        text.no_wrap, text.overflow = bool(width), "ellipsis" if width else "fold"
    return list(texts)


def _head(status: Mapping[str, Any], rows: Sequence[Row], clock: str, width: int) -> str:
    counts = Counter(row["state"] for row in rows)
    words = [f"{counts[state]} {state}" for state in sorted(counts, key=lambda word: ORDER.get(word, 9), reverse=True)]
    where = f"{status.get('interface', '')} {status.get('address', '')}".strip()
    left = f"{show.safe(where)} · {clock}" if width >= 60 else clock
    return f"[bold]{left}[/]   {'   '.join(words)}"


def _table(rows: Sequence[Row], rates: Rates, chosen: int, width: int) -> RenderableType:
    columns = [name for name, least in _COLUMNS if width >= least]
    cells = []
    for row in rows:
        rate, left = rates.of(row)
        cell = {
            "node": show.safe(row["name"] or f"#{row['id']}"),
            "state": show.state(row["state"]),
            "progress": _progress(row, width),
            "rate": f"{rate / 1e6:.0f} MB/s" if rate >= 1e5 else "",
            "left": f"{left // 60:.0f}:{left % 60:02.0f}" if left is not None else "",
            "image": _image(row),
            "seen": show.ago(row["seen_seconds"]),
            "note": show.safe(row["reason"]),
        }
        mark = "[reverse]" if row["id"] == chosen else ""
        cells.append([f"{mark}{cell[name]}[/]" if mark and name == "node" else cell[name] for name in columns])
    table = show.grid(columns, cells)
    for column in table.columns:
        column.no_wrap, column.overflow = True, "ellipsis"
    return table


# From which width of the terminal on a column is there; what falls away first stands last.
_COLUMNS = (
    ("node", 0), ("state", 0), ("progress", 0), ("rate", 70), ("left", 60), ("image", 90), ("seen", 100), ("note", 80),
)  # fmt: skip


def _progress(row: Row, width: int) -> str:
    if row["state"] not in MOVING:
        return ""
    phase = show.safe(row["phase"])
    if not row["total"]:
        return phase
    share = min(1.0, row["done"] / row["total"])
    wide = BAR if width >= 70 else BAR // 2
    full = round(share * wide)
    bar = f"[blue]{'▓' * full}[/]{'░' * (wide - full)} {share:4.0%}"
    return f"{phase} {bar}" if width >= 60 else bar


def _image(row: Row) -> str:
    has, wanted = show.safe(row["image"]), show.safe(row["wanted"])
    return f"{has} → {wanted}".strip() if row["ordered"] and wanted and wanted != has else has


def _news(event: Mapping[str, Any]) -> str:
    return f"[bright_black]{show.clock(event['at'])}[/]  {show.safe(event['node'])} {show.safe(event['text'])}"


def _page(rows: Sequence[Row], events: Sequence[Mapping[str, Any]], view: View, room: int) -> list[str]:
    if view.page == "keys":
        return [show.safe(line) for line in HELP][:room]
    row = next((row for row in rows if row["id"] == view.chosen), None)
    if row is None:
        return ["this node is gone"]
    title = f"{show.safe(row['name'] or '#' + str(row['id']))}  {show.state(row['state'])}  {show.safe(row['reason'])}"
    wanted = [event for event in events if (event["level"] == "log") == (view.page == "log") or view.page == "timeline"]
    end = max(min(len(wanted), room - 1), len(wanted) - view.back)
    return [title, *(_event(event) for event in wanted[max(0, end - room + 1) : end])]


def _event(event: Mapping[str, Any]) -> str:
    colour = {"bad": "red", "warn": "yellow", "good": "green", "log": "bright_black"}.get(event["level"], "")
    text = show.safe(event["text"])
    return f"{show.clock(event['at'])}  " + (f"[{colour}]{text}[/]" if colour else text)
