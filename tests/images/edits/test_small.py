"""The edits of one file each: hostname, hosts, resolv, machine_id, host_keys."""

from __future__ import annotations

from pathlib import Path

import pytest

from images.edits import files, host_keys, hostname, hosts, machine_id, resolv
from images.errors import GildError
from tests.images import systems


def test_hostname_where_other_systems_keep_it(tmp_path: Path) -> None:
    systems.put(tmp_path, "etc/conf.d/hostname", '# Set\nhostname="localhost"\n')
    systems.put(tmp_path, "etc/sysconfig/network", "NETWORKING=yes\nHOSTNAME=golden\n")
    systems.put(tmp_path, "etc/HOSTNAME", "golden\n")
    hostname.apply(str(tmp_path), {"name": "n01"})
    read = {name: (tmp_path / "etc" / name).read_text() for name in
            ("hostname", "HOSTNAME", "conf.d/hostname", "sysconfig/network")}  # fmt: skip
    assert read == {
        "hostname": "n01\n",
        "HOSTNAME": "n01\n",
        "conf.d/hostname": '# Set\nhostname="n01"\n',
        "sysconfig/network": "NETWORKING=yes\nHOSTNAME=n01\n",
    }


def test_hosts_loses_the_golden_name_and_keeps_what_is_not_about_us(tmp_path: Path) -> None:
    systems.put(
        tmp_path, "etc/hosts", "127.0.0.1 localhost\n127.0.1.1 golden\n# ours\n10.9.9.9 licence\n10.7.0.1 old-head\n"
    )
    hosts.apply(str(tmp_path), {"name": "n01", "domain": "c.internal", "address": "10.7.0.11",
                                "entries": {"10.7.0.1": "head.c.internal head"}})  # fmt: skip
    assert (tmp_path / "etc/hosts").read_text().splitlines() == [
        "::1\tlocalhost ip6-localhost ip6-loopback",
        "127.0.0.1 localhost",
        "# ours",
        "10.9.9.9 licence",
        "10.7.0.11\tn01.c.internal n01",
        "10.7.0.1\thead.c.internal head",
    ]


def test_resolv_conf_is_written_but_never_through_or_over_a_link(tmp_path: Path) -> None:
    options = {"dns": ["10.7.0.1", "10.7.0.2"], "domain": "c.internal"}
    resolv.apply(str(tmp_path), options)
    file = tmp_path / "etc/resolv.conf"
    assert file.read_text() == "search c.internal\nnameserver 10.7.0.1\nnameserver 10.7.0.2\n"
    file.unlink()
    systems.put(tmp_path, "run/systemd/resolve/stub-resolv.conf", "stub\n")
    systems.link(tmp_path, "etc/systemd/system/sysinit.target.wants/systemd-resolved.service", "x")
    file.symlink_to("../run/systemd/resolve/stub-resolv.conf")
    assert "is a link to ../run" in resolv.apply(str(tmp_path), options)[0]
    assert file.is_symlink() and file.read_text() == "stub\n"


def test_machine_id_is_real_dbus_follows_and_kernel_entries_keep_their_names(tmp_path: Path) -> None:
    systems.put(tmp_path, "etc/machine-id", "")
    systems.put(tmp_path, "var/lib/dbus/machine-id", systems.GOLDEN)
    systems.put(tmp_path, f"boot/loader/entries/{systems.GOLDEN}-6.1.conf", "title x\n")
    machine_id.apply(str(tmp_path), {"id": "AB" * 16})
    assert (tmp_path / "etc/machine-id").read_bytes() == b"ab" * 16 + b"\n"
    assert (tmp_path / "var/lib/dbus/machine-id").readlink() == Path("/etc/machine-id")
    assert (tmp_path / "etc/kernel/entry-token").read_text() == systems.GOLDEN + "\n"


def test_host_keys_replace_all_others_and_are_private(tmp_path: Path) -> None:
    keys = {
        "ssh_host_ed25519_key": "-----BEGIN OPENSSH PRIVATE KEY-----\n",
        "ssh_host_ed25519_key.pub": "ssh-ed25519 A\n",
    }
    assert "no etc/ssh" in host_keys.apply(str(tmp_path), {"keys": keys})[0]
    for name in ("ssh_host_rsa_key", "ssh_host_rsa_key.pub", "ssh_host_ed25519_key", "sshd_config"):
        systems.put(tmp_path, f"etc/ssh/{name}", "golden")
    assert host_keys.apply(str(tmp_path), {"keys": {}}) == []
    host_keys.apply(str(tmp_path), {"keys": keys})
    found = {path.name: (path.stat().st_mode & 0o777, path.read_text()) for path in (tmp_path / "etc/ssh").iterdir()}
    assert found == {
        "ssh_host_ed25519_key": (0o600, keys["ssh_host_ed25519_key"]),
        "ssh_host_ed25519_key.pub": (0o644, keys["ssh_host_ed25519_key.pub"]),
        "sshd_config": (0o644, "golden"),
    }


def test_files_are_put_in_place_whole_or_none_of_them(tmp_path: Path) -> None:
    systems.put(tmp_path, "outside", "theirs")
    root = tmp_path / "root"
    systems.link(root, "etc/motd", "../../outside")
    good = {"path": "/etc/motd", "content": "n01\n"}
    with pytest.raises(GildError, match="'etc//x' is not the path of a file"):
        files.apply(str(root), {"files": [good, {"path": "etc//x", "content": ""}]})
    assert (root / "etc/motd").is_symlink()
    secret = {"path": "opt/a/key", "content": "k", "mode": "0600"}
    assert files.apply(str(root), {"files": [good, secret]}) == ["file etc/motd", "file opt/a/key"]
    assert (root / "etc/motd").read_text() == "n01\n" and (tmp_path / "outside").read_text() == "theirs"
    assert (root / "opt/a/key").stat().st_mode & 0o777 == 0o600
    assert files.apply(str(root), {"files": [good, secret]}) == []


def test_files_links_and_folders_with_owners_the_tree_knows(tmp_path: Path) -> None:
    root, source = tmp_path / "root", tmp_path / "source"
    systems.put(root, "etc/passwd", "root:x:0:0::/root:/bin/sh\nmunge:x:4711:4712::/:/bin/false\nhalf:x\n")
    systems.put(root, "etc/group", "munge:x:4712:\n")
    source.write_bytes(b"\x00large")
    wanted = [
        {"path": "etc/key", "base64": ["AP8=", "Cg=="], "mode": "0400", "owner": "munge", "group": "munge"},
        {"path": "opt/tool", "source": str(source), "mode": "4755", "owner": "12", "group": "13"},
        {"path": "etc/link", "link": "../opt/tool"},
        {"path": "var/spool/x", "folder": True, "mode": "0700", "owner": "munge"},
    ]
    assert files.apply(str(root), {"files": wanted}) == [
        "file etc/key", "file opt/tool", "link etc/link", "folder var/spool/x",
    ]  # fmt: skip
    seen = {name: (root / name).lstat() for name in ("etc/key", "opt/tool", "var/spool/x")}
    assert {name: (status.st_mode & 0o7777, status.st_uid, status.st_gid) for name, status in seen.items()} == {
        "etc/key": (0o400, 4711, 4712), "opt/tool": (0o4755, 12, 13), "var/spool/x": (0o700, 4711, 0),
    }  # fmt: skip
    assert (root / "etc/key").read_bytes() == b"\x00\xff\n" and (root / "opt/tool").read_bytes() == b"\x00large"
    assert (root / "etc/link").readlink() == Path("../opt/tool")
    assert files.apply(str(root), {"files": wanted}) == []


@pytest.mark.parametrize(
    ("entry", "words"),
    [
        ({"path": "x"}, "needs one of content, base64, source, link, folder, and has 0"),
        ({"path": "x", "content": "", "link": "y"}, "has 2"),
        ({"path": "x", "content": "", "owner": "nobody-here"}, "no user nobody-here for /x"),
        ({"path": "x", "content": "", "group": "nobody-here"}, "no group nobody-here for /x"),
        ({"path": "x", "content": "", "owner": "a:b"}, "owner of /x cannot be 'a:b'"),
        ({"path": "x", "base64": "AA=="}, "base64 of /x is no list"), ({"path": "x", "base64": ["A"]}, "is none"),
        ({"path": "x", "link": ""}, "link of /x is empty"), ({"path": "x", "folder": "yes"}, "is not true"),
        ({"path": "x", "source": "/nonexistent"}, "/nonexistent for /x cannot be read"),
        ({"path": "x", "fetch": "s", "size": 1}, "is not an object with only"),
        ({"path": "x", "content": 5}, "no text"),
    ],
)  # fmt: skip
def test_files_that_cannot_be(tmp_path: Path, entry: dict[str, object], words: str) -> None:
    with pytest.raises(GildError) as caught:
        files.apply(str(tmp_path), {"files": [entry]})
    assert words in caught.value.message and not (tmp_path / "x").exists()
