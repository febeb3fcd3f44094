"""images.edits.call_home: the script runs for real, in a chroot, against a small HTTP server."""

from __future__ import annotations

import hashlib
import os
import re
import select
import shutil
import subprocess
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from images.edits import call_home
from images.errors import GildError
from tests.images import systems

SECRET = "5e" * 32
ELF = b"\x7fELF\x02\x01" + bytes(26) + (64).to_bytes(8, "little") + bytes(14) + (56).to_bytes(2, "little") + (1).to_bytes(2, "little") + bytes(6)  # fmt: skip  # noqa: E501
STATIC, DYNAMIC = ELF + (1).to_bytes(4, "little") + bytes(52), ELF + (3).to_bytes(4, "little") + bytes(52)


@pytest.fixture
def program(tmp_path: Path) -> str:
    """A file that looks like a static program."""
    return str(systems.put(tmp_path, "busybox", STATIC, 0o755))


def options(program: str, url: str = "http://10.7.0.1/up/7") -> dict[str, str]:
    return {"url": url, "secret": SECRET, "busybox": program}


def test_systemd_starts_it_and_the_secret_is_roots_alone(tmp_path: Path, program: str) -> None:
    root = systems.debian(tmp_path / "root")
    assert call_home.apply(str(root), options(program)) == ["call home to http://10.7.0.1/up/7 (systemd)"]
    modes = {p.name: p.stat().st_mode & 0o777 for p in (root / call_home.DIRECTORY).rglob("*")}
    assert modes == {"bin": 0o755, "busybox": 0o755, "home": 0o700, "secret": 0o600}
    unit = (root / "etc/systemd/system/gild-home.service").read_text()
    assert "Type=simple" in unit and "After=network.target" in unit and SECRET not in unit
    wants = root / "etc/systemd/system/multi-user.target.wants/gild-home.service"
    assert wants.readlink() == Path("/etc/systemd/system/gild-home.service")
    assert SECRET not in (root / call_home.DIRECTORY / "home").read_text()
    assert call_home.apply(str(root), options(program)) == []


def test_openrc_and_rc_local_start_it_too(tmp_path: Path, program: str) -> None:
    alpine = tmp_path / "alpine"
    systems.link(alpine, "sbin/init", "/bin/busybox")
    systems.put(alpine, "etc/inittab", "::sysinit:/sbin/openrc sysinit\n")
    systems.put(alpine, "etc/init.d/local", "")
    call_home.apply(str(alpine), options(program))
    assert os.access(alpine / "etc/local.d/gild-home.start", os.X_OK)
    assert (alpine / "etc/runlevels/default/local").is_symlink()

    void = tmp_path / "void"
    systems.link(void, "sbin/init", "/usr/bin/runit-init")
    systems.put(void, "etc/rc.local", "#!/bin/sh\necho hello\nexit 0\n")
    call_home.apply(str(void), options(program))
    text = (void / "etc/rc.local").read_text()
    assert text.index("gild/home") < text.index("exit 0") and os.access(void / "etc/rc.local", os.X_OK)


def test_without_a_url_or_with_a_program_that_would_not_run_nothing_is_written(tmp_path: Path) -> None:
    root = systems.debian(tmp_path / "root")
    before = systems.picture(root)
    assert call_home.apply(str(root), {"url": "", "secret": ""}) == []
    for content in (DYNAMIC, b"#!/bin/sh\n", b"", STATIC[:40] + STATIC[:2]):
        path = systems.put(tmp_path, "program", content)
        with pytest.raises(GildError, match="edit call_home"):
            call_home.apply(str(root), options(str(path)))
    (root / "usr/sbin/init").unlink()
    (root / "usr/sbin/init").symlink_to("dinit")
    with pytest.raises(GildError, match="what starts this system is not known"):
        call_home.apply(str(root), options(str(systems.put(tmp_path, "program", STATIC))))
    assert not (root / call_home.DIRECTORY).exists() and len(systems.picture(root)) == len(before)


class Head(BaseHTTPRequestHandler):
    """Refuses twice, as a head that is just starting, then takes the call."""

    calls: list[tuple[str, str, bytes]]
    refusals = 0

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        # asyncio, on which the head's server stands, drops a connection whose other half is closed, reply and all.
        readable, _, _ = select.select([self.connection], [], [], 0.05)
        if readable:
            self.close_connection = True
            return
        self.calls.append((self.path, self.headers["Gild-Proof"], body))
        self.send_response(503 if len(self.calls) <= self.refusals else 200)
        self.end_headers()
        self.wfile.write(b"welcome\n")

    def log_message(self, *_: object) -> None:
        """No output."""


@pytest.fixture
def head() -> Iterator[tuple[str, type[Head]]]:
    """Its URL and its calls."""
    handler = type("OneHead", (Head,), {"calls": [], "refusals": 1})
    server = HTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}/up/7", handler
    server.shutdown()
    thread.join()
    server.server_close()


def busybox_with_libraries(root: Path) -> str:
    """A busybox that runs in a chroot at `root`: where this machine's is dynamic, its libraries come along."""
    found = shutil.which("busybox")
    if found is None:
        pytest.skip("no busybox here")
    libraries = subprocess.run(["ldd", found], capture_output=True, text=True, check=False).stdout
    for path in re.findall(r"(/\S+) \(0x", libraries):
        systems.put(root, path.lstrip("/"), Path(path).read_bytes(), 0o755)
    return found


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason="needs root for a chroot")
def test_the_script_calls_until_it_is_heard_and_leaves_nothing_behind(
    tmp_path: Path, head: tuple[str, type[Head]], monkeypatch: pytest.MonkeyPatch
) -> None:
    url, handler = head
    root = tmp_path / "root"
    root.mkdir()
    found = busybox_with_libraries(root)
    systems.link(root, "sbin/init", "/usr/lib/systemd/systemd")
    systems.put(root, "usr/lib/systemd/systemd", "")
    systems.put(root, "etc/systemd/system/other.service", "[Unit]\n")
    (root / "proc").mkdir()
    systems.put(root, "dev/null", "")
    program = Path(found).read_bytes()
    monkeypatch.setattr(call_home, "_busybox", lambda path: program)
    call_home.apply(str(root), options(found, url))
    # A mount namespace of its own takes the mounted proc away with it.
    command = f"mount -t proc proc {root}/proc && exec chroot {root} /{call_home.DIRECTORY}/home"
    done = subprocess.run(["unshare", "--mount", "sh", "-c", command], capture_output=True, timeout=20, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout == b"" and done.stderr == b""

    assert len(handler.calls) == 2
    path, proof, body = handler.calls[-1]
    assert path == "/up/7"
    assert proof == hashlib.sha256(SECRET.encode() + body).hexdigest()
    lines = body.decode().split("\n")
    said = dict(line.partition(" ")[::2] for line in lines)
    assert list(said) == ["hostname", "address", "kernel", "boot_id", "root"] and len(lines) == 5
    assert said["hostname"] == os.uname().nodename and said["kernel"] == os.uname().release
    assert re.fullmatch(r"([0-9.]+( [0-9.]+)*)?", said["address"])
    assert said["boot_id"] == Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    assert SECRET.encode() not in body

    assert not (root / call_home.DIRECTORY).exists()
    left = {str(p.relative_to(root)) for p in (root / "etc").rglob("*") if not p.is_dir() or p.is_symlink()}
    assert left == {"etc/systemd/system/other.service"}


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason="needs root for a chroot")
def test_rc_local_is_as_it_was_after_the_call(
    tmp_path: Path, head: tuple[str, type[Head]], monkeypatch: pytest.MonkeyPatch
) -> None:
    url, handler = head
    handler.refusals = 0
    root = tmp_path / "root"
    root.mkdir()
    found = busybox_with_libraries(root)
    systems.link(root, "sbin/init", "/usr/bin/runit-init")
    systems.put(root, "etc/rc.local", "#!/bin/sh\necho hello\nexit 0\n", 0o755)
    (root / "proc").mkdir()
    systems.put(root, "dev/null", "")
    program = Path(found).read_bytes()
    monkeypatch.setattr(call_home, "_busybox", lambda path: program)
    call_home.apply(str(root), options(found, url))
    command = f"mount -t proc proc {root}/proc && exec chroot {root} /{call_home.DIRECTORY}/home"
    subprocess.run(["unshare", "--mount", "sh", "-c", command], capture_output=True, timeout=20, check=True)
    assert (root / "etc/rc.local").read_text() == "#!/bin/sh\necho hello\nexit 0\n"
    assert len(handler.calls) == 1
