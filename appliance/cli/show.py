"""What a person sees: tables, sizes, ages, progress bars, and one question before danger."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from appliance.errors import Declined, Wrong

if TYPE_CHECKING:
    from rich.table import Table

# Sign and colour of each state; the word always stands beside them.
STATES = {
    "waiting": ("◌", "bright_black"),
    "ready": ("○", "bright_black"),
    "installing": ("▶", "blue"),
    "installed": ("✓", "cyan"),
    "up": ("●", "green"),
    "failed": ("✖", "red"),
    "lost": ("?", "yellow"),
    "capturing": ("⇡", "magenta"),
}


def as_json(value: Any) -> None:
    """Print `value` for scripts: indented JSON, characters as they are."""
    print(json.dumps(value, indent=2, ensure_ascii=False, default=str))


def size(count: float) -> str:
    """Bytes for people, in binary units: 950 B, 3.7 GiB."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if abs(count) < 1024 or unit == "GiB":
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1024
    raise AssertionError("unreachable")


def ago(seconds: float | None) -> str:
    """A span of seconds for people: 12 s, 4 min, 3 h, 2 d; empty for None."""
    if seconds is None:
        return ""
    for limit, unit, word in ((120, 1, "s"), (7200, 60, "min"), (172800, 3600, "h")):
        if seconds < limit:
            return f"{max(0, seconds) / unit:.0f} {word}"
    return f"{seconds / 86400:.0f} d"


def clock(at: float) -> str:
    """A wall time of today as 14:02:31, of another day with its date."""
    then, now = time.localtime(at), time.localtime()
    return time.strftime("%H:%M:%S" if then[:3] == now[:3] else "%Y-%m-%d %H:%M:%S", then)


def safe(text: Any) -> str:
    """Text that came from a machine, with control and direction characters made visible, and no markup."""
    return "".join(c if c.isprintable() else f"\\x{ord(c):02x}" for c in str(text)).replace("[", "\\[")


def plain(text: Any) -> str:
    """Like `safe`, for a line that is printed as it is; tabs stay."""
    return "".join(c if c.isprintable() or c == "\t" else f"\\x{ord(c):02x}" for c in str(text))


def state(word: str) -> str:
    """A state with its sign and colour, as rich markup."""
    sign, colour = STATES.get(word, ("·", "white"))
    return f"[{colour}]{sign} {word}[/]"


def grid(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> Table:
    """A table without lines; cells are rich markup (pass machine text through `safe`)."""
    from rich import box
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False, header_style="bold")
    for column in columns:
        table.add_column(column, overflow="fold")
    for row in rows:
        table.add_row(*row)
    return table


def table(columns: Sequence[str], rows: Sequence[Sequence[str]], empty: str) -> None:
    """Print a table, or the line `empty` when there are no rows. Not cut off where there is no terminal."""
    from rich.console import Console

    if not rows:
        print(empty)
        return
    # A MAC address such as 00:0a:cd:ab:... would be taken for the short name of a picture.
    Console(width=None if sys.stdout.isatty() else 200, highlight=False, emoji=False).print(grid(columns, rows))


def facts(pairs: Sequence[tuple[str, str]]) -> None:
    """Print name and value, one pair a line; pairs without a value are left out."""
    from rich.console import Console

    console = Console(highlight=False, emoji=False, soft_wrap=True)
    width = max((len(name) for name, value in pairs if value), default=0)
    for name, value in pairs:
        if value:
            console.print(f"[bold]{name:<{width}}[/]  {value}")


def ask(question: str, yes: bool) -> None:
    """Ask before danger. `yes` answers for scripts. Raises Declined on no, Wrong where nobody can answer."""
    if yes:
        return
    if not sys.stdin.isatty():
        raise Wrong("this needs a yes, and there is no terminal to ask on", "add --yes")
    print(f"{question} [y/N] ", end="", flush=True)
    if sys.stdin.readline().strip().lower() not in ("y", "yes"):
        raise Declined("nothing was done")


@contextmanager
def progress(title: str) -> Iterator[Callable[[str, int, int], None]]:
    """Progress of long work: yields report(phase, done, total). A bar on a terminal, a line a phase elsewhere.

    `total` 0 means unknown; `done` and `total` are bytes where they are larger than a million.
    """
    if not sys.stderr.isatty():
        last: list[str] = []

        def plain(phase: str, done: int, total: int) -> None:
            if [phase] != last:
                last[:] = [phase]
                print(f"{title}: {phase}", file=sys.stderr, flush=True)

        yield plain
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, SpinnerColumn, TaskID, TextColumn, TimeElapsedColumn

    with Progress(
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.fields[amount]}"),
        TimeElapsedColumn(),
        console=Console(stderr=True),
        refresh_per_second=4,
    ) as bars:
        tasks: dict[str, TaskID] = {}

        def bar(phase: str, done: int, total: int) -> None:
            if phase not in tasks:
                for earlier in tasks.values():
                    bars.update(earlier, total=1, completed=1)
                tasks[phase] = bars.add_task(f"{title}: {phase}", total=total or None, amount="")
            amount = f"{size(done)} of {size(total)}" if total > 1_000_000 else ""
            bars.update(tasks[phase], completed=done, total=total or None, amount=amount)

        yield bar
        for task in tasks.values():
            bars.update(task, total=1, completed=1)
