"""RPM packages into an empty tree: dnf --installroot for Fedora, Rocky, Alma and their kin, zypper --root for SUSE.

Systems built this way were never booted. The command lines follow dnf(8), dnf.conf(5) and zypper(8). The dates in
rpm's book are those of the build, unless rpm is 4.20 or later, which takes them from SOURCE_DATE_EPOCH: the same
recipe twice differs in that one file.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path

from images.errors import RecipeInvalid, ToolMissing
from images.ext4 import EPOCH
from images.options import Progress
from images.run import run
from images.sources import rpmbook
from images.sources.installing import Speech, install
from images.sources.recipetables import Repo
from images.sources.recipetext import Recipe
from images.strip import MOUNT_POINTS

# What the families ask a Debian head to install: the hint where the tool is missing.
TOOLS = {"dnf": ("dnf", "apt install dnf, or dnf5 on newer systems"), "zypper": ("zypper", "apt install zypper rpm")}
DNF = Speech(
    # dnf 4: "No match for argument: x", "Unable to find a match: x y"; dnf 5: "No match for argument: x".
    unknown=re.compile(r"No match for argument: (\S+)"),
    step=re.compile(r"^\s*(?:Installing|\[\s*\d+/\d+\] Installing)\b.*\d+/\d+|^\[\s*\d+/\d+\] Installing "),
    count=re.compile(r"^Install\s+(\d+) Packages?|^\s+Installing:\s+(\d+) packages?"),
)
ZYPPER = Speech(
    unknown=re.compile(r"No provider of '(\S+)' found|Package '(\S+)' not found|'(\S+)' not found in package names"),
    step=re.compile(r"^\(\s*\d+/\d+\) Installing: "),
    count=re.compile(r"^(\d+) new packages? to install|(\d+) new packages?[ ,]"),
    refused=re.compile(r"Signature verification failed|Valid metadata not found|Skipping repository"),
)
ZYPP_REPOS = "etc/zypp/repos.d"
# Device numbers: Documentation/admin-guide/devices.txt of the kernel. A scriptlet that finds no /dev/null makes a file
# of that name, which grows.
NODES = (("null", 1, 3), ("zero", 1, 5), ("full", 1, 7), ("random", 1, 8), ("urandom", 1, 9), ("tty", 5, 0))


def require(family: str) -> None:
    """Raises ToolMissing if this machine has not the tool of the family."""
    tool, hint = TOOLS[family]
    if shutil.which(tool) is None:
        raise ToolMissing(f"building a recipe of family {family}: {tool} is not installed", hint)


def check(recipe: Recipe) -> None:
    """Raises RecipeInvalid if the recipe does not say where packages come from, of which release, or which."""
    if not recipe.repos:
        raise RecipeInvalid(
            f"recipe: family {recipe.family} needs repositories", '[repos.base] url = "https://...", key = "..."'
        )
    if not recipe.packages:
        raise RecipeInvalid(f"recipe: family {recipe.family} needs packages", 'packages = ["systemd", "kernel", ...]')
    if recipe.family == "dnf" and not recipe.suite:
        raise RecipeInvalid("recipe: family dnf needs a suite, which becomes $releasever", 'suite = "9"')
    for repo in recipe.repos:
        if repo.key and "://" not in repo.key and not Path(repo.key).is_file():
            raise RecipeInvalid(f"recipe: repository {repo.name!r}: there is no key {repo.key}", "a file or a URL")


def fill(recipe: Recipe, tree: Path, scratch: Path, act: str, tell: Progress) -> None:
    """Install the recipe's packages into the empty directory `tree`; `scratch` is an empty one on the same disk, for
    caches. Raises RecipeInvalid, NoSpace, CommandFailed, ToolMissing."""
    packages = [*recipe.packages]
    if any(user.sudo for user in recipe.users):
        packages.append("sudo")
    packages = list(dict.fromkeys(packages))
    environment = {"SOURCE_DATE_EPOCH": str(EPOCH), "TMPDIR": os.fspath(scratch), **rpmbook.home(scratch)}
    if recipe.family == "dnf":
        argv, before, speech = _dnf(recipe, tree, scratch, packages), _mounts(tree), DNF
    else:
        argv, before, speech = _zypper(recipe, tree, scratch, packages), _zypper_keys(recipe, tree, environment), ZYPPER
    install(argv, tree, speech, act=act, env=environment, tell=tell, before=before)
    rpmbook.settle(tree, scratch, act)
    for repo in recipe.repos:  # what lies on the head's disk, no node has
        if recipe.family == "zypper" and repo.url.startswith(("file:", "dir:")):
            (tree / ZYPP_REPOS / f"{repo.name}.repo").unlink(missing_ok=True)


def repo_file(repo: Repo, *, key: bool = True) -> str:
    """A repository as dnf and zypper read it (dnf.conf(5)); without `key` the place of its key is left out."""
    lines = [f"[{repo.name}]", f"name={repo.name}", f"baseurl={repo.url}", "enabled=1"]
    lines.append(f"gpgcheck={int(bool(repo.key))}")
    if repo.key and key:
        lines.append(f"gpgkey={repo.key if '://' in repo.key else f'file://{repo.key}'}")
    return "\n".join([*lines, ""])


def _dnf(recipe: Recipe, tree: Path, scratch: Path, packages: list[str]) -> list[str]:
    for name in ("repos", "cache", "log", "vars"):
        (scratch / name).mkdir()
    for repo in recipe.repos:
        (scratch / "repos" / f"{repo.name}.repo").write_text(repo_file(repo))
    # Documentation is left out as Debian's path-exclude does it; keepcache: the cache lies in scratch and goes with it.
    conf = "[main]\nbest=True\ninstall_weak_deps=False\ntsflags=nodocs\nskip_if_unavailable=False\nplugins=0\n"
    (scratch / "dnf.conf").write_text(conf)
    argv = ["dnf", f"--config={scratch / 'dnf.conf'}", f"--installroot={tree}", f"--releasever={recipe.suite}"]
    for key, name in (("reposdir", "repos"), ("cachedir", "cache"), ("logdir", "log"), ("varsdir", "vars")):
        argv.append(f"--setopt={key}={scratch / name}")
    return [*argv, "--assumeyes", "install", *packages]


def _zypper(recipe: Recipe, tree: Path, scratch: Path, packages: list[str]) -> list[str]:
    repos = tree / ZYPP_REPOS
    repos.mkdir(parents=True)
    for repo in recipe.repos:
        (repos / f"{repo.name}.repo").write_text(repo_file(repo, key="://" in repo.key))
    argv = ["zypper", "--root", os.fspath(tree), "--non-interactive", "--cache-dir", os.fspath(scratch / "cache")]
    if recipe.suite:
        argv += ["--releasever", recipe.suite]
    return [*argv, "install", "--no-recommends", "--auto-agree-with-licenses", "--", *packages]


def _zypper_keys(recipe: Recipe, tree: Path, environment: Mapping[str, str]) -> Callable[[], None]:
    """rpm is told the keys beforehand: --gpg-auto-import-keys would believe whatever key a mirror shows."""
    mount = _mounts(tree)

    def before() -> None:
        mount()
        for key in dict.fromkeys(repo.key.replace("$releasever", recipe.suite) for repo in recipe.repos if repo.key):
            argv = ["rpm", "--root", os.fspath(tree), "--import", key]
            run(argv, env=environment, timeout=300, act=f"reading the key {key}")

    return before


def _mounts(tree: Path) -> Callable[[], None]:
    """What scriptlets of packages expect around them; only inside a mount namespace, which ends it."""

    def before() -> None:
        for name, mode in MOUNT_POINTS.items():
            (tree / name).mkdir(exist_ok=True)
            (tree / name).chmod(mode)
        for kind, name, words in (
            ("proc", "proc", "nosuid,nodev,noexec"),
            ("sysfs", "sys", "ro,nosuid,nodev,noexec"),
            ("tmpfs", "dev", "nosuid,noexec,mode=755,size=64m"),
        ):
            run(["mount", "-t", kind, "-o", words, kind, os.fspath(tree / name)], timeout=60, act=f"mounting {name}")
        for name, major, minor in NODES:
            os.mknod(tree / "dev" / name, 0o20666, os.makedev(major, minor))
            (tree / "dev" / name).chmod(0o666)
        for name in ("fd", "stdin", "stdout", "stderr"):
            number = {"stdin": "/0", "stdout": "/1", "stderr": "/2"}.get(name, "")
            (tree / "dev" / name).symlink_to(f"/proc/self/fd{number}")

    return before
