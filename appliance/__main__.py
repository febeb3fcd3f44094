"""Entry point. `--version` needs the standard library alone, so it answers at once."""

from __future__ import annotations

import sys


def main() -> int:
    """Run the command line; returns the exit code (appliance.errors.EXIT_CODES)."""
    if sys.argv[1:] in (["--version"], ["-V"], ["version"]):
        from appliance import __version__

        print(f"gild {__version__}")
        return 0
    if sys.argv[1:2] == ["probe-child"]:  # what appliance.probing starts
        from appliance.probe import main as probe

        return probe(sys.argv[2:])
    from appliance.bootstrap import fill_streams
    from appliance.cli.main import run

    fill_streams()
    return run(sys.argv[1:])


if __name__ == "__main__":
    sys.exit(main())
