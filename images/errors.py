"""Every error a person is meant to read. One line that names the act and the thing, and a hint that names the way out.

`GildError` is the root for all three packages, so that one table in `appliance/errors.py` can map classes to exit codes
and HTTP statuses. The classes here are those of images; netboot and appliance derive their own.
"""

from __future__ import annotations


class GildError(Exception):
    """A failure with a message for people.

    `message` is one line: what was attempted, on what, and what went wrong. `hint` is one line: what to do about it,
    or empty where there is nothing sensible to advise.
    """

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message} ({self.hint})" if self.hint else self.message


class ImageError(GildError):
    """Anything wrong with an image, its files or its store."""


class NotFound(ImageError):
    """No image, version, tag or pack of that name."""


class ManifestInvalid(ImageError):
    """A manifest or runs file is truncated, contradicts itself or is not of a format this version reads."""


class ChunkInvalid(ImageError):
    """A chunk's bytes do not match its hash. Names pack, chunk and offset."""


class ChunkMissing(ImageError):
    """A pack or a chunk that the manifest names is not there."""


class TargetTooSmall(ImageError):
    """The image does not fit on the disk or partition."""


class TargetFailed(ImageError):
    """The disk did not take or keep what was written."""


class ToolMissing(ImageError):
    """A program of the host system is needed and not installed; the hint names the package."""


class CommandFailed(ImageError):
    """A subprocess ended with an error; the message carries the tail of its error output."""


class RecipeInvalid(ImageError):
    """A recipe has an unknown key, a wrong type or names a package that does not exist."""


class SourceInvalid(ImageError):
    """A directory, archive or disk offered as an image is not one, or would escape its place."""


class BundleDamaged(ImageError):
    """A bundle of images was cut short or changed on its way, or is not one."""


class Untrusted(ImageError):
    """A bundle is signed by a key that nobody trusts here."""


class Busy(ImageError):
    """Somebody else works on the same lineage or store; the message says who."""


class NoSpace(ImageError):
    """The disk that holds the store (or the work) is full; nothing half-written was kept."""
