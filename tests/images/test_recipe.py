"""Building a recipe: a stand-in for mmdebstrap, since the real one needs a mirror and a minute."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from images.errors import CommandFailed, NoSpace, RecipeInvalid, ToolMissing
from images.ext4 import EPOCH
from images.options import Options
from images.run import run
from images.sources.recipe import SHIPPED, build_recipe, read_recipe, shipped_recipes
from images.store import Store
from tests.images.keys import KEY
from tests.images.shelltree import shell_tree
from tests.images.sound import damaged

RECIPE = """name = "x"
suite = "bookworm"
mirror = "http://nowhere.example"
packages = ["hello"]
exclude = ["/usr/share/man/*"]
message = "built"
scripts = ["echo one > /etc/one\\ncat /etc/one > /etc/two"]
[files]
"/etc/motd" = { content = "hi", mode = "0600", owner = "man" }
"/usr/local/bin/tool" = { source = "tool.sh", mode = "0755" }
"""
# Records how it was called, answers as mmdebstrap does, and delivers the tree that TREE names.
STAND_IN = """#!/bin/sh
for argument; do printf '%s\\n' "$argument"; done > "$LOG/arguments"
env > "$LOG/environment"
for argument; do case $argument in
*/gild.sources) cp $argument "$LOG/sources"; ;;
*/tree) tree=$argument;;
esac; done
echo "0 upgraded, 2 newly installed, 0 to remove"
echo "Unpacking one"; echo "Setting up one"
if [ -n "$FAIL" ]; then echo "$FAIL"; exit 1; fi
cp -a "$TREE/." "$tree"
"""

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")


@pytest.fixture
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin/mmdebstrap").write_text(STAND_IN)
    (tmp_path / "bin/mmdebstrap").chmod(0o755)
    (tmp_path / "tool.sh").write_text("#!/bin/sh\n")
    tree = shell_tree(tmp_path / "built")
    (tree / "etc/passwd").write_text("root:x:0:0::/root:/bin/sh\nman:x:6:12::/:/bin/sh\n")
    (tree / "var/lib/dpkg/status").write_text(
        "Package: hello\nStatus: install ok installed\nVersion: 2.10-3\n\n"
        "Package: gone\nStatus: deinstall ok config-files\nVersion: 1\n"
    )
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{os.environ['PATH']}")
    monkeypatch.setenv("LOG", str(tmp_path))
    monkeypatch.setenv("TREE", str(tree))
    return tmp_path


@needs_root
def test_a_recipe_becomes_a_version(bench: Path) -> None:
    store = Store(bench / "store")
    heard: list[tuple[str, int, int]] = []
    manifest = build_recipe(store, RECIPE, "", Options(progress=lambda *at: heard.append(at)), base=bench)
    assert manifest.ref == "x:1" and manifest.message == "built" and damaged(store, "x") == []
    assert manifest.source["recipe"] == RECIPE and manifest.source["packages"] == {"hello": "2.10-3"}
    assert ("build", 2, 4) in heard and heard[-1][0] == "store"
    arguments = (bench / "arguments").read_text().splitlines()
    assert "--include=hello" in arguments and "--dpkgopt=path-exclude=/usr/share/man/*" in arguments
    assert arguments[-3] == "bookworm"
    assert "URIs: http://nowhere.example\n".lower() in (bench / "sources").read_text().lower()
    assert f"SOURCE_DATE_EPOCH={EPOCH}\n" in (bench / "environment").read_text()
    assert ("script", 1, 1) in heard
    assert sorted(p.name for p in store.work("x").iterdir()) == ["current"]
    found = debugfs(store, "stat /etc/motd", "stat /usr/local/bin/tool", "cat /etc/two", "ls -p /usr/sbin", "ls -p /")
    assert "Mode:  0600" in found and "User:     6   Group:    12" in found
    assert "Mode:  0755" in found and f"mtime: 0x{EPOCH:08x}" in found and "\none\n" in found
    assert "policy-rc.d" not in found and ".gild-script" not in found


def debugfs(store: Store, *requests: str, name: str = "x") -> str:
    """What debugfs says of the working image of the newest version."""
    text = "\n".join(requests) + "\n"
    image = store.work(name) / "current/root.img"
    return run(["debugfs", "-f", "-", str(image)], input=text.encode()).stdout.decode()


@needs_root
def test_building_again_stores_nothing_new_but_the_superblock(bench: Path) -> None:
    store = Store(bench / "store")
    build_recipe(store, RECIPE, base=bench)
    before = sum(p.stat().st_size for p in store.packs.glob("*.pack"))
    assert build_recipe(store, RECIPE, base=bench).version == 2
    assert sum(p.stat().st_size for p in store.packs.glob("*.pack")) - before < 20_000


@needs_root
@pytest.mark.parametrize(
    ("said", "wanted", "text"),
    [
        ("E: Unable to locate package helo", RecipeInvalid, "no package helo"),
        ("E: Package 'non-free-thing' has no installation candidate", RecipeInvalid, "no package non-free-thing"),
        ("E: the sky fell", CommandFailed, "the sky fell"),
    ],
)
def test_what_apt_complains_about_is_named(
    bench: Path, monkeypatch: pytest.MonkeyPatch, said: str, wanted: type[Exception], text: str
) -> None:
    monkeypatch.setenv("FAIL", said)
    store = Store(bench / "store")
    with pytest.raises(wanted, match=text):
        build_recipe(store, RECIPE, base=bench)
    assert store.images() == [] and not any(store.work("x").glob("*/*"))


def test_without_mmdebstrap_there_is_a_way_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ToolMissing, match="apt install mmdebstrap"):
        build_recipe(Store(tmp_path / "store"), RECIPE, base=tmp_path)


@needs_root
def test_a_source_file_that_is_missing_is_named(bench: Path) -> None:
    (bench / "tool.sh").unlink()
    with pytest.raises(RecipeInvalid, match=r"/usr/local/bin/tool: .*tool\.sh cannot be read"):
        build_recipe(Store(bench / "store"), RECIPE, base=bench)


@needs_root
def test_a_script_that_fails_is_named_with_its_last_words(bench: Path) -> None:
    text = RECIPE.replace("scripts = [", 'scripts = ["true", "echo doing; echo it broke >&2; exit 3", ')
    with pytest.raises(CommandFailed, match=r"building x: script 2: .*failed \(3\): it broke"):
        build_recipe(Store(bench / "store"), text, base=bench)


@needs_root
def test_a_script_that_does_not_end_is_ended(bench: Path) -> None:
    text = RECIPE.replace("scripts = [", 'scripts = [{ text = "sleep 77", limit = 1 }, ')
    with pytest.raises(CommandFailed, match=r"script 1: .* did not end within 1 s"):
        build_recipe(Store(bench / "store"), text, base=bench)


@needs_root
def test_a_script_finds_a_running_system_and_starts_no_service(bench: Path) -> None:
    look = "test -e /proc/self/status\ntest -c /dev/null\ntest $SYSTEMD_OFFLINE = 1\n"
    look += "cat /usr/sbin/policy-rc.d > /etc/policy"
    (bench / "look.sh").write_text(f"#!/bin/sh\n{look}\n")
    text = RECIPE.replace("scripts = [", 'scripts = [{ file = "look.sh" }, ')
    store = Store(bench / "store")
    build_recipe(store, text, base=bench)
    assert "exit 101" in debugfs(store, "cat /etc/policy")


@needs_root
@pytest.mark.parametrize("where", ["packages", "script"])
def test_a_full_disk_is_said_and_everything_given_back(
    bench: Path, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    text = RECIPE
    if where == "packages":
        monkeypatch.setenv("FAIL", "dpkg: error: failed to write to x: No space left on device")
    else:
        text = RECIPE.replace("scripts = [", "scripts = [\"echo 'x: No space left on device' >&2; exit 1\", ")
    store = Store(bench / "store")
    with pytest.raises(NoSpace, match="the disk is full"):
        build_recipe(store, text, base=bench)
    assert store.images() == [] and not any(store.work("x").glob("*/*"))


@needs_root
def test_users_keys_and_templates_reach_the_image(bench: Path) -> None:
    (Path(os.environ["TREE"]) / "etc/sudoers.d").mkdir()
    text = f"""keys = ["{KEY}"]
{RECIPE}
[variables]
rack = 7
[templates]
"/etc/issue" = {{ content = "$name in rack ${{rack}} $$\\n" }}
[[users]]
name = "anna"
shell = "/bin/sh"
sudo = true
keys = ["{KEY}"]
[[layout]]
name = "root"
size = "rest"
mount = "/"
"""
    store = Store(bench / "store")
    manifest = build_recipe(store, text, base=bench)
    assert "--include=hello,sudo" in (bench / "arguments").read_text()
    assert manifest.source["layout"] == [{"name": "root", "size": "rest", "mount": "/"}]
    found = debugfs(store, "cat /etc/issue", "cat /home/anna/.ssh/authorized_keys", "stat /home/anna/.ssh")
    assert "x in rack 7 $\n" in found and KEY in found and "User:  1000   Group:  1000" in found


def test_the_shipped_recipes_are_recipes() -> None:
    texts = shipped_recipes()
    assert tuple(texts) == SHIPPED
    for name, text in texts.items():
        recipe = read_recipe(text)
        assert recipe.name == name and "linux-image-amd64" in recipe.packages and recipe.message
        assert "systemd-networkd.service" in recipe.enable
    assert "openmpi-bin" in read_recipe(texts["debian-mpi"]).packages
    assert "slurmd" in read_recipe(texts["debian-slurm"]).packages
