"""Messages between agent and head as JSON: frozen dataclasses both ways, every field checked on the way in."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import MISSING, fields, is_dataclass
from enum import StrEnum
from functools import cache
from types import NoneType, UnionType
from typing import Any, TypeVar, Union, get_args, get_origin, get_type_hints

from images.errors import GildError

# Version of every message between agent and head. An agent and a head of different versions say so and stop.
WIRE = 2
MAX_MESSAGE = 4 * 1024 * 1024  # bytes: a node with hundreds of disks and NICs stays far below it
MAX_TEXT = 65536  # characters of one text field
MAX_ITEMS = 4096  # entries of one list or object
MAX_DEPTH = 16  # lists and objects inside one another, where the type leaves it open

T = TypeVar("T")


class WireInvalid(GildError):
    """A message is not JSON, lacks a field, or a field has the wrong type or an impossible size."""


def encode(message: Any) -> bytes:
    """A dataclass instance as JSON bytes."""
    return json.dumps(message, default=_fields, separators=(",", ":"), ensure_ascii=False).encode()


def _fields(value: Any) -> dict[str, Any]:
    """A dataclass by its fields. Unlike dataclasses.asdict it copies nothing: that took a seventh of the head's time
    while 400 machines were installed (measured)."""
    kind: Any = type(value)
    return {name: getattr(value, name) for name in _names(kind)}


@cache
def _names(kind: Any) -> tuple[str, ...]:
    return tuple(entry.name for entry in fields(kind))


def decode(kind: type[T], data: bytes) -> T:
    """Read `data` as a message of class `kind`. Unknown fields are ignored (a newer peer may send more), missing ones
    take their defaults. Raises WireInvalid, and nothing else, for anything that does not fit."""
    if len(data) > MAX_MESSAGE:
        raise WireInvalid(f"message of {len(data)} bytes is larger than {MAX_MESSAGE}")
    try:
        # Decoded here: json.loads takes bytes of half a character, which nothing behind it can write down again.
        text = data.decode()
        body = json.loads(text)
        if "\\ud" in text or "\\uD" in text:
            json.dumps(body, ensure_ascii=False).encode()
    except (ValueError, RecursionError) as error:
        raise WireInvalid(f"message is not JSON: {str(error)[:200]}") from None
    return from_object(kind, body)


def from_object(kind: type[T], body: Any) -> T:
    """Like `decode`, for a value that json has read already. Raises WireInvalid."""
    value: T = _value(kind, body, kind.__name__)
    return value


_PLAIN: dict[Any, Callable[[Any], bool]] = {
    str: lambda value: type(value) is str and len(value) <= MAX_TEXT,
    int: lambda value: type(value) is int and -(1 << 63) < value < 1 << 63,
    bool: lambda value: type(value) is bool,
}


@cache
def _wanted(kind: Any) -> tuple[tuple[str, Any, Callable[[Any], bool] | None, bool], ...]:
    """Of every field: name, type, what recognises a plain value that fits, and whether it has no default."""
    hints = get_type_hints(kind)
    return tuple(
        (entry.name, hints[entry.name], _PLAIN.get(hints[entry.name]),
         entry.default is MISSING and entry.default_factory is MISSING)
        for entry in fields(kind)
    )  # fmt: skip


def _value(kind: Any, value: Any, where: str) -> Any:
    if kind is Any:
        return _free(value, where, 0)
    origin = get_origin(kind)
    if origin in (Union, UnionType):
        options = get_args(kind)
        if value is None and NoneType in options:
            return None
        return _value(next(o for o in options if o is not NoneType), value, where)
    if origin is tuple:
        if not isinstance(value, list) or len(value) > MAX_ITEMS:
            raise WireInvalid(f"{where} is not a list of at most {MAX_ITEMS}")
        inner = get_args(kind)[0]
        return tuple(_value(inner, entry, f"{where}[{n}]") for n, entry in enumerate(value))
    if origin is dict:
        if not isinstance(value, dict) or len(value) > MAX_ITEMS:
            raise WireInvalid(f"{where} is not an object of at most {MAX_ITEMS} entries")
        inner = get_args(kind)[1]
        return {str(key): _value(inner, entry, f"{where}.{key}") for key, entry in value.items()}
    if is_dataclass(kind):
        return _object(kind, value, where)
    return _scalar(kind, value, where)


def _free(value: Any, where: str, depth: int) -> Any:
    """A value of no fixed type (an edit's options): as JSON gives it, but bounded like the others."""
    if depth > MAX_DEPTH:
        raise WireInvalid(f"{where} is nested more than {MAX_DEPTH} deep")
    if isinstance(value, list | dict):
        if len(value) > MAX_ITEMS:
            raise WireInvalid(f"{where} has more than {MAX_ITEMS} entries")
        for entry in value.values() if isinstance(value, dict) else value:
            _free(entry, where, depth + 1)
        return value
    return value if value is None else _scalar(type(value), value, where)


def _object(kind: Any, value: Any, where: str) -> Any:
    if not isinstance(value, dict):
        raise WireInvalid(f"{where} is not an object")
    given = {}
    for name, hint, plain, needed in _wanted(kind):
        if name in value:
            entry = value[name]
            # Most fields are plain and as they should be: the long way is for all others, and knows what to say.
            fits = plain is not None and plain(entry)
            given[name] = entry if fits else _value(hint, entry, f"{where}.{name}")
        elif needed:
            raise WireInvalid(f"{where} lacks {name!r}")
    return kind(**given)


def _scalar(kind: Any, value: Any, where: str) -> Any:
    if isinstance(kind, type) and issubclass(kind, StrEnum):
        try:
            return kind(value)
        except ValueError:
            raise WireInvalid(f"{where} is {str(value)[:40]!r}, not one of {', '.join(kind)}") from None
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        value = float(value) if abs(value) < 1 << 53 else value
    if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
        raise WireInvalid(f"{where} is not of type {kind.__name__}")
    if isinstance(value, str) and len(value) > MAX_TEXT:
        raise WireInvalid(f"{where} is longer than {MAX_TEXT} characters")
    if isinstance(value, int) and abs(value) >= 1 << 63:
        raise WireInvalid(f"{where} is not a 64-bit number")
    if isinstance(value, float) and not abs(value) < 1e18:  # also refuses nan
        raise WireInvalid(f"{where} is not a usable number")
    return value
