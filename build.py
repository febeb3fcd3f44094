#!/usr/bin/env python3
"""Everything this repository makes and checks. Needs Debian 12, root and Python 3.11 to 3.14; installs what it needs.

  app       dist/gild.pyz, with the netboot payload in it
  payload   the payload alone: kernel, installer and boot loaders, in .build/payload
  demo      two blank virtual machines in an isolated network, installed by the one file
  test      everything: app, check, all tests (with arguments: those of pytest, without check)
  check     ruff, mypy --strict, import-linter
  bench     figures beside their peers
  lock      pin the newest versions of what pyproject.toml and the tests need

What is built stays in .build and dist; a second run does only what has changed.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent
BUILD = ROOT / ".build"
PAYLOAD = BUILD / "payload"
VENV = BUILD / "venv"
PYTHON = str(VENV / "bin" / "python")
PYZ = ROOT / "dist" / "gild.pyz"
LOCKS = (ROOT / "appliance" / "requirements.txt", ROOT / "tests" / "requirements.txt")
TOOLS = ("pytest", "pytest-timeout", "hypothesis", "ruff", "mypy", "import-linter", "sushy-tools")

# Debian packages that bring what is needed, by what needs them.
PACKAGES = {
    "app": "binutils-x86-64-linux-gnu binutils-aarch64-linux-gnu",
    "lab": "qemu-system-x86 ovmf iproute2 mmdebstrap udhcpc isc-dhcp-client tftp-hpa curl bind9-dnsutils e2fsprogs"
    " dosfstools fdisk mount util-linux cpio zstd openssl busybox openssh-client gpg"
    " xfsprogs btrfs-progs grub-common qemu-utils mtools ntfs-3g openssh-server dnsmasq-base attr acl libcap2-bin"
    " slurmctld slurmd slurm-client munge openmpi-bin libopenmpi-dev ipmitool openipmi isc-dhcp-relay"
    " nftables iptables f2fs-tools exfatprogs cryptsetup-bin squashfs-tools genisoimage libarchive-tools",
    "bench": "casync partclone zstd curl dnsperf kea-admin wrk dnsmasq-base util-linux mount"
    " libnsl2 libwrap0 libpcre2-8-0 libgssapi-krb5-2",
}
# While packages are installed: no daemon of theirs may start on this machine.
POLICY = Path("/usr/sbin/policy-rc.d")


def main(argv: list[str]) -> int:
    """Exit status of one verb."""
    verbs = {"app": app, "payload": payload, "demo": demo, "test": test, "check": check, "bench": bench, "lock": lock}
    if not argv or argv[0] in ("-h", "--help", "help"):
        print(f"python3 build.py VERB ...\n\n{__doc__.strip()}" if __doc__ else "")
        return 0 if argv else 2
    if argv[0] not in verbs:
        print(f"build.py: there is no verb {argv[0]!r}; there are: {', '.join(verbs)}", file=sys.stderr)
        return 2
    if sys.version_info < (3, 11):  # noqa: UP036  # whoever runs this may have an older one
        print(f"build.py needs Python 3.11 or newer; this is {sys.version.split()[0]}", file=sys.stderr)
        return 2
    sys.path.insert(0, str(ROOT))
    from images.errors import GildError

    begun = time.monotonic()
    try:
        code = verbs[argv[0]](argv[1:])
    except GildError as error:
        print(f"build.py {argv[0]}: {error}", file=sys.stderr)
        return 1
    except subprocess.CalledProcessError as error:
        print(f"build.py {argv[0]}: failed ({error.returncode}): {' '.join(map(str, error.cmd))}", file=sys.stderr)
        return 1
    say(f"{argv[0]}: {'done' if code == 0 else 'FAILED'} after {time.monotonic() - begun:.0f} s")
    return code


def app(argv: list[str]) -> int:
    """dist/gild.pyz, if its inputs have changed."""
    from appliance import bundle, wheels

    payload([])
    packages("app")
    own = bundle.own_files(ROOT)
    inputs = [LOCKS[0].read_bytes(), sys.version.encode(), (BUILD / "payload.stamp").read_bytes()]
    inputs += [part for name in sorted(own) for part in (name.encode(), own[name])]
    if stale("app", digest(inputs), PYZ):
        venv()
        paths = wheels.fetch(PYTHON, LOCKS[0], BUILD / "wheels", say)
        components = bundle.build(ROOT, PYZ, [wheels.read(path, BUILD / "stripped") for path in paths], PAYLOAD, say)
        (BUILD / "components.json").write_text(json.dumps(components, indent=1))
        fresh("app", digest(inputs))
    return 0


def payload(argv: list[str]) -> int:
    """The netboot payload in .build/payload, if its inputs have changed."""
    from appliance import bundle
    from images.errors import GildError
    from netboot.payload import build_payload

    agent = bundle.agent_archive(ROOT)
    own = bundle.own_files(ROOT)
    key = digest([agent, *(own[name] for name in sorted(bundle.closure(own, ["netboot/payload.py"])))])
    if stale("payload", key, PAYLOAD / "COMPONENTS.json"):
        try:
            build_payload(PAYLOAD, BUILD / "debs", agent, report=say)
        except GildError:
            # The usual reason is a package list that is missing or older than the archive.
            if not apt_update():
                raise
            build_payload(PAYLOAD, BUILD / "debs", agent, report=say)
        fresh("payload", key)
    return 0


def demo(argv: list[str]) -> int:
    """The demonstration, tests/lab/demo.py."""
    app([])
    packages("lab")
    tools()
    return call("-m", "tests.lab.demo", *argv)


def test(argv: list[str]) -> int:
    """All tests, the quick ones first; `argv` goes to pytest."""
    app([])
    packages("lab")
    tools()
    failed = 0 if argv else check([])
    for kind, marker in (("quick tests", "not lab"), ("tests with machines", "lab")):
        say(kind)
        code = call("-m", "pytest", "-m", marker, *argv)
        # 5: none was selected, as when one test is named.
        failed = failed or (0 if code == 5 else code)
    return failed


def check(argv: list[str]) -> int:
    """ruff, mypy, import-linter; each runs even if one before it failed."""
    tools()
    commands = [
        ("ruff", "check", "."),
        ("ruff", "format", "--check", "."),
        ("mypy",),
        ("mypy", "--explicit-package-bases", "tests", "build.py"),
        ("lint-imports", "--no-cache"),
    ]
    failed = [" ".join(c) for c in commands if subprocess.run([VENV / "bin" / c[0], *c[1:]], cwd=ROOT).returncode]
    for command in failed:
        say(f"check failed: {command}")
    return 1 if failed else 0


def bench(argv: list[str]) -> int:
    """The benches, tests/bench."""
    app([])
    packages("lab", "bench")
    tools()
    return call("-m", "tests.bench", *argv)


def lock(argv: list[str]) -> int:
    """Both locks anew, from what is newest today."""
    import tomllib

    from appliance import wheels

    venv()
    names = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"]
    fresh_cache = BUILD / "lock"
    shutil.rmtree(fresh_cache, ignore_errors=True)
    say("finding the newest packages for all targets")
    carried = wheels.resolve(PYTHON, names, fresh_cache / "app", leave=wheels.LEFT_OUT)
    needed = wheels.resolve(PYTHON, TOOLS, fresh_cache / "tools", leave=[pin.name for pin in carried])
    LOCKS[0].write_text(wheels.write_lock(carried, "What gild.pyz carries, for every target of appliance/wheels.py."))
    LOCKS[1].write_text(wheels.write_lock(needed, "What the checks and tests need beside what gild.pyz carries."))
    shutil.rmtree(fresh_cache)
    return 0


# Set-up: Debian packages, and a virtual environment with the tools.


def packages(*kinds: str) -> None:
    """Install the Debian packages of PACKAGES that are missing."""
    missing = [name for kind in kinds for name in PACKAGES[kind].split() if not installed(name)]
    if not missing:
        return
    say(f"installing {' '.join(missing)}")
    argv = ["apt-get", "install", "-y", "-qq", "--no-install-recommends", *missing]
    guard = not POLICY.exists()
    if guard:
        POLICY.write_text("#!/bin/sh\nexit 101\n")
        POLICY.chmod(0o755)
    try:
        if apt(argv) != 0:
            apt_update()
            if apt(argv) != 0:
                raise subprocess.CalledProcessError(1, argv)
    finally:
        if guard:
            POLICY.unlink()


def installed(name: str) -> bool:
    """Whether a Debian package is."""
    argv = ["dpkg-query", "-W", "-f", "${db:Status-Status}", name]
    return subprocess.run(argv, capture_output=True).stdout == b"installed"


def apt(argv: list[str]) -> int:
    """Run apt quietly; what it said is shown if it failed."""
    done = subprocess.run(
        argv,
        env={**os.environ, "DEBIAN_FRONTEND": "noninteractive"},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    if done.returncode:
        print(done.stdout.decode("utf-8", "replace")[-2000:], file=sys.stderr)
    return done.returncode


def apt_update() -> bool:
    """Fetch the package lists; False if that failed."""
    say("fetching Debian's package lists")
    return apt(["apt-get", "update", "-qq"]) == 0


def venv() -> None:
    """A virtual environment of the interpreter that runs this, with pip; started from inside of it, it stays."""
    if Path(sys.prefix) == VENV:
        return
    key = digest([sys.executable.encode(), sys.version.encode()])
    if not stale("venv", key, Path(PYTHON)):
        return
    shutil.rmtree(VENV, ignore_errors=True)
    # Debian has ensurepip in a package of its own.
    if subprocess.run([sys.executable, "-c", "import ensurepip"], capture_output=True).returncode:
        PACKAGES["venv"] = "python3-venv"
        packages("venv")
    subprocess.run([sys.executable, "-m", "venv", VENV], check=True)
    fresh("venv", key)


def tools() -> None:
    """What the checks and tests need, in the versions of the locks."""
    venv()
    key = digest([(BUILD / "venv.stamp").read_bytes(), *(path.read_bytes() for path in LOCKS)])
    if stale("tools", key, VENV / "bin" / "pytest"):
        say("installing the tools of the checks and tests")
        options = ["--quiet", "--no-deps", "--require-hashes", "--only-binary=:all:", "--disable-pip-version-check"]
        subprocess.run([PYTHON, "-m", "pip", "install", *options, *(f"-r{path}" for path in LOCKS)], check=True)
        fresh("tools", key)


def call(*argv: str) -> int:
    """Run Python of the virtual environment in the checkout; its exit status."""
    return subprocess.run([PYTHON, *argv], cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)}).returncode


# What is up to date: a stamp holds the digest of the inputs that the output was made from.


def digest(parts: list[bytes]) -> str:
    """One sha256 over parts and their lengths."""
    total = hashlib.sha256()
    for part in parts:
        total.update(len(part).to_bytes(8, "big") + part)
    return total.hexdigest()


def stale(name: str, key: str, output: Path) -> bool:
    """Whether `output` is missing or was made from other inputs. If so its stamp goes, lest a failed build counts."""
    stamp = BUILD / f"{name}.stamp"
    if output.exists() and stamp.exists() and stamp.read_text() == key:
        return False
    BUILD.mkdir(exist_ok=True)
    stamp.unlink(missing_ok=True)
    return True


def fresh(name: str, key: str) -> None:
    """Remember what the output was made from."""
    (BUILD / f"{name}.stamp").write_text(key)


def say(line: str) -> None:
    """One line of progress."""
    print(f"build.py: {line}", flush=True)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
