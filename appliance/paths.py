"""Every file and directory of the state by name. Nobody else joins paths below STATE."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Paths:
    """Where everything lies, below one state directory (default /var/lib/gild)."""

    state: Path

    @property
    def database(self) -> Path:
        """Nodes, profiles, orders, leases, timeline."""
        return self.state / "gild.db"

    @property
    def lock(self) -> Path:
        """Held by the serving process; two servers on one state directory would give addresses twice."""
        return self.state / "lock"

    @property
    def socket(self) -> Path:
        """Operator API: HTTP over a unix socket, root only."""
        return self.state / "gild.sock"

    @property
    def settings(self) -> Path:
        """gild.toml, the settings that are not on the command line."""
        return self.state / "gild.toml"

    @property
    def wizard(self) -> Path:
        """What was answered in the wizard, mode 600."""
        return self.state / "wizard.toml"

    @property
    def serve_log(self) -> Path:
        """What a head prints that the wizard has started in the background."""
        return self.state / "serve.log"

    @property
    def keys(self) -> Path:
        """The head's private key and certificate, mode 700."""
        return self.state / "keys"

    @property
    def signing_key(self) -> Path:
        """The key this head signs exported images with, mode 600."""
        return self.keys / "signing.key"

    @property
    def trusted(self) -> Path:
        """Public keys of the heads whose images may be imported, NAME.pub each."""
        return self.keys / "trusted"

    @property
    def boot(self) -> Path:
        """The site's own boot files, served by their names over TFTP and HTTP."""
        return self.state / "boot"

    @property
    def sets(self) -> Path:
        """The site's own package sets for recipes, NAME.toml each."""
        return self.state / "sets"

    @property
    def profiles(self) -> Path:
        """The site's own files of each profile: NAME/overlay, NAME/pre.d and NAME/post.d."""
        return self.state / "profiles"

    @property
    def hooks(self) -> Path:
        """The site's own programs that are told of events: NAME for all, EVENT/NAME for one."""
        return self.state / "hooks.d"

    @property
    def images(self) -> Path:
        """The image store."""
        return self.state / "store"
