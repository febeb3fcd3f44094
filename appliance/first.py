# The first code of gild.pyz: it becomes the archive's __main__.py. Any Python, however old, must be able to read it,
# so that it can hand over to a newer one or say what is wrong in one line.
import os
import subprocess
import sys


def newer():
    """A Python 3.11 to 3.14 on PATH that really runs (a version manager's shim may not), or None."""
    for minor in (14, 13, 12, 11):
        for folder in os.environ.get("PATH", "").split(os.pathsep):
            candidate = os.path.join(folder, "python3.%d" % minor)
            if os.access(candidate, os.X_OK):
                with open(os.devnull, "w") as nothing:
                    if subprocess.call([candidate, "-c", ""], stdout=nothing, stderr=nothing) == 0:
                        return candidate
    return None


if sys.version_info < (3, 11):
    # GILD_REEXEC: handed over once already, and still too old; do not go round in circles.
    candidate = None if os.environ.get("GILD_REEXEC") else newer()
    if candidate:
        os.environ["GILD_REEXEC"] = "1"
        os.execv(candidate, [candidate] + sys.argv)
    sys.exit(
        "gild needs Python 3.11 to 3.14 and this is %d.%d; apt install python3, or dnf install python3.11"
        % sys.version_info[:2]
    )
os.environ.pop("GILD_REEXEC", None)

if __name__ == "__main__":
    from appliance.bootstrap import begin

    begin()
