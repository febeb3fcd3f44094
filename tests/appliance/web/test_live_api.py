"""The real process, the real command and the real pasted line, run by a shell at the other end of a cable."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from images.store import Store
from images.working import restore
from tests.appliance.process import CHECKOUT, PATIENCE, Served, clean_environment, rack_of_one, wait_for
from tests.images.test_client import SAID
from tests.images.tinytree import tiny_tree

pytestmark = pytest.mark.root


@pytest.fixture(scope="module")
def head() -> Iterator[Served]:
    with rack_of_one() as served:
        served.start()
        yield served


@pytest.fixture
def system(tmp_path: Path) -> Path:
    return tiny_tree(tmp_path / "system")


@dataclass
class Waiting:
    """`image capture --from paste`, running."""

    head: Served
    folder: Path
    process: subprocess.Popen[bytes] | None = None
    line: str = ""
    python: str = ""
    clients: list[subprocess.Popen[bytes]] = field(default_factory=list)

    def start(self, name: str, *flags: str) -> None:
        with (self.folder / "said").open("wb") as out:
            self.process = subprocess.Popen(
                self.head.command("image", "capture", name, "--from", "paste", *flags),
                cwd=CHECKOUT, env=clean_environment(), stdin=subprocess.DEVNULL, stdout=out, stderr=out,
            )  # fmt: skip
        wait_for(lambda: "python3 -c" in self.said)
        lines = [line.strip() for line in self.said.splitlines()]
        # There may be no sudo here, and root needs none.
        self.line = next(line for line in lines if line.startswith("curl")).replace("sudo ", "")
        self.python = next(line for line in lines if line.startswith("sudo python3")).replace("sudo ", "")

    @property
    def said(self) -> str:
        return (self.folder / "said").read_text()

    @property
    def token(self) -> str:
        return self.line.partition("/capture/")[2].split()[0]

    def end(self) -> int:
        assert self.process is not None
        return self.process.wait(PATIENCE)

    def paste(self, system: Path, line: str = "", path: str = "") -> subprocess.CompletedProcess[str]:
        """The line in a shell on the client, with another root; `path` is where programs are looked for first."""
        client = self.begin(system, line, path)
        out, err = client.communicate(timeout=PATIENCE)
        return subprocess.CompletedProcess(client.args, client.returncode, out.decode(), err.decode())

    def begin(self, system: Path, line: str = "", path: str = "") -> subprocess.Popen[bytes]:
        line = (line or self.line).replace("| sh", f"| sh -s -- --root '{system}'")
        line = line.replace("['sh']", f"['sh','-s','--','--root','{system}']")
        client = subprocess.Popen(
            ["ip", "netns", "exec", self.head.lan.node, "bash", "-o", "pipefail", "-c", line],
            env={**clean_environment(), "PATH": f"{path}:{os.environ['PATH']}"}, stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, process_group=0,
        )  # fmt: skip
        self.clients.append(client)
        return client


@pytest.fixture
def waiting(head: Served, tmp_path: Path) -> Iterator[Waiting]:
    made = Waiting(head, tmp_path)
    yield made
    for process in [made.process, *made.clients]:
        if process is not None and process.poll() is None:
            process.kill()
            process.wait()


def program(folder: Path, name: str, text: str) -> str:
    """A program of that name; the folder to put in front of PATH."""
    folder.mkdir(exist_ok=True)
    (folder / name).write_text(text)
    (folder / name).chmod(0o755)
    return str(folder)


def content(head: Served, ref: str, path: str, tmp_path: Path) -> bytes:
    """A file of a version."""
    store = Store(head.paths.images)
    manifest, _ = store.load(ref)
    restore(store, manifest, 0, tmp_path / "disk.img")
    return subprocess.run(
        ["debugfs", "-R", f"cat {path}", tmp_path / "disk.img"], capture_output=True, check=True
    ).stdout


@pytest.mark.parametrize("flavour", ["line", "python"])
def test_one_line_makes_a_version(flavour: str, waiting: Waiting, system: Path, tmp_path: Path) -> None:
    waiting.start(f"by-{flavour}", "-m", "pasted", "--exclude", "/usr/lib/zeros")
    said = waiting.paste(system, getattr(waiting, flavour))
    assert said.returncode == 0, said.stderr
    assert f"gild: by-{flavour}:1 is published" in said.stderr and "gild: the head: store" in said.stderr
    assert waiting.end() == 0 and f"by-{flavour}:1 is published" in waiting.said
    assert content(waiting.head, f"by-{flavour}", "/usr/lib/text", tmp_path) == b"golden " * 60_000
    manifest, _ = Store(waiting.head.paths.images).load(f"by-{flavour}")
    assert manifest.message == "pasted" and manifest.source["method"] == "paste"
    assert manifest.source["excluded"]["/usr/lib/zeros"] == "asked for"
    again = waiting.paste(system, getattr(waiting, flavour))
    said_again = "gild: this line was used (ask for a new one: gild.pyz image capture)\n"
    assert (again.returncode, again.stderr) == (1, said_again)


def test_the_line_gives_nothing_to_anybody_but_the_head(waiting: Waiting, system: Path) -> None:
    """Somebody in the way has another key."""
    waiting.start("pinned")
    wrong = waiting.paste(system, waiting.line.replace("sha256//", "sha256//AAAA"))
    assert wrong.returncode == 90 and "does not match pinned" in wrong.stderr  # CURLE_SSL_PINNEDPUBKEYNOTMATCH
    digest = waiting.python.partition("!=" if "!=" in waiting.python else "=='")[2][:64]
    assert len(digest) == 64
    wrong = waiting.paste(system, waiting.python.replace(digest, "0" * 64))
    assert wrong.returncode == 1 and "not the head" in wrong.stderr
    assert waiting.head.client.get("captures", waiting.token)["state"] == "open"


def test_a_broken_connection_keeps_nothing_and_the_line_is_good_again(
    waiting: Waiting, system: Path, tmp_path: Path
) -> None:
    waiting.start("broken")
    half = program(
        tmp_path / "half", "tar",
        f'#!/bin/sh\ncase "$*" in *version*|*files-from*) exec /usr/bin/tar "$@";; esac\n'
        f'/usr/bin/tar "$@" | head -c 300000\n> {tmp_path}/begun\nsleep 60\n',
    )  # fmt: skip
    client = waiting.begin(system, path=half)
    wait_for((tmp_path / "begun").exists)
    wait_for(lambda: waiting.head.client.get("captures", waiting.token)["state"] == "sending")
    busy = waiting.paste(system)
    assert busy.returncode == 1 and "this line is in use" in busy.stderr
    os.killpg(client.pid, signal.SIGKILL)
    client.wait()
    wait_for(lambda: "good for another try" in waiting.said)
    store = Store(waiting.head.paths.images)
    assert "broken" not in store.images() and not (store.work("broken") / "tree").exists()
    assert waiting.paste(system).returncode == 0
    assert waiting.end() == 0 and "broken:1 is published" in waiting.said


def test_what_tar_says_is_told_at_both_ends(waiting: Waiting, system: Path, tmp_path: Path) -> None:
    waiting.start("bad")
    bad = program(
        tmp_path / "bad", "tar",
        '#!/bin/sh\ncase "$*" in *version*|*files-from*) exec /usr/bin/tar "$@";; esac\n'
        '/usr/bin/tar "$@"\necho "tar: ./etc/x: Cannot open: Input/output error" >&2\nexit 2\n',
    )  # fmt: skip
    said = waiting.paste(system, path=bad)
    assert said.returncode == 1 and "./etc/x: Cannot open: Input/output error" in said.stderr
    assert waiting.end() == 1 and "Input/output error" in waiting.said
    assert "bad" not in Store(waiting.head.paths.images).images()


@pytest.mark.parametrize("door", ["line", "python"])
def test_a_head_that_cannot_take_it_says_so_while_the_client_still_sends(
    door: str, waiting: Waiting, system: Path, tmp_path: Path
) -> None:
    """The archive leads out of its tree at the first member, and more than any socket holds follows."""
    waiting.start("evil")
    evil = program(
        tmp_path / "evil", "tar",
        '#!/bin/sh\ncase "$*" in *version*|*files-from*) exec /usr/bin/tar "$@";; esac\n'
        f'cd {system}/etc && /usr/bin/tar -cPf - ../usr/lib/text && head -c 300000000 /dev/zero\n',
    )  # fmt: skip
    said = waiting.paste(system, getattr(waiting, door), path=evil)
    assert said.returncode == 1, said.stderr
    assert waiting.end() == 1 and "leads out of the tree" in waiting.said
    if door == "line":
        assert "leads out of the tree" in said.stderr


def test_a_client_without_gnu_tar_is_told_the_package(waiting: Waiting, system: Path, tmp_path: Path) -> None:
    waiting.start("no-tar")
    path = program(tmp_path / "bsd", "tar", "#!/bin/sh\necho bsdtar 3.6.2 - libarchive 3.6.2\n")
    said = waiting.paste(system, path=path)
    assert said.returncode == 1 and "bsdtar 3.6.2" in said.stderr and "apt install tar" in said.stderr
    wait_for(lambda: "bsdtar 3.6.2" in waiting.said)
    assert waiting.paste(system).returncode == 0 and waiting.end() == 0


def test_paths_that_are_no_text_come_back_as_they_were(waiting: Waiting, tmp_path: Path) -> None:
    waiting.start("odd")
    (tmp_path / "facts").write_bytes(SAID.replace(b"== swaps", b" 21 20 8:2 / /d\xff\\040'x rw - xfs x rw\n== swaps"))
    url = f"https://10.77.0.1/capture/{waiting.token}/facts"
    done = subprocess.run(
        ["ip", "netns", "exec", waiting.head.lan.node, "curl", "-sSk", "--data-binary", f"@{tmp_path}/facts", url],
        capture_output=True,
    )
    assert b"# read\n" in done.stdout and b"--exclude=./d\xff '\"'\"'x/*" in done.stdout


def test_the_end_of_the_command_is_the_end_of_the_line(waiting: Waiting, system: Path, tmp_path: Path) -> None:
    waiting.start("ended")
    slow = program(
        tmp_path / "slow", "tar",
        f'#!/bin/sh\ncase "$*" in *version*|*files-from*) exec /usr/bin/tar "$@";; esac\n'
        f'/usr/bin/tar "$@" | head -c 300000\n> {tmp_path}/begun\nwhile :; do echo more; sleep 0.05; done\n',
    )  # fmt: skip
    client = waiting.begin(system, path=slow)
    wait_for((tmp_path / "begun").exists)
    wait_for(lambda: "receive" in waiting.said)
    assert waiting.process is not None
    waiting.process.send_signal(signal.SIGINT)
    assert waiting.end() == 130
    _, err = client.communicate(timeout=PATIENCE)
    assert client.returncode and b"ended on the head" in err
    assert not (Store(waiting.head.paths.images).work("ended") / "tree").exists()
    said = waiting.paste(system)
    assert said.returncode == 1 and "taken back" in said.stderr


def test_a_killed_command_is_missed(waiting: Waiting, system: Path, tmp_path: Path) -> None:
    """It cannot say goodbye; the client is not left waiting."""
    waiting.start("killed")
    slow = program(
        tmp_path / "slow", "tar",
        '#!/bin/sh\ncase "$*" in *version*|*files-from*) exec /usr/bin/tar "$@";; esac\n'
        f'/usr/bin/tar "$@" | head -c 300000\n> {tmp_path}/begun\n'
        'while head -c 1000000 /dev/zero; do sleep 0.05; done\n',
    )  # fmt: skip
    client = waiting.begin(system, path=slow)
    wait_for((tmp_path / "begun").exists)
    wait_for(lambda: "receive" in waiting.said)
    assert waiting.process is not None
    waiting.process.kill()
    _, err = client.communicate(timeout=PATIENCE)
    assert client.returncode and b"the command on the head has ended" in err


@pytest.mark.parametrize("path", ["/capture/" + "0" * 32, "/capture/x/../y", "/capture/" + "a" * 500])
def test_who_has_no_token_gets_one_line(head: Served, path: str) -> None:
    told = head.at_node("curl", "-sSk", "--path-as-is", "-w", "%{http_code}", f"https://10.77.0.1{path}")
    assert told.stdout.endswith("404") and told.stdout.count("\n") <= 1
    for method, below in (("POST", "/facts"), ("PUT", "/tree")):
        told = head.at_node("curl", "-sSk", "-X", method, "-d", "x", f"https://10.77.0.1/capture/{'0' * 32}{below}")
        assert told.stdout.startswith("! the head knows nothing") and told.stdout.count("\n") == 1


def test_the_tree_is_not_for_the_public_port(head: Served) -> None:
    assert head.http("GET", "/capture/" + "0" * 32).status == 404
    assert head.http("POST", "/captures", b"{}").status in (404, 405)


def test_memory_does_not_grow_with_the_stream(waiting: Waiting, system: Path) -> None:
    """A stopped command holds the client up; the head keeps no more than a few pieces."""
    with (system / "usr/lib/big").open("wb") as file:
        for _ in range(200):
            file.write(os.urandom(1 << 20))
    waiting.start("big")
    assert waiting.process is not None and waiting.head.process is not None
    client = waiting.begin(system)
    wait_for(lambda: "receive" in waiting.said)
    waiting.process.send_signal(signal.SIGSTOP)
    try:
        before = time.monotonic()
        while time.monotonic() < before + 0.5:
            time.sleep(0.05)
        status = Path(f"/proc/{waiting.head.process.pid}/status").read_text()
        resident = int(status.partition("VmHWM:")[2].split()[0]) >> 10
    finally:
        waiting.process.send_signal(signal.SIGCONT)
    client.communicate(timeout=PATIENCE)
    assert client.returncode == 0 and waiting.end() == 0
    assert resident < 200
