"""Files in memory, for plans."""

from __future__ import annotations

from appliance.cluster.change import Change


class Files(dict[str, str]):
    """Path -> text."""

    def read(self, path: str) -> str | None:
        return self.get(path)

    def take(self, change: Change) -> Change:
        """As `apply` would write them."""
        for file in change.files:
            assert file.before == self.get(file.path)
            if file.changed:
                self[file.path] = file.after
        return change
