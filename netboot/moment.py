"""A moment as people write it: tonight, in two hours, on a day."""

from __future__ import annotations

from datetime import datetime, timedelta

from images.errors import GildError

MAX_AHEAD = 30 * 86400.0  # seconds: who remembers later what was shown today?


class MomentInvalid(GildError):
    """Not a time, or not one that lies ahead."""


def moment(text: str, now: float) -> float:
    """Seconds since 1970 of a moment as people write it, `now` being those of the present: 02:00 (the next time the
    clock of this head shows it), +2h, +90m, +1h30m, 2027-01-31T02:00 (here) or 2027-01-31T02:00:00Z (RFC 3339). Raises
    MomentInvalid for what is no moment, is past, or is more than MAX_AHEAD away."""
    shown = "".join(c if c.isprintable() else "?" for c in text)[:40]
    wrong = MomentInvalid(f"{shown!r} is no time", "write it as 02:00, +2h, or 2027-01-31T02:00:00+01:00")
    try:
        if text.startswith("+"):
            found = now + _offset(text[1:])
        elif len(text) == 5 and text[2] == ":":
            found = _next(int(text[:2]), int(text[3:]), now)
        else:
            found = datetime.fromisoformat(text).timestamp()
    except (ValueError, OverflowError, OSError):
        raise wrong from None
    if not now - 60 <= found <= now + MAX_AHEAD:
        raise MomentInvalid(f"{shown!r} is {'past' if found < now else 'more than 30 days away'}", wrong.hint)
    return found


def _next(hour: int, minute: int, now: float) -> float:
    # Local times of day, not steps of 86400 s: a night in which the clocks change has 23 or 25 hours.
    today = datetime.fromtimestamp(now).replace(hour=hour, minute=minute, second=0, microsecond=0)
    return next(at for days in range(3) if (at := (today + timedelta(days=days)).timestamp()) > now)


def _offset(text: str) -> float:
    seconds, number = 0.0, ""
    for c in text:
        if c.isascii() and c.isdigit() and len(number) < 6:
            number += c
        elif c in "dhm" and number:
            seconds += int(number) * {"d": 86400, "h": 3600, "m": 60}[c]
            number = ""
        else:
            raise ValueError(text)
    if number or not text:
        raise ValueError(text)
    return seconds
