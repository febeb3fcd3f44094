"""What a check is told about the system it looks at, beside the tree itself."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from images.checks.survey import Survey
from images.distro.family import Release
from images.distro.find import System
from images.kernels import Kernel
from images.options import CMDLINE

UNKNOWN = System(None, Release(), "", "")


@dataclass(frozen=True, slots=True)
class Room:
    """One mounted file system: its size, what an ordinary user may still write, in bytes, and its free inodes as a
    share of all (1.0 where it makes them as it needs them)."""

    size: int
    free: int
    inodes: float = 1.0


@dataclass(frozen=True, slots=True)
class Subject:
    """`uuid` and `fs` are those of the root filesystem, `mounts` role -> mount point of the image's partitions,
    `kernels` newest first, `cmdline` the arguments that a boot menu written here has, `hostname` the name that the
    golden client had, `room` what is left by mount point, where the filesystems are mounted as they will be
    published."""

    uuid: str
    fs: str = "ext4"
    cmdline: str = CMDLINE
    mounts: Mapping[str, str] = field(default_factory=lambda: {"root": "/"})
    kernels: tuple[Kernel, ...] = ()
    system: System = UNKNOWN
    arch: str = "amd64"
    hostname: str = ""
    room: Mapping[str, Room] = field(default_factory=dict)
    survey: Survey = field(default_factory=Survey)

    @property
    def family(self) -> str:
        """Name of the family of distributions, "" where it is not known."""
        return self.system.family.name if self.system.family else ""
