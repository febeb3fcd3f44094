"""Capturing running systems: all a file has comes through, what is left out stays out, failures keep nothing."""

from __future__ import annotations

import getpass
import io
import os
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from images.errors import CommandFailed, SourceInvalid, ToolMissing
from images.namespace import in_private_namespace, mounted
from images.options import Options
from images.run import pipe
from images.sources import golden
from images.sources.acl import encode_acl
from images.sources.client import choose, new_mark, probe, read_facts, reading
from images.sources.golden import capture, capture_here, capture_ssh, receive, ssh_command
from images.sources.leftout import Wishes
from images.store import Store
from images.working import restore
from tests.images.test_treesync import picture
from tests.images.tinytree import tiny_tree

pytestmark = [pytest.mark.root, pytest.mark.skipif(os.geteuid() != 0, reason="needs root")]

CAPABILITY = bytes.fromhex("0100000200200000000000000000000000000000")
ACL = encode_acl("user::rw-,user:4242:r-x,group::r--,mask::rwx,other::---", {})


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "store")


@pytest.fixture
def system(tmp_path: Path) -> Path:
    """A small system with everything a filesystem can hold."""
    root = tiny_tree(tmp_path / "system")
    for name in ("proc", "sys", "run", "var/tmp", "var/lib/docker/overlay2", "home/ann/.cache", "srv/st[r]*nge"):
        (root / name).mkdir(parents=True)
    for name, mode in (("tmp", 0o1777), ("var/tmp", 0o1777), ("proc", 0o555), ("sys", 0o555)):
        os.chmod(root / name, mode)
    (root / "var/tmp/left").write_text("x")
    (root / "var/lib/docker/overlay2/layer").write_text("x")
    (root / "home/ann/.cache/.hidden").write_text("x")
    (root / "srv/st[r]*nge/kept").write_text("x")
    os.chown(root / "var/lib/docker", 0, 7)
    os.chmod(root / "var/lib/docker", 0o710)
    rich = root / "usr/lib/rich"
    rich.write_bytes(b"#!")
    os.setxattr(rich, "security.capability", CAPABILITY)
    os.setxattr(rich, "system.posix_acl_access", ACL)
    os.setxattr(rich, "trusted.note", b"\0\xff\n=")
    os.setxattr(root / "etc", "system.posix_acl_default", ACL)
    with (root / "usr/lib/sparse").open("wb") as file:
        file.truncate(50 << 20)
        file.seek(20 << 20)
        file.write(b"island")
    (root / "usr/lib" / os.fsdecode(b"\xff\xfe name\nof lines \\040")).write_text("odd")
    (root / "usr/lib" / ("long" * 50)).write_text("long")
    os.chown(root / "usr/lib/text", 4_000_000_000, 3_000_000_000)
    os.mkfifo(root / "usr/lib/fifo")
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(str(root / "usr/lib/sock"))
    return root


def restored(store: Store, ref: str, tmp_path: Path) -> tuple[dict[str, object], set[frozenset[str]]]:
    """Everything in a version, read from its restored filesystem."""
    manifest, _ = store.load(ref)
    restore(store, manifest, 0, tmp_path / "disk.img")
    (tmp_path / "at").mkdir()

    def look() -> tuple[dict[str, object], set[frozenset[str]]]:
        with mounted(tmp_path / "disk.img", tmp_path / "at", read_only=True) as at:
            assert (at / "usr/lib/sparse").stat().st_blocks * 512 < 2 << 20
            return picture(at)

    return in_private_namespace(look)


# What publishing itself changes in any tree.
PREPARED = (
    "etc/fstab", "etc/hostname", "etc/machine-id", "etc/resolv.conf", "etc/ssh", "boot", "var/lib/dbus", "lost+found",
    "var/lib/systemd",
)  # fmt: skip


def comparable(found: dict[str, object]) -> dict[str, object]:
    """Without what publishing prepares, and without the times of directories, which that changes."""
    kept: dict[str, object] = {}
    for name, entry in found.items():
        if not name.startswith(PREPARED) and name not in ("etc", "usr/lib/sock"):
            assert isinstance(entry, tuple)
            kept[name] = entry[:3] + entry[4:]
    return kept


def test_everything_a_file_has_comes_through(store: Store, system: Path, tmp_path: Path) -> None:
    told: list[str] = []
    manifest = capture_here(
        store, "gold", Wishes(), Options(message="first", progress=lambda *a: told.append(a[0])), root=str(system)
    )
    assert manifest.source["kind"] == "live" and manifest.source["method"] == "head" and manifest.message == "first"
    assert manifest.source["host"] == socket.gethostname() and manifest.source["filesystems"] == ["/"]
    assert manifest.source["excluded"]["/var/tmp/*"] == "temporary files"
    assert told[0] == "probe" and "store" in told
    found, links = restored(store, "gold", tmp_path)
    wanted, wanted_links = picture(system)
    for gone in ("var/tmp/left", "var/lib/docker/overlay2", "home/ann/.cache/.hidden", "dev/null"):
        assert wanted.pop(gone) and gone not in found
    wanted = {name: entry for name, entry in wanted.items() if not name.startswith("var/lib/docker/overlay2")}
    assert comparable(found) == comparable(wanted)
    assert frozenset({"usr/bin/env", "usr/bin/env2"}) in links and links == wanted_links


def test_wishes_and_the_store_itself_are_left_out(system: Path) -> None:
    store = Store(system / "data/gild")
    (system / "srv/st[r]*nge/own").mkdir()
    (system / "srv/strange").mkdir()
    (system / "srv/strange/stays").write_text("x")
    own = str(system / "srv/st[r]*nge/own")
    manifest = capture_here(store, "gold", Wishes(exclude=("/usr/lib/s*",), own=(own,)), Options(), root=str(system))
    names = listed(store, "/usr/lib")
    assert "/text/" in names and "/sparse/" not in names
    assert manifest.source["excluded"]["/data/gild/*"] and manifest.source["excluded"]["/srv/st\\[r]\\*nge/own/*"]
    names = listed(store, "/srv/strange")
    assert "/stays/" in names


def test_a_second_capture_is_a_small_step(store: Store, system: Path) -> None:
    first = capture_here(store, "gold", Wishes(), Options(), root=str(system))
    (system / "etc/motd").write_text("new")
    second = capture_here(store, "gold", Wishes(), Options(), root=str(system))
    assert (second.version, second.parent) == (2, 1) and first.partitions[0].uuid == second.partitions[0].uuid


def test_mount_points_nobody_looks_at_are_made(store: Store, system: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    client = read_facts(run_shell(probe(str(system))))
    selection = choose(client, Wishes())
    (system / "evil").symlink_to("/tmp")
    points = ("/srv/nfs", "/evil/out", "/nowhere/at/all", "/etc/hostname")
    monkeypatch.setattr(golden, "choose", lambda *a: type(selection)(("/",), selection.left, points))
    capture_here(store, "gold", Wishes(), Options(), root=str(system))
    names = listed(store, "/srv")
    assert "/040755/0/0/nfs/" in names and not Path("/tmp/out").exists()


def listed(store: Store, directory: str) -> str:
    """A directory of the working image, as debugfs shows it."""
    image = store.work("gold") / "current/root.img"
    done = subprocess.run(["debugfs", "-R", f"ls -p {directory}", image], capture_output=True, check=True)
    return done.stdout.decode(errors="replace")


def run_shell(script: str) -> bytes:
    return subprocess.run(["sh", "-s"], input=script.encode(), capture_output=True, check=True).stdout


def stream(system: Path, mark: str) -> bytes:
    """What a client sends."""
    client = read_facts(run_shell(probe(str(system))))
    return run_shell(reading(choose(client, Wishes()), str(system), mark))


def receive_bytes(store: Store, system: Path, data: bytes, mark: str) -> None:
    client = read_facts(run_shell(probe(str(system))))
    receive(store, "gold", io.BytesIO(data), client, choose(client, Wishes()), mark, Options(), method="test")


def last_member(archive: bytes) -> int:
    """Where the last member begins: with its extended header, of type x (POSIX pax)."""
    return max(at for at in range(0, len(archive), 512) if archive[at + 156 : at + 262] == b"x" + bytes(100) + b"ustar")


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        ("cut in a file", "not a whole archive"),
        ("cut between two files", "broke off before its end"),
        ("without its mark", "broke off before its end"),
        ("another mark", "sent no archive"),
        ("nothing", "sent no archive"),
        ("tar failed", "could not read everything: ./usr/bad: Cannot open: Input/output error"),
        ("tar was ended", "it was ended"),
        ("noise without end", "sent no archive but: .*This account"),
    ],
)
def test_half_a_stream_is_nothing(store: Store, system: Path, damage: str, words: str) -> None:
    mark = new_mark()
    whole = stream(system, mark)
    line = f"\n{mark}\n".encode()
    begin, archive, said = whole.split(line)
    assert begin == b"" and said == b"exit 0\n"
    data = {
        "cut in a file": whole[:400_000],
        "cut between two files": line + archive[: last_member(archive)],
        "without its mark": line + archive,
        "another mark": whole.replace(mark.encode(), new_mark().encode()),
        "nothing": b"",
        "tar failed": line + archive + line + b"tar: ./usr/bad: Cannot open: Input/output error\n"
        b"tar: Exiting with failure status due to previous errors\nexit 2\n",
        "tar was ended": line + archive + line + b"exit 137\n",
        "noise without end": b"This account is closed.\n" * 10_000,
    }[damage]
    with pytest.raises(SourceInvalid, match=words):
        receive_bytes(store, system, data, mark)
    assert store.images() == [] and not (store.work("gold") / "tree").exists()


def test_noise_of_a_login_shell_and_files_that_change_do_no_harm(store: Store, system: Path) -> None:
    mark = new_mark()
    whole = b"Welcome!\r\nno newline at the end" + stream(system, mark)
    data = whole.replace(b"exit 0\n", b"tar: ./var/log/x: file changed as we read it\nexit 1\n")
    receive_bytes(store, system, data, mark)
    manifest, _ = store.load("gold:1")
    assert manifest.source["warnings"] == ["./var/log/x: file changed as we read it"]


def test_a_file_that_cannot_be_read_ends_the_capture(store: Store) -> None:
    """For real: root may read all, so somebody else says that he is root."""
    shell = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "sh", "-c",
             'sed "s/^  id -u/  echo 0/" | sh -s']  # fmt: skip
    with tempfile.TemporaryDirectory() as folder:  # pytest's own may be entered by nobody else
        os.chmod(folder, 0o755)
        system = tiny_tree(Path(folder) / "system")
        os.chmod(system / "root", 0o700)
        with pytest.raises(
            SourceInvalid, match=r"could not read everything: .*\./root: Cannot open: Permission denied"
        ):
            capture(store, "gold", shell, Wishes(), Options(), method="test", root=str(system))
    assert store.images() == []


def test_a_shell_that_fails_says_why(store: Store) -> None:
    with pytest.raises(CommandFailed, match="no such luck"):
        capture(store, "gold", ["sh", "-c", "echo no such luck >&2; exit 4"], Wishes(), Options(), method="test")


# --- ssh


@pytest.mark.parametrize(
    ("address", "words"),
    [
        ("gold", "-- gold sh"),
        ("root@gold", "-l root -- gold sh"),
        ("ann@10.1.0.5:2222", "-p 2222 -l ann -- 10.1.0.5 sh"),
        ("[fe80::1]:22", "-p 22 -- fe80::1 sh"),
    ],
)
def test_addresses(address: str, words: str) -> None:
    assert words in " ".join(ssh_command(address))
    assert "-F /x" in " ".join(ssh_command(address, Path("/x")))


@pytest.mark.parametrize("address", ["", "-oProxyCommand=x", "a b", "u@-x", "host:0", "host:70000", "u@h@x", "h;id"])
def test_what_is_no_address_is_not_given_to_ssh(address: str) -> None:
    with pytest.raises(SourceInvalid, match="no address"):
        ssh_command(address)


def test_without_ssh_the_package_is_named(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda name, path=None: None)
    with pytest.raises(ToolMissing) as caught:
        capture_ssh(store, "gold", "host", Wishes(), Options())
    assert caught.value.hint == "apt install openssh-client"


@dataclass
class Sshd:
    """A real sshd for one client system, and ssh's settings to reach it."""

    config: Path
    known_hosts: Path


@pytest.fixture
def sshd(tmp_path: Path, system: Path) -> Iterator[Sshd]:
    """An sshd without a network: each connection is a process of its own (ProxyCommand sshd -i)."""
    program = shutil.which("sshd", path="/usr/sbin:/usr/bin")
    if program is None:
        pytest.skip("openssh-server is not installed")
    Path("/run/sshd").mkdir(exist_ok=True)
    for name in ("host", "user"):
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", tmp_path / name], check=True)
    shutil.copy(tmp_path / "user.pub", tmp_path / "authorized")
    (tmp_path / "sshd_config").write_text(
        f"HostKey {tmp_path}/host\nAuthorizedKeysFile {tmp_path}/authorized\nStrictModes no\nUsePAM no\n"
        "PermitRootLogin yes\nPasswordAuthentication no\nKbdInteractiveAuthentication no\n"
    )
    known = tmp_path / "known"
    known.write_text("gold " + (tmp_path / "host.pub").read_text())
    (tmp_path / "ssh_config").write_text(
        f"Host gold\n ProxyCommand {program} -i -f {tmp_path}/sshd_config\n IdentityFile {tmp_path}/user\n"
        f" IdentitiesOnly yes\n UserKnownHostsFile {known}\n GlobalKnownHostsFile /dev/null\n"
    )
    yield Sshd(tmp_path / "ssh_config", known)


def test_a_client_behind_a_real_sshd(store: Store, sshd: Sshd, system: Path, tmp_path: Path) -> None:
    shell = ssh_command(f"{getpass.getuser()}@gold", sshd.config)
    manifest = capture(store, "gold", shell, Wishes(), Options(), method="ssh", root=str(system))
    assert manifest.source["method"] == "ssh" and manifest.source["host"] == socket.gethostname()
    found, links = restored(store, "gold", tmp_path)
    assert isinstance(found["usr/lib/rich"], tuple) and isinstance(found["usr/lib/text"], tuple)
    assert found["usr/lib/rich"][5] == {
        "security.capability": CAPABILITY, "system.posix_acl_access": ACL, "trusted.note": b"\0\xff\n=",
    }  # fmt: skip
    assert found["usr/lib/text"][1:3] == (4_000_000_000, 3_000_000_000) and links


def test_what_keeps_ssh_out_is_named_with_the_way_in(store: Store, sshd: Sshd, tmp_path: Path) -> None:
    (tmp_path / "authorized").write_text("")
    with pytest.raises(CommandFailed, match="Permission denied") as caught:
        capture_ssh(store, "gold", "root@gold", Wishes(), Options(), sshd.config)
    assert "ssh-copy-id" in caught.value.hint
    sshd.known_hosts.write_text("")
    with pytest.raises(CommandFailed, match="Host key verification failed") as caught:
        capture_ssh(store, "gold", "root@gold", Wishes(), Options(), sshd.config)
    assert "by hand" in caught.value.hint and store.images() == []


def test_a_user_without_sudo_is_told(store: Store) -> None:
    """The remote command itself, run by nobody."""
    words = ssh_command("gold")[-1]
    nobody = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "env", "PATH=/usr/bin:/bin"]
    with pytest.raises(CommandFailed, match=r"not root, and there is no sudo|password is required"):
        capture(store, "gold", [*nobody, "sh", "-c", words], Wishes(), Options(), method="ssh")


def test_a_connection_that_is_cut_keeps_nothing(store: Store, system: Path) -> None:
    """The command dies in the middle of the archive, as ssh does when its line is cut."""
    mark = new_mark()
    client = read_facts(run_shell(probe(str(system))))
    script = reading(choose(client, Wishes()), str(system), mark)
    cut = f"({script}) | head -c 300000; echo 'client_loop: send disconnect: Broken pipe' >&2; exit 255"
    with (
        pytest.raises(CommandFailed, match="send disconnect"),
        pipe(["sh", "-s"], input=cut.encode(), act="reading gold") as cut_off,
    ):
        receive(store, "gold", cut_off, client, choose(client, Wishes()), mark, Options(), method="ssh")
    assert store.images() == [] and not (store.work("gold") / "tree").exists()
