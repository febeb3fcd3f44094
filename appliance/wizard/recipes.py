"""The recipe that answers come to: one text for the same answers, wherever it is made."""

from __future__ import annotations

import json

from appliance.wizard.engine import Answers, NewFile, word, words
from appliance.wizard.facts import Facts

BASE = "debian"
HEAD = "# Written by gild.pyz wizard from its answers, and written again when they change.\n"
NO_KEY = "none"


def recipe_file(facts: Facts, answers: Answers) -> NewFile:
    """STATE/recipes/NAME.toml as the answers of the steps image and packages want it."""
    image, more = answers.get("image", {}), answers.get("packages", {})
    name = word(image, "name") or "compute"
    lines = [f"name = {_text(name)}", f"extends = {_text(BASE)}"]
    if release := word(image, "release"):
        lines.append(f"suite = {_text(release)}")
    for key, wanted in (
        ("sets", words(more, "sets")), ("packages", words(more, "extra")), ("keys", login_keys(facts, answers)),
    ):  # fmt: skip
        if wanted:
            lines.append(f"{key} = [{', '.join(map(_text, wanted))}]")
    return NewFile(f"{facts.state}/recipes/{name}.toml", HEAD + "\n".join(lines) + "\n")


def login_keys(facts: Facts, answers: Answers) -> tuple[str, ...]:
    """The public keys that may log in: those that were given; else those of root on this machine."""
    given = answers.get("packages", {}).get("keys")
    if given is None:
        return facts.keys
    listed = given if isinstance(given, list) else [str(given)]
    return tuple(key for key in listed if key and key != NO_KEY)


def _text(text: str) -> str:
    # A basic string of TOML is one of JSON, but for the delete character.
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")
