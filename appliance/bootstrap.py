"""Makes the packages inside gild.pyz importable, without writing anything to disk, and runs the command line."""

from __future__ import annotations

import importlib.abc
import importlib.machinery
import importlib.util
import json
import marshal
import os
import sys
import zipfile
from collections.abc import Sequence
from importlib.machinery import ModuleSpec
from types import CodeType, ModuleType

ME = os.path.abspath(sys.argv[0])
TARGET = f"cp3{sys.version_info[1]}-{os.uname().machine}"
TAG = sys.implementation.cache_tag


class Bundled(importlib.abc.MetaPathFinder, importlib.abc.InspectLoader):
    """Imports the bundled packages out of the archive; nothing is written to disk. Sources come from the zip (their
    compiled form where the archive has it for this Python), natives are loaded from memory files (memfd_create(2))."""

    def __init__(self, archive: zipfile.ZipFile, table: dict[str, str]) -> None:
        self.archive = archive
        self.table = table  # path -> member that holds its bytes
        self.names = frozenset(archive.namelist())

    def find_spec(
        self, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """PEP 451: the spec of a module that the archive holds, or None."""
        base = fullname.replace(".", "/")
        for file, package in ((base + "/__init__.py", True), (base + ".py", False)):
            if file in self.table:
                spec = importlib.machinery.ModuleSpec(fullname, self, origin=ME + "/" + file, is_package=package)
                spec.loader_state = file
                spec.has_location = True
                if package:
                    spec.submodule_search_locations = [ME + "/" + base]
                return spec
        for suffix in importlib.machinery.EXTENSION_SUFFIXES:
            if base + suffix in self.table:
                # The descriptor must stay open: /proc/self/fd/N is the module's path until it is loaded.
                fd = os.memfd_create(fullname, os.MFD_CLOEXEC)
                data = memoryview(self.archive.read(self.table[base + suffix]))
                while data:
                    data = data[os.write(fd, data) :]
                where = f"/proc/self/fd/{fd}"
                loader = Native(fullname, where, fd)
                return importlib.util.spec_from_file_location(fullname, where, loader=loader)
        return None

    def exec_module(self, module: ModuleType) -> None:
        """Run the module's code in its namespace."""
        assert module.__spec__ is not None
        module.__file__ = module.__spec__.origin
        exec(self._code(module.__spec__.loader_state), module.__dict__)

    def _code(self, file: str) -> CodeType:
        member = self.table[file]
        compiled = member + "." + TAG
        if compiled in self.names:
            code: CodeType = marshal.loads(self.archive.read(compiled))
            return code
        return compile(self.archive.read(member), ME + "/" + file, "exec", dont_inherit=True)

    def _file(self, fullname: str) -> str:
        base = fullname.replace(".", "/")
        for file in (base + "/__init__.py", base + ".py"):
            if file in self.table:
                return file
        raise ImportError(fullname)

    def get_code(self, fullname: str) -> CodeType:
        """For runpy and tracebacks."""
        return self._code(self._file(fullname))

    def get_source(self, fullname: str) -> str:
        """For tracebacks."""
        return self.archive.read(self.table[self._file(fullname)]).decode()

    def is_package(self, fullname: str) -> bool:
        """Whether the name is that of a package."""
        return self._file(fullname).endswith("/__init__.py")

    def get_data(self, path: str) -> bytes:
        """For pkgutil.get_data: bytes of a file by its path inside the archive. Raises OSError."""
        relative = os.path.relpath(path, ME)
        try:
            return self.archive.read(self.table[relative])
        except KeyError:
            raise OSError(2, "no such file in the archive", path) from None


class Native(importlib.machinery.ExtensionFileLoader):
    """An extension module in a memory file, which is closed once the module is in."""

    def __init__(self, name: str, path: str, fd: int) -> None:
        super().__init__(name, path)
        self.fd = fd

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        """Load the library; the kernel keeps its memory when the descriptor is gone."""
        module = super().create_module(spec)
        os.close(self.fd)
        return module


def members(archive: zipfile.ZipFile) -> dict[str, str]:
    """Path -> member, for this interpreter: the bundled packages' table and our own packages."""
    try:
        table: dict[str, str] = json.loads(archive.read("targets/" + TARGET + ".json"))
    except KeyError:
        have = sorted(name[8:-5] for name in archive.namelist() if name.startswith("targets/"))
        sys.exit(f"gild has nothing for {TARGET} in this file; it has: {', '.join(have)}")
    ours = ("appliance/", "netboot/", "images/")
    table.update((name, name) for name in archive.namelist() if name.startswith(ours))
    return table


def unpack(archive: zipfile.ZipFile, table: dict[str, str], cache: str) -> str | None:
    """Unpack the bundled packages below `cache`, for sites that allow only programs on disk (GILD_CACHE=DIR).
    Every file is compared with the archive at every start. Returns why it cannot be used, or None."""
    try:
        os.makedirs(cache, mode=0o700, exist_ok=True)
        status = os.lstat(cache)
        if status.st_uid != os.geteuid() or status.st_mode & 0o022:
            return "it is not yours alone"
        if os.statvfs(cache).f_flag & os.ST_NOEXEC:
            return "it is mounted noexec"
        for name, member in table.items():
            file, data = os.path.join(cache, TARGET, name), archive.read(member)
            try:
                with open(file, "rb") as had:
                    if had.read() == data:
                        continue
            except OSError:
                os.makedirs(os.path.dirname(file), exist_ok=True)
            part = f"{file}.{os.getpid()}"
            with open(part, "wb") as made:
                made.write(data)
            os.replace(part, file)
    except OSError as error:
        return error.strerror
    sys.dont_write_bytecode = True
    sys.path.insert(0, os.path.join(cache, TARGET))
    return None


def begin() -> None:
    """Make the bundled packages importable, and run."""
    archive = zipfile.ZipFile(ME)
    table = members(archive)
    cache = os.environ.get("GILD_CACHE", "")
    packages = {name: member for name, member in table.items() if member != name}
    refused = unpack(archive, packages, cache) if cache else ""
    if cache and refused is None:
        table = {name: member for name, member in table.items() if member == name}
    elif refused:
        sys.stderr.write(f"gild: cannot use GILD_CACHE={cache}: {refused}; running from memory\n")
    sys.meta_path.insert(0, Bundled(archive, table))
    from appliance.__main__ import main

    sys.exit(main())
