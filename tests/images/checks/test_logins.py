"""Secrets and logins: names and never contents."""

from __future__ import annotations

from pathlib import Path

from images.checks import logins
from tests.images.checks.looked import look
from tests.images.systems import put

PASSWD = "root:x:0:0:root:/root:/bin/bash\nada:x:1000:1000::/home/ada:/bin/bash\nsync:x:4:4::/bin:/bin/sync\n"


def shadow(place: Path, /, **fields: str) -> None:
    put(place, "etc/passwd", PASSWD)
    put(place, "etc/shadow", "".join(f"{name}:{field}:19000:0:99999:7:::\n" for name, field in fields.items()), 0o600)


def test_secrets_are_named_and_not_shown(tmp_path: Path) -> None:
    put(tmp_path, "root/.ssh/id_ed25519", "hunter2")
    put(tmp_path, "home/ada/.netrc", "password hunter2")
    wifi = "etc/NetworkManager/system-connections/wifi.nmconnection"
    put(tmp_path, wifi, "[wifi-security]\npsk=hunter2\n", 0o600)
    put(tmp_path, "etc/munge/munge.key", "hunter2")
    found = look(logins.secrets, tmp_path)
    assert found["private keys"].found == ("root/.ssh/id_ed25519",)
    assert found["credentials"].found == ("home/ada/.netrc", wifi)
    assert [found[name].severity for name in ("private keys", "credentials", "keys of services")] == [
        "warning",
        "warning",
        "info",
    ]
    assert "hunter2" not in str(found)


def test_passwords(tmp_path: Path) -> None:
    shadow(tmp_path, root="$6$x$y", ada="", sync="", bin="*", old="!$6$x")
    found = look(logins.passwords, tmp_path)
    assert (
        found["accounts without a password"].found == ("ada",)
        and "passwd -l ada" in found["accounts without a password"].fix
    )
    assert found["password of root"].severity == "warning" and "$6$" not in str(found)
    shadow(tmp_path, root="*", ada="$y$x")
    assert look(logins.passwords, tmp_path)["accounts with a password"].found == ("ada",)


def test_a_name_of_an_account_cannot_enter_the_command(tmp_path: Path) -> None:
    put(tmp_path, "etc/shadow", "$(reboot)::1:0:9:7:::\n")
    assert "passwd -l NAME" in look(logins.passwords, tmp_path)["accounts without a password"].fix


def test_who_opens_every_node(tmp_path: Path) -> None:
    shadow(tmp_path, root="*", ada="!")
    assert "nobody can log in" in look(logins.doors, tmp_path)
    put(tmp_path, "root/.ssh/authorized_keys", "# mine\nssh-ed25519 A a\n\nssh-ed25519 B b\n")
    put(tmp_path, "home/ada/.ssh/authorized_keys", "\n")
    put(tmp_path, "etc/sudoers", "# x ALL=NOPASSWD: ALL\nroot ALL=(ALL) ALL\n")
    put(tmp_path, "etc/sudoers.d/90-cloud", "ada ALL=(ALL) NOPASSWD:ALL\n")
    found = look(logins.doors, tmp_path)
    assert found["keys that open every node"].found == ("root/.ssh/authorized_keys: 2 keys",)
    assert found["root without a password"].found == ("etc/sudoers.d/90-cloud",) and "nobody can log in" not in found
    shadow(tmp_path, root="$6$x", ada="!")
    (tmp_path / "root/.ssh/authorized_keys").unlink()
    assert "nobody can log in" not in look(logins.doors, tmp_path)
