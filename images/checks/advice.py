"""The one line that tells a person how to change an image: a command, or a package by its name in the distribution."""

from __future__ import annotations

from collections.abc import Mapping

# How the package manager of each family installs without asking. Lists of packages are stripped, so they come first.
INSTALL = {
    "debian": "sh -c 'apt-get update && apt-get install -y {}'",
    "redhat": "dnf install -y {}",
    "suse": "zypper -n install {}",
    "alpine": "apk add --no-cache {}",
    "arch": "pacman -Sy --noconfirm {}",
    "void": "xbps-install -Sy {}",
    "gentoo": "emerge {}",
}


def edit(command: str) -> str:
    """`command` run in an image, whose name the reader puts in place of NAME."""
    return f"gild.pyz image edit NAME -- {command}"


def install(family: str, packages: Mapping[str, str]) -> str:
    """How to add a package that each family has another name for; "" stands for a family that is not known."""
    name = packages.get(family, "")
    if not name:
        return f"install a package such as {packages['debian']} in the image (gild.pyz image edit NAME)"
    command = edit(INSTALL[family].format(name))
    if family == "debian":
        words = ", ".join(f'"{word}"' for word in name.split())
        return f"{command}; or packages = [{words}] in the recipe"
    return command
