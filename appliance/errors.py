"""One table from errors to exit codes, and the errors of the appliance itself."""

from __future__ import annotations

from images import errors as image_errors
from images.errors import GildError


class ConfigInvalid(GildError):
    """A setting is unknown or has an impossible value."""


class NotServing(GildError):
    """No gild process answers on this state directory."""


class Unknown(GildError):
    """No node, profile, image or topic of that name."""


class Wrong(GildError):
    """The command asks for something that cannot be: two words that exclude each other, a name taken, and so on."""


class Environment(GildError):
    """The machine lacks something to serve: a privilege, an interface, a free port, a directory."""


class Declined(GildError):
    """A person answered no to a preview."""


# Exit codes of gild.pyz, the one table. 0 is success, 2 a wrong command line (as click and argparse use it).
EXIT_CODES: tuple[tuple[type[BaseException], int, str], ...] = (
    (Unknown, 3, "no such node, image, profile or topic"),
    (image_errors.NotFound, 3, "no such node, image, profile or topic"),
    (NotServing, 4, "no gild process serves this state directory"),
    (Environment, 5, "the machine lacks something: privilege, interface, port, directory"),
    (image_errors.ToolMissing, 5, "the machine lacks something: privilege, interface, port, directory"),
    (image_errors.NoSpace, 6, "disk full"),
    (image_errors.Busy, 7, "somebody else is at it"),
    (Declined, 8, "a person said no"),
    (ConfigInvalid, 9, "a setting or recipe is not valid"),
    (image_errors.RecipeInvalid, 9, "a setting or recipe is not valid"),
    (image_errors.ChunkInvalid, 10, "an image is damaged"),
    (image_errors.ChunkMissing, 10, "an image is damaged"),
    (image_errors.ManifestInvalid, 10, "an image is damaged"),
    (image_errors.BundleDamaged, 10, "an image is damaged"),
    (image_errors.Untrusted, 11, "an image is signed by a key nobody trusts here"),
    (GildError, 1, "anything else that failed"),
    (KeyboardInterrupt, 130, "interrupted"),
)


def exit_code(error: BaseException) -> int:
    """The process exit code for `error`: the first row of EXIT_CODES whose class fits; 1 for everything else."""
    return next((code for kind, code, _ in EXIT_CODES if isinstance(error, kind)), 1)
