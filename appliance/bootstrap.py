"""How the running .pyz imports what it carries: Python from the zip, native libraries through memory, no file written.

Standard library alone, and little of it: this is what `gild.pyz --version` costs.
"""

from __future__ import annotations

import marshal
import os
import sys
import zipimport
from collections.abc import Iterator
from importlib.machinery import EXTENSION_SUFFIXES, ExtensionFileLoader, ModuleSpec
from importlib.util import MAGIC_NUMBER
from types import CodeType, ModuleType
from typing import IO, Any

MEMBERS = "MEMBERS"  # the list of all other members, a line each
FOLDERS = ("", "lib/")  # where Python files lie: our own, and other people's packages
CACHE = "GILD_CACHE"  # names a folder for native libraries, where a policy refuses to run code from memory


class Bundle:
    """Finder and loader of everything in the .pyz at `path`, which is opened once: renaming a newer file over it (an
    upgrade) cannot mix the two."""

    def __init__(self, path: str) -> None:
        self.path = path
        self.fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        self._zip = zipimport.zipimporter(f"/proc/self/fd/{self.fd}")
        self.members = frozenset(self._zip.get_data(MEMBERS).decode().split("\n"))
        self.machine = EXTENSION_SUFFIXES[0].removeprefix(".cpython-3").partition("-")[2].partition("-linux-gnu.so")[0]
        self._code = f"code/{int.from_bytes(MAGIC_NUMBER[:2], 'little')}/"
        self._cache_told = False

    def fits(self) -> bool:
        """Whether this build has libraries for the interpreter that runs."""
        folder = f"native/{self.machine}/"
        ends = (EXTENSION_SUFFIXES[0], f"{EXTENSION_SUFFIXES[0]}.xz")
        return any(name.startswith(folder) and name.endswith(ends) for name in self.members)

    # What the import system asks.

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> ModuleSpec | None:
        """Where the module is in the .pyz; None: not here, others are asked."""
        base = name.replace(".", "/")
        for folder in FOLDERS:
            for member in (f"{folder}{base}/__init__.py", f"{folder}{base}.py"):
                if member in self.members:
                    return self._spec(name, member)
        for suffix in EXTENSION_SUFFIXES:
            member = f"native/{self.machine}/{base}{suffix}"
            library = self._library(member)
            if library is not None:
                place = self._native(name, library)
                spec = ModuleSpec(name, ExtensionFileLoader(name, place), origin=place)
                spec.has_location = True
                return spec
        return None

    def _spec(self, name: str, member: str) -> ModuleSpec:
        package = member.endswith("/__init__.py")
        loader: Any = self  # has what a loader needs; importing importlib.abc costs 25 ms (measured)
        spec = ModuleSpec(name, loader, origin=f"{self.path}/{member}", is_package=package, loader_state=member)
        if spec.submodule_search_locations is not None:
            spec.submodule_search_locations.append(os.path.dirname(f"{self.path}/{member}"))
        spec.has_location = True
        return spec

    def create_module(self, spec: ModuleSpec) -> None:
        """Python's own kind of module will do."""

    def exec_module(self, module: ModuleType) -> None:
        """Run the module's code."""
        exec(self.get_code(module.__name__), module.__dict__)

    # What tracebacks, runpy, importlib.resources and pkgutil ask.

    def get_code(self, name: str) -> CodeType:
        """Compiled when the .pyz was built, if that was by this version of Python; compiled now otherwise."""
        member = self._member(name)
        if self._code + member in self.members:
            code: CodeType = marshal.loads(self.read(self._code + member))
            return code
        return compile(self.read(member), f"gild.pyz/{member}", "exec", dont_inherit=True)

    def get_source(self, name: str) -> str:
        """The text of a module, for tracebacks."""
        return self.read(self._member(name)).decode()

    def get_filename(self, name: str) -> str:
        """Its __file__."""
        return f"{self.path}/{self._member(name)}"

    def is_package(self, name: str) -> bool:
        """Whether it has modules below it."""
        return self._member(name).endswith("/__init__.py")

    def get_data(self, path: str) -> bytes:
        """The file at `path`, which begins with the path of the .pyz. Raises FileNotFoundError."""
        return self.read(path.removeprefix(self.path + "/"))

    def get_resource_reader(self, name: str) -> Resources:
        """For importlib.resources.files(name). Raises ImportError for a module that is not a package in here."""
        return Resources(self, os.path.dirname(self._member(name)))

    def _member(self, name: str) -> str:
        base = name.replace(".", "/")
        for folder in FOLDERS:
            for member in (f"{folder}{base}/__init__.py", f"{folder}{base}.py"):
                if member in self.members:
                    return member
        raise ImportError(f"{self.path} has no module {name}", name=name)

    def read(self, member: str) -> bytes:
        """A member's bytes. Raises FileNotFoundError."""
        if member not in self.members:
            raise FileNotFoundError(2, "not in the .pyz", member)
        return self._zip.get_data(member)

    def _library(self, member: str) -> bytes | None:
        if member in self.members:
            return self.read(member)
        if f"{member}.xz" not in self.members:
            return None
        import lzma  # a Python built without it can do all but make keys

        return lzma.decompress(self.read(f"{member}.xz"))

    # Native libraries: the dynamic loader wants a file, and a memfd is one without being on any disk.

    def _native(self, name: str, data: bytes) -> str:
        folder = os.environ.get(CACHE, "")
        if folder:
            try:
                return cached(folder, name, data)
            except OSError as error:
                if not self._cache_told:
                    self._cache_told = True
                    sys.stderr.write(f"gild: {CACHE}={folder}: {error.strerror}; loading from memory\n")
        fd = os.memfd_create(name, os.MFD_CLOEXEC)
        with open(fd, "wb", closefd=False) as file:
            file.write(data)
        # The descriptor stays open: the dynamic loader takes a second library of the same name for the first.
        return f"/proc/self/fd/{fd}"


def cached(folder: str, name: str, data: bytes) -> str:
    """The path of a file in `folder` with exactly `data`, written now if it is not there or damaged.

    Raises OSError if the folder is a link, somebody else's, open to others, or on a file system that runs nothing.
    """
    import contextlib
    import stat
    from hashlib import sha256

    os.makedirs(folder, mode=0o700, exist_ok=True)
    status = os.lstat(folder)
    if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.geteuid() or status.st_mode & 0o077:
        raise PermissionError(1, "not a folder of this user alone (mode 700)")
    if os.statvfs(folder).f_flag & os.ST_NOEXEC:
        raise PermissionError(1, "mounted noexec")
    path = os.path.join(os.path.realpath(folder), f"{name}-{sha256(data).hexdigest()[:32]}.so")
    # Not there yet, or not a file: it is replaced.
    with contextlib.suppress(OSError), open(os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC), "rb") as file:
        if file.read() == data:
            return path
    # A name of this process's own and then a rename: eight first starts at once do not read half a file.
    new = f"{path}.{os.getpid()}"
    try:
        with open(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o700), "wb") as file:
            file.write(data)
        os.rename(new, path)
    except OSError:
        with contextlib.suppress(OSError):
            os.unlink(new)
        raise
    return path


class Resources:
    """A file or folder in the .pyz, with the methods of importlib.resources' Traversable; also its reader."""

    def __init__(self, bundle: Bundle, member: str) -> None:
        self._bundle, self._path = bundle, member

    def files(self) -> Resources:
        """The package's folder."""
        return self

    @property
    def name(self) -> str:
        """Last part of the path."""
        return self._path.rpartition("/")[2]

    def joinpath(self, *parts: str) -> Resources:
        """What lies below by that relative path; it need not be there."""
        return Resources(self._bundle, "/".join([self._path, *parts]))

    __truediv__ = joinpath

    def is_file(self) -> bool:
        """Whether it is there as a file."""
        return self._path in self._bundle.members

    def is_dir(self) -> bool:
        """Whether anything lies below it."""
        return next(self.iterdir(), None) is not None

    def iterdir(self) -> Iterator[Resources]:
        """What lies directly in this folder, sorted."""
        below = f"{self._path}/"
        names = {name[len(below) :].partition("/")[0] for name in self._bundle.members if name.startswith(below)}
        return (self.joinpath(name) for name in sorted(names))

    def read_bytes(self) -> bytes:
        """The file. Raises FileNotFoundError."""
        return self._bundle.read(self._path)

    def read_text(self, encoding: str | None = None, errors: str = "strict") -> str:
        """The file as text, UTF-8 unless told."""
        return self.read_bytes().decode(encoding or "utf-8", errors)

    def open(self, mode: str = "r", encoding: str | None = None, errors: str = "strict") -> IO[Any]:
        """The file, opened for reading."""
        import io

        file = io.BytesIO(self.read_bytes())
        return file if "b" in mode else io.TextIOWrapper(file, encoding=encoding or "utf-8", errors=errors)


def fill_streams() -> None:
    """Point each standard stream that was closed (`>&-`) at /dev/null: the next file opened would get its number, and
    be written to by whatever prints."""
    for fd, name in enumerate(("stdin", "stdout", "stderr")):
        if getattr(sys, name) is None:
            null = os.open(os.devnull, os.O_RDWR)
            if null != fd:
                os.dup2(null, fd)
                os.close(null)
            setattr(sys, name, open(fd, "w" if fd else "r", encoding="utf-8", closefd=False))  # noqa: SIM115


def start(path: str) -> int:
    """Run gild from the .pyz at `path` (absolute); returns its exit code, 5 if this machine cannot run it."""
    fill_streams()
    bundle = Bundle(path)
    if not bundle.fits():
        kind = EXTENSION_SUFFIXES[0].strip(".").removesuffix(".so")
        sys.stderr.write(
            f"gild: this Python is {kind}; gild.pyz has libraries for CPython 3.11 to 3.14 with glibc,"
            " cpython-3NN-x86_64-linux-gnu and cpython-3NN-aarch64-linux-gnu\n"
        )
        return 5
    # What this machine's site-packages hold must not change what gild does; neither must the .pyz be found twice.
    sys.path[:] = [
        entry
        for entry in sys.path
        if os.path.abspath(entry) != path and os.path.basename(entry) not in ("site-packages", "dist-packages")
    ]
    sys.meta_path.insert(0, bundle)
    # These came by zipimport, by a path that another file may have tomorrow; from now on they come from the open file.
    for name in ("appliance.bootstrap", "appliance"):
        del sys.modules[name]
    from appliance.__main__ import main

    return main()
