"""The first lines of gild.pyz (its __main__.py): find a Python that fits, then hand over to the bootstrap.

Any Python may be the one that reads this, so the whole file keeps to what Python 2.7 can parse.
"""

import os
import subprocess
import sys

OLDEST = (3, 11)
NEWEST = (3, 14)
NAMES = ["python3.%d" % minor for minor in range(NEWEST[1], OLDEST[1] - 1, -1)]
GUARD = "GILD_REEXEC"


def start():  # type: () -> int
    """Run gild; returns its exit code. Starts a fitting Python from PATH in this one's place if there is one."""
    here = os.path.dirname(os.path.abspath(__file__))
    found = tuple(sys.version_info[:2])
    if not OLDEST <= found <= NEWEST:
        if not os.environ.get(GUARD):
            os.environ[GUARD] = "1"  # so that a mislabelled python3.11 ends in a message and not in a loop
            path = newer()
            if path:
                os.execv(path, [path, here] + sys.argv[1:])
        sys.stderr.write(
            "gild: this is Python %d.%d and none of %s is on PATH; install one of them, or run: PYTHON %s\n"
            % (found[0], found[1], ", ".join(NAMES), here)
        )
        return 5
    os.environ.pop(GUARD, None)
    from appliance import bootstrap

    return bootstrap.start(here)


def newer():  # type: () -> str | None
    """The newest Python of PATH that could run gild and really runs (a version manager's shim may not), or None."""
    folders = [folder for folder in os.environ.get("PATH", os.defpath).split(os.pathsep) if os.path.isabs(folder)]
    for name in NAMES:
        for folder in folders:
            path = os.path.join(folder, name)
            if os.access(path, os.X_OK) and not os.path.isdir(path):
                with open(os.devnull, "w") as nothing:
                    if subprocess.call([path, "-c", ""], stdout=nothing, stderr=nothing) == 0:
                        return path
    return None


if __name__ == "__main__":
    sys.exit(start())
