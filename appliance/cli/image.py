"""gild image: its verbs, each in the file of its kind."""

from __future__ import annotations

import click

from appliance.cli.main import Verbs

# Verbs in the order in which they are used: name -> file, function.
VERBS = {
    "recipe": ("image_make", "recipe"),
    "build": ("image_make", "build"),
    "import": ("image_make", "import_"),
    "capture": ("image_capture", "command"),
    "list": ("image_show", "list_"),
    "show": ("image_show", "show_"),
    "edit": ("image_edit", "edit"),
    "diff": ("image_history", "diff"),
    "log": ("image_history", "log"),
    "tag": ("image_history", "tag"),
    "rollback": ("image_history", "rollback"),
    "verify": ("image_keep", "verify"),
    "repair": ("image_keep", "repair"),
    "rm": ("image_keep", "rm"),
    "gc": ("image_keep", "gc"),
    "export": ("image_carry", "export"),
    "have": ("image_carry", "have"),
    "trust": ("image_carry", "trust"),
}


@click.group("image", cls=Verbs, verbs=VERBS)
def command() -> None:
    """Operating systems to install: build, import, edit, carry."""
