"""JSON that is not believed: every value is of the kind it should be, or there is an error that says where."""

from __future__ import annotations

import json
import re
from typing import Any

from images.errors import SourceInvalid
from images.sources.layout import Layout, read_checked
from images.sources.names import show

MAX_JSON = 4 << 20  # bytes, what registries take for a manifest (distribution specification)
DIGEST = re.compile(r"sha256:[0-9a-f]{64}")


def read_json(layout: Layout, name: str) -> object:
    """A small file of the layout as JSON. Raises SourceInvalid."""
    return parse(read_checked(layout, name, MAX_JSON), name, layout)


def parse(data: bytes, name: str, layout: Layout) -> object:
    """The value of JSON text; `name` is the file it is from. Raises SourceInvalid."""
    try:
        value: object = json.loads(data)
    except (ValueError, RecursionError):
        raise SourceInvalid(f"{show(name)} in {layout.shown} is no JSON") from None
    return value


def an_object(value: object, what: str, layout: Layout) -> dict[str, Any]:
    """The value, if it is an object. Raises SourceInvalid."""
    if not isinstance(value, dict):
        raise SourceInvalid(f"{show(what)} in {layout.shown} is no JSON object where one belongs")
    return value


def a_list(value: object, limit: int, what: str, layout: Layout) -> list[Any]:
    """The value, if it is a list of at most `limit` entries. Raises SourceInvalid."""
    if not isinstance(value, list) or len(value) > limit:
        raise SourceInvalid(f"{show(what)} in {layout.shown} has no list, or one of more than {limit} entries")
    return value


def a_text(value: object, what: str, layout: Layout) -> str:
    """The value, if it is a text of 1 to 1024 characters. Raises SourceInvalid."""
    if not isinstance(value, str) or not 0 < len(value) <= 1024:
        raise SourceInvalid(f"{what} in {layout.shown} is no text")
    return value


def a_descriptor(value: object, what: str, layout: Layout) -> tuple[str, str, int]:
    """Media type, digest ("sha256:...") and size in bytes of what an OCI descriptor names. Raises SourceInvalid."""
    fields = an_object(value, f"a descriptor in {what}", layout)
    media, digest, size = fields.get("mediaType"), fields.get("digest"), fields.get("size")
    if not isinstance(digest, str) or not DIGEST.fullmatch(digest):
        raise SourceInvalid(f"{show(what)} in {layout.shown} names something by {show(str(digest))}, no sha256")
    if not isinstance(size, int) or isinstance(size, bool) or size < 0:
        raise SourceInvalid(f"{show(what)} in {layout.shown} gives {digest} the size {show(str(size)[:80])}")
    return media if isinstance(media, str) else "", digest, size
