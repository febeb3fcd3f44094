"""The probe as a process of its own, against real DHCP servers and clients in namespaces."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from appliance import probing
from appliance.bundled import again
from appliance.sightings import Machines, frame
from tests.appliance.process import CHECKOUT, clean_environment, wait_for
from tests.appliance.rival import ADDRESS, needs_dnsmasq, rival
from tests.netboot.lan import Lan, cable

root = pytest.mark.root


@pytest.fixture(scope="module")
def lan() -> Iterator[Lan]:
    with cable() as made:
        yield made


@pytest.fixture
def at_head(lan: Lan, monkeypatch: pytest.MonkeyPatch) -> Lan:
    """Probes that are started during the test look at the head's end of the cable."""
    argv, environ = again()
    monkeypatch.setattr(probing, "again", lambda: (["ip", "netns", "exec", lan.head, *argv], environ))
    return lan


def gild(
    lan: Lan, *arguments: str, program: tuple[str, ...] = (), environ: dict[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["ip", "netns", "exec", lan.head, *(program or (sys.executable, "-m", "appliance")), *arguments],
        cwd=CHECKOUT, env={**clean_environment(), **(environ or {})}, stdin=subprocess.DEVNULL, capture_output=True,
        text=True, timeout=60,
    )  # fmt: skip


@root
@needs_dnsmasq
def test_every_server_is_found_with_what_it_boots(at_head: Lan) -> None:
    with rival(at_head, "--dhcp-boot=evil[red].efi,boots,10.77.0.9"):
        (found,) = probing.ask("head0", 1.5)
    assert (found.server_id, found.source, found.kind) == (ADDRESS, ADDRESS, "addresses")
    assert found.mac == "52:54:00:00:77:01" and found.offered.startswith("10.77.0.21")
    assert (found.boot_file, found.next_server) == ("evil[red].efi", "10.77.0.9")


@root
@needs_dnsmasq
def test_a_proxy_is_told_from_one_that_gives_addresses(at_head: Lan) -> None:
    with rival(at_head, "--pxe-service=x86-64_EFI,boot,file.efi", ranged="10.77.0.0,proxy"):
        (found,) = probing.ask("head0", 1.5)
    assert (found.server_id, found.kind, found.offered) == (ADDRESS, "boot", "")


@root
@needs_dnsmasq
def test_no_lease_is_taken(at_head: Lan, tmp_path: Path) -> None:
    leases = tmp_path / "leases"
    leases.touch()
    leases.chmod(0o666)
    tmp_path.chmod(0o777)
    with rival(at_head, f"--dhcp-leasefile={leases}"):
        assert len(probing.ask("head0", 1)) == 1
    assert leases.read_text() == ""


@root
def test_silence_is_an_answer(at_head: Lan) -> None:
    assert probing.ask("head0", 0.2) == []


@root
def test_a_machine_that_asks_is_seen_with_all_it_says(at_head: Lan) -> None:
    client = threading.Thread(target=ask_for_ever, args=(at_head,))
    machines = Machines()
    with closing(probing.lines("head0", "requests")) as said:
        assert "ready" in next(line for line in said if line is not None)
        client.start()
        for line in said:
            seen = frame(line) if line is not None else None
            if seen is not None and machines.saw(seen):
                break
    client.join(30)
    (machine,) = machines.known.values()
    assert machine.mac == "52:54:00:00:77:01" and machine.firmware == "UEFI arm64"
    assert (machine.vendor, machine.hostname) == ("PXEClient:Arch:00011", "x[bold]?[2Jy")


def ask_for_ever(lan: Lan) -> None:
    """busybox's client asks three times, a second apart, and gives up."""
    subprocess.run(
        ["ip", "netns", "exec", lan.node, "busybox", "udhcpc", "-i", "node0", "-n", "-q", "-f", "-t", "3", "-T", "1",
         "-A", "1", "-s", "/bin/true", "-V", "PXEClient:Arch:00011", "-x", "hostname:x[bold]\x1b[2Jy"],
        check=False, capture_output=True, timeout=30,
    )  # fmt: skip


@root
@pytest.mark.parametrize(("interface", "words"), [("eth99", "head0"), ("down0", "ip link set down0 up")])
def test_an_interface_that_cannot_be_listened_on_is_one_line(lan: Lan, interface: str, words: str) -> None:
    subprocess.run(
        ["ip", "-n", lan.head, "link", "add", "down0", "type", "veth", "peer", "name", "down1"],
        check=False, capture_output=True,
    )  # fmt: skip
    for verb in ("dhcp", "listen"):
        said = gild(lan, "probe", verb, "--interface", interface, "--seconds", "1")
        assert said.returncode == 5 and interface in said.stderr and words in said.stderr, said
        assert len(said.stderr.splitlines()) <= 2


@root
def test_without_root_it_says_so(lan: Lan) -> None:
    nobody = ("setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", sys.executable, "-m", "appliance")
    said = gild(lan, "probe", "listen", "--interface", "head0", "--seconds", "1", program=nobody)
    assert said.returncode == 5 and "root" in said.stderr and len(said.stderr.splitlines()) == 2, said


@root
@needs_dnsmasq
def test_the_command_lists_servers_and_writes_nothing(lan: Lan, tmp_path: Path) -> None:
    home = {"HOME": str(tmp_path), "XDG_CACHE_HOME": str(tmp_path / "cache"), "PYTHONDONTWRITEBYTECODE": "1"}
    with rival(lan, "--dhcp-boot=a[red]b"):
        said = gild(lan, "probe", "dhcp", "--interface", "head0", "--seconds", "1", environ=home)
        rows = json.loads(
            gild(lan, "probe", "dhcp", "--interface", "head0", "--seconds", "1", "--json", environ=home).stdout
        )
    assert said.returncode == 0 and ADDRESS in said.stdout and "a[red]b" in said.stdout
    assert "52:54:00:00:77:01" in said.stdout
    assert [row["server_id"] for row in rows] == [ADDRESS]
    assert list(tmp_path.rglob("*")) == []
    said = gild(lan, "probe", "dhcp", "--interface", "head0", "--seconds", "1")
    assert said.stdout == "no DHCP server answers on head0\n"


@root
def test_json_lines_of_machines(lan: Lan) -> None:
    client = threading.Thread(target=ask_for_ever, args=(lan,))
    process = subprocess.Popen(
        ["ip", "netns", "exec", lan.head, sys.executable, "-m", "appliance", "probe", "listen", "--interface", "head0",
         "--json"],
        cwd=CHECKOUT, env=clean_environment(), stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        wait_for(lambda: listening(process.pid))
        client.start()
        assert process.stdout is not None
        row = json.loads(process.stdout.readline())
        assert row["mac"] == "52:54:00:00:77:01" and row["count"] == 1
        process.send_signal(2)
        assert process.wait(20) == 130
    finally:
        process.kill()
        process.communicate()
        client.join(30)


def listening(pid: int) -> bool:
    """Whether the process in that one's network has a packet socket open."""
    try:
        return len(Path(f"/proc/{pid}/net/packet").read_text().splitlines()) > 1
    except OSError:
        return False


@root
def test_the_built_file_probes_too(pyz: Path, lan: Lan) -> None:
    said = gild(lan, "probe", "dhcp", "--interface", "head0", "--seconds", "1", program=(sys.executable, str(pyz)))
    assert (said.returncode, said.stdout) == (0, "no DHCP server answers on head0\n"), said.stderr


def test_the_parent_never_imports_scapy() -> None:
    """Nor does the command line that starts the probe, by whatever way."""
    code = (
        "import sys\nimport appliance.serve, appliance.probing, appliance.cli.probe, appliance.probe\n"
        "print(sorted(name for name in sys.modules if name.partition('.')[0] == 'scapy'))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=CHECKOUT, env=dict(os.environ), capture_output=True, text=True, timeout=60
    )
    assert done.stdout == "[]\n", done.stderr
