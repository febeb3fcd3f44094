"""What a build leaves: what goes and what is only named."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from images.checks import leftovers
from tests.images.checks.looked import look
from tests.images.checks.test_survey import CORE
from tests.images.systems import link, put


def test_dumps_policies_and_marks_go(tmp_path: Path) -> None:
    put(tmp_path, "var/lib/core.7", CORE)
    put(tmp_path, "usr/sbin/policy-rc.d", "#!/bin/sh\n\n# For most users\n\nexit 101\n", 0o755)
    put(tmp_path, ".dockerenv")
    found = look(leftovers.mended, tmp_path)
    assert [check.found for check in found.values()] == [
        ("var/lib/core.7",),
        ("usr/sbin/policy-rc.d",),
        (".dockerenv",),
    ]
    assert not any((tmp_path / path).exists() for check in found.values() for path in check.found)
    assert look(leftovers.mended, tmp_path) == {}


def test_what_somebody_made_stays(tmp_path: Path) -> None:
    policy = put(tmp_path, "usr/sbin/policy-rc.d", '#!/bin/sh\n[ "$1" = nginx ] && exit 101\nexit 0\n', 0o755)
    (tmp_path / ".dockerenv").mkdir()
    link(tmp_path, "core", "usr/sbin/policy-rc.d")
    assert look(leftovers.mended, tmp_path) == {} and policy.exists()


@pytest.mark.parametrize(
    ("path", "line", "told"),
    [
        ("etc/apt/apt.conf.d/01proxy", 'Acquire::http::Proxy "http://10.0.0.1:3142";', True),
        ("etc/apt/apt.conf", 'Acquire { http { Proxy "http://x"; } }', True),
        ("etc/apt/apt.conf.d/20auto", '// Acquire::http::Proxy "http://x";', False),
        ("etc/dnf/dnf.conf", "proxy = http://x", True),
        ("etc/environment", "export https_proxy=http://x", True),
        ("etc/environment", "# http_proxy=x", False),
        ("etc/environment", "PATH=/bin", False),
    ],
)
def test_proxies(tmp_path: Path, path: str, line: str, told: bool) -> None:
    put(tmp_path, path, f"# first\n{line}\n")
    found = look(leftovers.left, tmp_path)
    assert (found["proxies"].found == (path,)) if told else found == {}


def test_caches_compilers_jobs_and_names(tmp_path: Path) -> None:
    big = put(tmp_path, "root/.cache/pip/wheel")
    with big.open("wb") as file:
        os.posix_fallocate(file.fileno(), 0, 20 << 20)
    with put(tmp_path, "var/tmp/sparse").open("wb") as file:
        file.truncate(1 << 40)
    put(tmp_path, "var/spool/cron/crontabs/root", "@daily x\n")
    put(tmp_path, "home/ada/.bash_history", "ls\n")
    put(
        tmp_path,
        "etc/hosts",
        "127.0.0.1 localhost\n127.0.1.1 golden\n10.0.0.9 golden.example golden # me\n10.0.0.8 other\n",
    )
    put(tmp_path, "usr/bin/gcc")
    found = look(leftovers.left, tmp_path, hostname="golden.example")
    assert {name: check.found for name, check in found.items()} == {
        "caches and logs": ("root/.cache: 20 MiB",),
        "compilers": ("usr/bin/gcc",),
        "timed jobs": ("var/spool/cron/crontabs/root",),
        "typed commands": ("home/ada/.bash_history",),
        "names of the golden client": ("10.0.0.9 golden.example golden",),
    }
    assert "names of the golden client" not in look(leftovers.left, tmp_path)


def test_a_cache_that_is_a_link_out_is_not_counted(tmp_path: Path) -> None:
    root = tmp_path / "root"
    with put(tmp_path, "outside/big").open("wb") as file:
        os.posix_fallocate(file.fileno(), 0, 20 << 20)
    link(root, "var/tmp", "../../outside")
    link(root, "var/log", "/../outside")
    assert look(leftovers.left, root) == {}
